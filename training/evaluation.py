"""Honest statistics on evaluation results: intervals for accuracies, paired comparison of arms, a plain
verdict.

Accuracies are means over questions of the share of seeds that got the question right. Questions are the unit
that is resampled: seeds of one arm share questions and are not independent of one another.

Shapes: Q questions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 10_000
# Differences that are multiples of 1/k, k up to this, have an exact p-value: shares of seeds and samples.
FINEST = 240
MOST_CELLS = 10**9  # of numbers made on the way to an exact p-value: seconds
Z95 = 1.96  # standard errors on either side of a 95 % interval


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, in the estimate's own unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Arm minus baseline, in share of questions, over the same questions.

    Attributes:
        more_questions: how many more would shrink the interval until it leaves out 0, were the difference
            what it is now; None where it is decided, where there is none, or where seeds are what is lacking.
    """

    difference: Interval
    p_value: float
    questions: int
    more_questions: int | None
    verdict: str


def accuracy_interval(correct_Q: np.ndarray) -> Interval:
    """Mean with a 95 % interval: Wilson's for right-or-wrong outcomes, bootstrap over questions for shares of
    several seeds.

    >>> i = accuracy_interval(np.array([1.0] * 8 + [0.0] * 2))
    >>> round(i.value, 2), round(i.low, 2), round(i.high, 2)
    (0.8, 0.49, 0.94)
    """
    n = len(correct_Q)
    if n == 0:
        raise ValueError("no questions to take an accuracy over")
    if np.isin(correct_Q, (0.0, 1.0)).all():
        interval = stats.binomtest(int(correct_Q.sum()), n).proportion_ci(0.95, method="wilson")
        return Interval(float(correct_Q.mean()), float(interval.low), float(interval.high))
    return _bootstrap(correct_Q)


