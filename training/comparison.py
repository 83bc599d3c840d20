"""Comparisons of arms over the same questions, of one student or of many together. Each has an interval, a
p-value that agrees with it, and a verdict in words. Many comparisons are corrected.

Shapes: N students, S training seeds, Q questions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from training.evaluation import (
    EQUAL,
    LEVEL,
    NOTHING,
    Interval,
    SeedVariance,
    Uncertainty,
    pool_seeds,
    uncertainty_of,
)

POWER = 0.8  # of the number of questions that would tell two arms apart
NORMAL = float(stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER))  # Student's t is never below
STEP, MOST = 1.3, 10**8  # how numbers of questions are tried, and up to how many times those that there are
MODELS_ALONE = "compares these trained models, not the ways of choosing"  # what one seed each claims
SAME = Uncertainty(0.0, 0.0, 1.0)  # for two identical arms: nothing differs


@dataclass(frozen=True)
class Comparison:
    """Arm minus baseline over the same questions, in share of questions or nats per token.

    Attributes:
        questions, seeds: how many there are; a cluster of questions counts once. Seeds of the arm that has
            fewer.
        more_questions: how many more would tell the arms apart in four of five cases, if the difference is
            what was seen. None if they are told apart, if there is no difference, or if only more seeds would
            help.
        uncertainty: interval and p-value follow from it.
        against: the baseline.
    """

    difference: Interval
    p_value: float
    questions: int
    seeds: int
    more_questions: int | None
    verdict: str
    uncertainty: Uncertainty
    against: str = ""


def compare(
    arm_SQ: np.ndarray,
    baseline_SQ: np.ndarray,
    arm: str,
    baseline: str,
    metric: str = "accuracy",
    pool: SeedVariance | None = None,
    is_same: bool = False,
    same_trainings: bool = False,
    of_trainings: bool = False,
    unit: str = "questions",
) -> Comparison:
    """Compare two arms over the same questions in the same order. A difference is called if p is below 0.05,
    which is the same as the interval leaving out 0. Without a question there is neither, and the verdict says
    so.

    Args:
        arm_SQ, baseline_SQ: values [S seeds, Q questions], or [Q] for one seed. Seeds need not be equally
            many: each arm's are its own.
        pool: the variance of seeds in the whole run. By default that of these two arms alone.
        is_same: whether both arms trained on the same choices. If their values are equal too, there is no
            interval. Equal values of other arms are chance, and have an interval.
        same_trainings: whether seed by seed the same trained model gave both, in two ways of answering. Then
            `pool` is the variance of seeds of their differences.
        of_trainings: whether an arm with one seed is a training like the pool's, see `uncertainty_of`.
        unit: what the columns are, in words: questions, or clusters of questions that are not independent.

    Raises:
        ValueError: the questions differ in number, an arm has no seed, or a value is NaN.
    """
    arm_SQ, baseline_SQ = (np.atleast_2d(np.asarray(x, float)) for x in (arm_SQ, baseline_SQ))
    if arm_SQ.shape[1] != baseline_SQ.shape[1] or not len(arm_SQ) or not len(baseline_SQ):
        raise ValueError(
            f"{arm} and {baseline} were evaluated on {arm_SQ.shape[1]} and {baseline_SQ.shape[1]} questions"
        )
    seeds = [len(arm_SQ)] if same_trainings else [len(arm_SQ), len(baseline_SQ)]
    if not arm_SQ.shape[1]:
        return _without_questions(arm, baseline, min(seeds))
    _refuse_unknown({arm: arm_SQ, baseline: baseline_SQ})
    difference_Q = arm_SQ.mean(axis=0) - baseline_SQ.mean(axis=0)
    bound, least = (1.0, 1.0) if metric == "accuracy" else (math.inf, 0.0)
    if pool is None:
        pool = pool_seeds([arm_SQ - baseline_SQ] if same_trainings else [arm_SQ, baseline_SQ])
    sure = uncertainty_of(difference_Q, seeds, pool, least, of_trainings)
    if is_same and not difference_Q.any():
        sure = SAME
    mean, questions = float(difference_Q.mean()), len(difference_Q)
    interval = sure.around(mean, bound)
    p_value = sure.p_value(mean)
    more, lack_seeds = (None, False) if p_value < LEVEL else needed(mean, questions, sure)
    verdict = verdict_of(interval, p_value < LEVEL, arm, baseline, metric)
    if sure is SAME:
        verdict = f"{arm} chose the same answers as {baseline} in every round, and came to the same"
        verdict += ": there is no interval"
    if more is not None:
        verdict += f"; if the difference is as seen, about {more:,} more {unit} would show it"
    elif lack_seeds:
        verdict += "; more seeds would be needed, more questions would not do"
    return Comparison(interval, p_value, questions, min(seeds), more, verdict, sure, baseline)


def _without_questions(arm: str, baseline: str, seeds: int) -> Comparison:
    verdict = f"cannot compare {arm} with {baseline}: no question could be judged under every seed of both"
    unknown = Uncertainty(math.nan, math.nan, math.nan)
    return Comparison(NOTHING, math.nan, 0, seeds, None, verdict, unknown, baseline)


def _refuse_unknown(values: Mapping[str, np.ndarray]) -> None:
    for name, values_SQ in values.items():
        unknown = int((~np.isfinite(values_SQ)).any(axis=0).sum())
        if unknown:
            raise ValueError(f"{unknown:,} questions of {name} have no value: compare those that both have")


def needed(mean: float, questions: int, sure: Uncertainty) -> tuple[int | None, bool]:
    """How many more questions would tell a difference from 0 in four of five cases, if it is what was seen.
    None if there is no such number. The second value says whether more seeds are needed instead.

    The variance between questions falls with their number. The variance of seeds beyond that stays. If it
    alone is too large, no number of questions is enough. With more questions the degrees of freedom come
    closer to those of seeds, so Student's t is taken anew at every number that is tried.
    """
    if mean == 0 or not sure.variance or not math.isfinite(sure.variance):
        return None, False
    stays = max(0.0, sure.variance - sure.questions)
    if NORMAL * math.sqrt(stays) >= abs(mean):
        return None, True
    too_few, enough = questions, questions + 1
    while _to_tell(sure.with_questions(questions, enough)) > abs(mean):
        too_few, enough = enough, math.ceil(enough * STEP)
        if enough > MOST * questions:
            return None, stays > 0
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        is_enough = _to_tell(sure.with_questions(questions, middle)) <= abs(mean)
        too_few, enough = (too_few, middle) if is_enough else (middle, enough)
    return enough - questions, False


def _to_tell(sure: Uncertainty) -> float:
    """The difference that is told from 0 in four of five cases."""
    return sure.reach + float(stats.t.ppf(POWER, sure.freedom)) * math.sqrt(sure.variance)


def verdict_of(interval: Interval, is_called: bool, arm: str, baseline: str, metric: str) -> str:
    """A comparison in words."""
    scale, unit, digits = (100.0, "points", 1) if metric == "accuracy" else (1.0, "nats per answer token", 4)
    value, low, high = (scale * x for x in (interval.value, interval.low, interval.high))
    if not interval.is_known:
        return (
            f"cannot tell {arm} from {baseline}: difference {value:+.{digits}f} {unit}, without an interval"
        )
    bounds = f"95 % interval {low:+.{digits}f} to {high:+.{digits}f}"
    if not is_called:
        return f"cannot tell {arm} from {baseline}: difference {value:+.{digits}f} {unit}, {bounds}"
    word = "better" if value > 0 else "worse"
    return f"{arm} is {word} than {baseline} by {abs(value):.{digits}f} {unit}, {bounds}"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values. If everything below 0.05 is claimed, the chance of one or more false claims
    is at most 0.05, provided that the p-values are right. NaN claims nothing and is not counted.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    count = int(np.isfinite(p_values).sum())
    order, adjusted, largest = np.argsort(p_values)[:count], [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class Contrast:
    """The mean of several students' differences, with two different claims.

    Attributes:
        over_students, p_students: a claim about students like these, from how much they differ. Students of
            one lineage count as one. None if all are of one lineage.
        these_students, p_these: a claim about these students, from their questions and seeds.
    """

    value: float
    students: int
    lineages: int
    over_students: Interval | None
    p_students: float | None
    these_students: Interval
    p_these: float


def contrast(
    differences_NQ: np.ndarray,
    lineages: Sequence[str],
    seeds: Sequence[int],
    pool: SeedVariance,
    metric: str = "accuracy",
    is_same: bool = False,
) -> Contrast:
    """The mean over students of the difference of two arms, on the same questions.

    For the claim about these students their variances add up. They share the same questions, so the variance
    between questions is that of the students' mean.

    Args:
        differences_NQ: every student's difference on each question, means over seeds.
        lineages: the lineage of every student. Checkpoints of one training have the same.
        seeds: the number of seeds of each of the two arms.
        is_same: whether both arms trained on the same choices, for every student.
    """
    bound, least = (1.0, 1.0) if metric == "accuracy" else (math.inf, 0.0)
    students, value = len(differences_NQ), float(differences_NQ.mean())
    # students are trained separately, so the seeds' part of the variance of their mean falls with their
    # number
    many = [n * students for n in seeds] if min(seeds) > 1 else [1]
    sure = uncertainty_of(differences_NQ.mean(axis=0), many, pool, least / math.sqrt(students))
    if is_same and not differences_NQ.any():
        sure = SAME
    over = over_lineages(differences_NQ.mean(axis=1), lineages, shared_by(differences_NQ, lineages))
    return Contrast(
        value,
        students,
        len(set(lineages)),
        None if over is None else over.around(value, bound),
        None if over is None else over.p_value(value),
        sure.around(value, bound),
        sure.p_value(value),
    )


def by_lineage(values: np.ndarray, lineages: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each lineage's students, [G, ...], and the share of students that each has, [G]."""
    names, own = np.unique(list(lineages), return_inverse=True)
    means = np.stack([values[own == g].mean(axis=0) for g in range(len(names))])
    return means, np.bincount(own) / len(own)


