"""Comparisons of arms over the same questions, with an interval and a p-value that are one statement, and a
verdict in plain words; of many students together; and what may be said of many comparisons.

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
SAME = Uncertainty(0.0, 0.0, 1.0)  # of two arms that are one: nothing differs


@dataclass(frozen=True)
class Comparison:
    """Arm minus baseline over the same questions, in share of questions or nats per token.

    Attributes:
        questions, seeds: how many; of the arm that has fewer seeds.
        more_questions: how many more would shrink the interval until it leaves out 0, were the difference
            what it is now; None where it is decided, where there is none, or where seeds are what is lacking.
        uncertainty: what interval and p-value follow from.
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
    """Compare two arms over the same questions in the same order. A difference is called where p is below
    0.05, which is where the interval leaves out 0. Without a question there is neither, and it says so.

    Args:
        arm_SQ, baseline_SQ: values [S seeds, Q questions], or [Q] for one seed. Seeds need not be equally
            many: each arm's are its own.
        pool: what seeds differ by in the whole run; of these two arms alone if not said.
        is_same: the two trained on the same choices. Where their values are the same too there is no
            interval. Of other arms equal values are chance, and have one.

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
    """How many more questions would shrink half of the interval to the difference; None where no number can
    be named, and then whether seeds are what is lacking.

    The part between questions falls with their number. What seeds differ by beyond that stays: where it
    alone is too wide, no number of questions is enough. The fewer questions matter, the more the degrees of
    freedom are those of seeds, so Student's t is taken anew at every number that is tried.
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
    """Holm's adjusted p-values: with all of them below 0.05, the chance of even one false claim is at most
    0.05, as far as the p-values hold what they promise. One that is NaN claims nothing and is not counted.

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
    """The mean of several students' differences, and two claims that are not the same.

    Attributes:
        over_students, p_students: a claim about students as these, from how much they differ; students of one
            lineage count as one. None where all of them are of one lineage.
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
    """The mean over students of what two arms differ by, on the same questions.

    Of these students the variances add up, with what they share by having the same questions: the variance
    between questions is that of the students' mean.

    Args:
        differences_NQ: every student's differences per question, means over seeds.
        lineages: of every student; checkpoints of one training have one name.
        seeds: how many each of the two arms has.
        is_same: the two arms trained on the same choices, of every student.
    """
    bound, least = (1.0, 1.0) if metric == "accuracy" else (math.inf, 0.0)
    students, value = len(differences_NQ), float(differences_NQ.mean())
    # students are trained apart, so the seeds' part of their mean falls with their number
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
    """How sure the mean of some students' values is of others like them: cluster-robust, by lineage. None
    with one lineage.

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
    if variance <= EQUAL * mean**2:  # no spread to go by: as if one lineage were the other way round
        variance = (2 * mean / groups) ** 2
    return Uncertainty(variance, variance, groups - 1.0)