def _bootstrap(values_Q: np.ndarray) -> Interval:
    """Percentile bootstrap of the mean, resampling questions, with a fixed seed."""
    rng = np.random.default_rng(0)
    n = len(values_Q)
    means = np.concatenate(
        [rng.choice(values_Q, size=(500, n)).mean(axis=1) for _ in range(RESAMPLES // 500)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values_Q.mean()), float(low), float(high))


def compare(
    arm_SQ: np.ndarray, baseline_SQ: np.ndarray, arm: str, baseline: str, metric: str = "accuracy"
) -> Comparison:
    """Paired comparison of two arms over the same questions in the same order.

    The interval is a bootstrap that resamples questions and, where there are several, training seeds; the
    p-value is two-sided, by sign flips of the questions' mean differences, exact for right and wrong
    answers; it takes the seeds as given and speaks of other questions (`docs/methods.md`, Statistics).
    A difference is called only if the interval leaves out 0 and p is below 0.05.

    Args:
        arm_SQ, baseline_SQ: values [S seeds, Q questions], or [Q] for one seed.

    Raises:
        ValueError: the arrays differ in shape or are empty.
    """
    arm_SQ, baseline_SQ = (
        np.atleast_2d(np.asarray(arm_SQ, float)),
        np.atleast_2d(np.asarray(baseline_SQ, float)),
    )
    if arm_SQ.shape != baseline_SQ.shape or arm_SQ.size == 0:
        raise ValueError(
            f"{arm} and {baseline} were evaluated on {arm_SQ.shape[1]} and {baseline_SQ.shape[1]} questions"
        )
    difference_SQ = arm_SQ - baseline_SQ
    difference_Q = difference_SQ.mean(axis=0)
    interval = _bootstrap_seeds(difference_SQ)
    p_value = _sign_flip_p(difference_Q)
    decided = (interval.low > 0 or interval.high < 0) and p_value < 0.05
    if not difference_SQ.any():
        verdict = f"{arm} and {baseline} came to the same on every one of {len(difference_Q):,} questions"
        return Comparison(interval, p_value, len(difference_Q), None, verdict)
    more, lack_seeds = (None, False) if decided else _needed(difference_SQ, interval)
    verdict = _verdict(interval, decided, arm, baseline, metric)
    if more is not None:
        verdict += f"; about {more:,} more questions would be needed"
    elif lack_seeds:
        verdict += "; more seeds would be needed, more questions would not do"
    return Comparison(interval, p_value, len(difference_Q), more, verdict)


def _bootstrap_seeds(values_SQ: np.ndarray) -> Interval:
    """Percentile bootstrap of the mean, resampling seeds and questions independently, with a fixed seed.

    It is wide where seeds differ by chance alone, and narrow where few of them truly differ; how much is in
    `docs/methods.md`.
    """
    rng = np.random.default_rng(0)
    seeds, questions = values_SQ.shape
    means = []
    for _ in range(RESAMPLES // 500):
        over_seeds = values_SQ[rng.integers(seeds, size=(500, seeds))].mean(axis=1)
        means.append(
            np.take_along_axis(over_seeds, rng.integers(questions, size=(500, questions)), axis=1).mean(
                axis=1
            )
        )
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(values_SQ.mean()), float(low), float(high))


def _sign_flip_p(difference_Q: np.ndarray) -> float:
    """P-value of a mean at least this far from 0 if every question's sign were a coin toss: exact where the
    differences are multiples of one step, as those of right and wrong answers are, else by random flips, and
    where no flip reaches so far by a bound that always holds.
    """
    moving = difference_Q[difference_Q != 0]
    if len(moving) == 0:
        return 1.0
    steps = _in_steps(moving)
    if steps is not None and len(steps) * int(np.abs(steps).sum()) <= MOST_CELLS:
        return _exact_sign_flip_p(steps)
    rng, reached = np.random.default_rng(0), 0
    for _ in range(RESAMPLES // 500):
        signs = rng.choice([-1.0, 1.0], size=(500, len(moving)))
        reached += int((np.abs(signs @ moving) >= abs(moving.sum()) - 1e-12).sum())
    drawn = (1 + reached) / (RESAMPLES + 1)
    # Hoeffding's bound on sums of random signs: holds always, and goes on where draws can tell no more
    bound = 2 * math.exp(-(moving.sum() ** 2) / (2 * float((moving**2).sum())))
    return float(min(drawn, bound))


def _in_steps(values: np.ndarray) -> np.ndarray | None:
    """Values, none of them 0, as whole multiples of 1/k, k at most `FINEST`; None without such a k."""
    for k in range(1, FINEST + 1):
        scaled = values * k
        whole = np.rint(scaled)
        if whole.all() and np.abs(scaled - whole).max() < 1e-6:
            return whole.astype(int)
    return None


def _exact_sign_flip_p(steps: np.ndarray) -> float:
    """The share of all sign patterns whose sum is at least as far from 0 as the values' own sum.

    The distribution of the sum is built value by value: each moves it up or down by its size, half and half.
    Sums of one to all values have the parity of their total, so only every second number can come up.

    >>> _exact_sign_flip_p(np.array([1, 1, 1, 1, 1]))  # all five up, or all five down: 2 of 32
    0.0625
    >>> _exact_sign_flip_p(np.array([2, -1]))  # 3, 1, -1, -3: all at least as far as 1
    1.0
    """
    sizes = np.abs(steps)
    total = int(sizes.sum())
    chances = np.zeros(total + 1)  # of how much of the total is flipped to minus
    chances[0] = 1.0
    for size in sizes.tolist():
        moved = np.zeros_like(chances)
        moved[size:] = chances[: total + 1 - size]
        chances = (chances + moved) / 2
    sums = total - 2 * np.arange(total + 1)
    return float(min(1.0, chances[np.abs(sums) >= abs(int(steps.sum()))].sum()))


def _needed(difference_SQ: np.ndarray, interval: Interval) -> tuple[int | None, bool]:
    """How many more questions would shrink the interval to half-widths below the difference; None where no
    number can be named, and then whether seeds are what is lacking.

    Of the interval's variance the part between questions falls with their number. What is between seeds
    beyond that stays: where it alone is too wide, no number of questions is enough.
    """
    seeds, questions = difference_SQ.shape
    whole = ((interval.high - interval.low) / 2 / Z95) ** 2
    means_S, means_Q = difference_SQ.mean(axis=1), difference_SQ.mean(axis=0)
    rest_SQ = difference_SQ - means_S[:, None] - means_Q + difference_SQ.mean()
    of_seeds = max(0.0, float(means_S.var() - (rest_SQ**2).mean() / questions)) / seeds
    wanted = (interval.value / Z95) ** 2
    if wanted == 0 or whole == 0:
        return None, False
    if wanted <= of_seeds:
        return None, True
    more = math.ceil(questions * max(0.0, whole - of_seeds) / (wanted - of_seeds)) - questions
    return (more if more > 0 else None), False


def _verdict(interval: Interval, decided: bool, arm: str, baseline: str, metric: str) -> str:
    scale, unit, digits = (100.0, "points", 1) if metric == "accuracy" else (1.0, "nats per answer token", 4)
    value, low, high = (scale * x for x in (interval.value, interval.low, interval.high))
    bounds = f"95 % interval {low:+.{digits}f} to {high:+.{digits}f}"
    if decided and value > 0:
        return f"{arm} is better than {baseline} by {value:.{digits}f} {unit}, {bounds}"
    if decided:
        return f"{arm} is worse than {baseline} by {-value:.{digits}f} {unit}, {bounds}"
    return f"cannot tell {arm} from {baseline}: difference {value:+.{digits}f} {unit}, {bounds}"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: with all of them below 0.05, the chance of even one false claim is at most
    0.05, as far as the p-values hold what they promise.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order, adjusted, largest = np.argsort(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
