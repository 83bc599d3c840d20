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

NORMAL = float(stats.norm.ppf(1 - LEVEL / 2))  # Student's t is never below
STEP, MOST = 1.3, 10**8  # how numbers of questions are tried, and up to how many times those that there are
MODELS_ALONE = "compares these trained models, not the ways of choosing"  # what one seed each claims
SAME = Uncertainty(0.0, 0.0, 1.0)  # for two identical arms: nothing differs


@dataclass(frozen=True)
class Comparison:
    """Arm minus baseline over the same questions, in share of questions or nats per token.

    Attributes:
        questions, seeds: how many there are; seeds of the arm that has fewer.
        more_questions: how many more would shrink the interval until it leaves out 0, if the difference
            stayed the same. None if it already does, if there is no difference, or if only more seeds would
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

    Raises:
        ValueError: the questions differ in number, an arm has no seed, or a value is NaN.
    """
    arm_SQ, baseline_SQ = (np.atleast_2d(np.asarray(x, float)) for x in (arm_SQ, baseline_SQ))
    if arm_SQ.shape[1] != baseline_SQ.shape[1] or not len(arm_SQ) or not len(baseline_SQ):
        raise ValueError(
            f"{arm} and {baseline} were evaluated on {arm_SQ.shape[1]} and {baseline_SQ.shape[1]} questions"
        )
    seeds = [len(arm_SQ), len(baseline_SQ)]
    if not arm_SQ.shape[1]:
        return _without_questions(arm, baseline, min(seeds))
    _refuse_unknown({arm: arm_SQ, baseline: baseline_SQ})
    difference_Q = arm_SQ.mean(axis=0) - baseline_SQ.mean(axis=0)
    bound, least = (1.0, 1.0) if metric == "accuracy" else (math.inf, 0.0)
    pool = pool_seeds([arm_SQ, baseline_SQ]) if pool is None else pool
    sure = uncertainty_of(difference_Q, seeds, pool, least)
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
        verdict += f"; about {more:,} more questions would be needed"
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
    """How many more questions would shrink the interval until its half-width is below the difference. None if
    there is no such number. The second value says whether more seeds are needed instead.

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
    while sure.with_questions(questions, enough).reach > abs(mean):
        too_few, enough = enough, math.ceil(enough * STEP)
        if enough > MOST * questions:
            return None, stays > 0
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        is_enough = sure.with_questions(questions, middle).reach <= abs(mean)
        too_few, enough = (too_few, middle) if is_enough else (middle, enough)
    return enough - questions, False


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
    over = over_lineages(differences_NQ.mean(axis=1), lineages)
    return Contrast(
        value,
        students,
        len(set(lineages)),
        None if over is None else over.around(value, bound),
        None if over is None else over.p_value(value),
        sure.around(value, bound),
        sure.p_value(value),
    )


def over_lineages(values_N: np.ndarray, lineages: Sequence[str]) -> Uncertainty | None:
    """The uncertainty of the mean of some students' values, as a claim about students like them:
    cluster-robust, by lineage. None with one lineage.

    >>> sure = over_lineages(np.array([1.0, 3.0]), ["a", "b"])
    >>> sure.variance, sure.freedom  # as of two numbers: 2 / 2, one degree
    (1.0, 1.0)
    """
    rest_N, named = values_N - values_N.mean(), np.array(lineages)
    sums = [float(rest_N[named == name].sum()) for name in sorted(set(lineages))]
    groups = len(sums)
    if groups < 2:
        return None
    variance = groups / (groups - 1) * sum(x**2 for x in sums) / len(values_N) ** 2
    mean = float(values_N.mean())
    if variance <= EQUAL * mean**2:  # all values are equal: use what one reversed lineage would change
        variance = (2 * mean / groups) ** 2
    return Uncertainty(variance, variance, groups - 1.0)