def shared_by(differences_NQ: np.ndarray, lineages: Sequence[str]) -> Uncertainty:
    """What all students have in common because they answer the same questions, as a part of the variance of
    their mean: their covariances between lineages. Students differ by less than that would let them.
    """
    means_GQ, share_G = by_lineage(differences_NQ, lineages)
    questions = means_GQ.shape[1]
    if questions < 2:
        return SAME
    whole = float((share_G @ means_GQ).var(ddof=1))
    own = float((share_G**2 * means_GQ.var(axis=1, ddof=1)).sum())
    shared = max(0.0, whole - own) / questions
    return Uncertainty(shared, shared, questions - 1.0)


def over_lineages(
    values_N: np.ndarray, lineages: Sequence[str], shared: Uncertainty = SAME
) -> Uncertainty | None:
    """The uncertainty of the mean of some students' values, as a claim about students like them. Students of
    one lineage count as one. Lineages may have unequally many: the variance is without bias and its degrees
    of freedom are Satterthwaite's, both for students that are equal within a lineage. None with one lineage.

    Args:
        shared: what the lineages have in common, of which their differences say nothing (`shared_by`).

    >>> sure = over_lineages(np.array([1.0, 3.0]), ["a", "b"])
    >>> round(sure.variance, 9), round(sure.freedom, 9)  # as of two numbers: 2 / 2, one degree
    (1.0, 1.0)
    """
    means_G, share_G = by_lineage(values_N, lineages)
    if len(means_G) < 2:
        return None
    mean = float(share_G @ means_G)
    seen_G = 1 - 2 * share_G + (share_G**2).sum()  # of the variance, by a lineage's distance from the mean
    variance = float((share_G**2 * (means_G - mean) ** 2 / seen_G).sum())
    if variance <= EQUAL * mean**2:  # all values are equal: use what one reversed lineage would change
        variance = (2 * mean / len(means_G)) ** 2
    rest_GG = (np.eye(len(means_G)) - share_G) * (share_G / np.sqrt(seen_G))[:, None]
    spread_GG = rest_GG @ rest_GG.T
    freedom = max(1.0, float(np.trace(spread_GG) ** 2 / (spread_GG**2).sum()))
    whole = variance + shared.variance
    alone = Uncertainty(variance, variance, freedom)
    if shared.variance:
        freedom = max(1.0, whole**2 / (variance**2 / freedom + shared.variance**2 / shared.freedom))
    sure = Uncertainty(whole, whole, freedom)
    # more degrees of freedom do not make it surer than its lineages are
    return sure if sure.reach >= alone.reach else Uncertainty(whole, whole, alone.freedom)
