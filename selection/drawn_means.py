"""What chance does to the means of teachers: questions are drawn again, with replacement. Intervals of means,
and whether means are told apart.

Shapes: T teachers, Q questions, B draws, P pairs of teachers.
"""

import math

import numpy as np
from scipy import stats

LEVEL = 0.05
POWER = 0.8  # of the number of questions that would tell two teachers apart
DRAWS_AT_ONCE = 200
FEW_TO_DRAW = 20  # with fewer, draws are too narrow for all pairs of teachers together
FEW_QUESTIONS = 10  # with fewer, percentiles of drawn means are too narrow, and Student's t is taken
EQUAL = 1e-6  # costs of one question that differ by less, of the largest, differ by rounding alone


class Draws:
    """Means of teachers over questions that are drawn again. The draws are the same for every cost.

    Args:
        draws: B, how many.
        size: how many questions a draw has; by default as many as there are.
    """

    def __init__(self, questions: int, draws: int, seed: int, size: int | None = None) -> None:
        self.questions, self.draws, self.seed, self.size = questions, draws, seed, size or questions

    def means(self, *values_TQ: np.ndarray) -> list[np.ndarray]:
        """The means of several tables in the same draws: [B, T] of each."""
        rng, stacked = np.random.default_rng(self.seed), np.concatenate(values_TQ)
        parts = []
        for start in range(0, self.draws, DRAWS_AT_ONCE):
            many = min(DRAWS_AT_ONCE, self.draws - start)
            drawn = rng.integers(self.questions, size=(many, self.size))
            drawn += np.arange(many)[:, None] * self.questions
            weights_BQ = np.bincount(drawn.ravel(), minlength=many * self.questions).reshape(many, -1)
            parts.append(weights_BQ @ stacked.T / self.size)
        return np.split(np.concatenate(parts), len(values_TQ), axis=1)


def interval(draws_B: np.ndarray, questions: int) -> tuple[float, float]:
    """A 95 % interval from means of drawn questions: percentiles that are moved out as far as Student's t is
    wider than what percentiles of so few questions give (the expanded percentile interval, arXiv 1411.5279).
    NaN with a single question.
    """
    if questions < 2:
        return math.nan, math.nan
    wide = math.sqrt(questions / (questions - 1)) * stats.t.ppf(1 - LEVEL / 2, questions - 1)
    share = float(stats.norm.cdf(-wide))
    low, high = np.quantile(draws_B, [share, 1 - share])
    return float(low), float(high)


def bounds(values_Q: np.ndarray, draws_B: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of the mean over questions: `interval`, or Student's t with few questions, because a
    drawn mean does not leave the range of what was seen.

    Args:
        draws_B: the same mean in every draw.
    """
    count = len(values_Q)
    if count >= FEW_QUESTIONS:
        return interval(draws_B, count)
    if count < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf(1 - LEVEL / 2, count - 1) * values_Q.std(ddof=1) / math.sqrt(count))
    return float(values_Q.mean()) - half, float(values_Q.mean()) + half


def told_from(values_TQ: np.ndarray, means_BT: np.ndarray, first: int) -> np.ndarray:
    """Whether each teacher is told from the first one, [T], at 95 % for all pairs of teachers together: the
    first one was picked because it came out first.
    """
    return beyond(values_TQ, first, furthest(values_TQ, means_BT))


def beyond(values_TQ: np.ndarray, first: int, most: float) -> np.ndarray:
    """Whether each teacher is more than so many standard errors behind the first one, [T]. None is if that is
    NaN.
    """
    means_T = values_TQ.mean(axis=1)
    if math.isnan(most):
        return np.zeros(len(means_T), dtype=bool)
    return np.asarray(means_T - means_T[first] > most * _errors(values_TQ)[first])


def furthest(values_TQ: np.ndarray, means_BT: np.ndarray) -> float:
    """How many standard errors apart chance takes any pair of teachers in 95 of 100 cases: the largest
    studentised difference of a draw (the bootstrap's max-T), widened as Student's t is. Draws of few
    questions do not show it, so there Student's t counts, corrected for the number of pairs. NaN with a
    single question, 0 if all teachers are equal.
    """
    count, means_T = values_TQ.shape[1], values_TQ.mean(axis=1)
    if count < 2:
        return math.nan
    one, other = np.triu_indices(len(means_T), 1)
    error_P = _errors(values_TQ)[one, other]
    moved_BP = (means_BT[:, one] - means_BT[:, other]) - (means_T[one] - means_T[other])
    known = error_P > rounding(means_T)
    if not known.any():
        return 0.0
    largest_B = (np.abs(moved_BP[:, known]) / error_P[known]).max(axis=1)
    most = float(np.quantile(largest_B, 1 - LEVEL))
    most *= float(stats.t.ppf(1 - LEVEL / 2, count - 1) / stats.norm.ppf(1 - LEVEL / 2))
    if count < FEW_TO_DRAW:
        most = max(most, float(stats.t.ppf(1 - LEVEL / 2 / known.sum(), count - 1)))
    return most


def _errors(values_TQ: np.ndarray) -> np.ndarray:
    """The standard error of each pair's difference, [T, T]."""
    covariance = np.atleast_2d(np.cov(values_TQ))
    variance = np.diag(covariance)
    apart_TT = np.maximum(variance[:, None] + variance - 2 * covariance, 0)
    return np.asarray(np.sqrt(apart_TT / values_TQ.shape[1]))


def rounding(means: np.ndarray) -> float:
    """Means that differ by less differ by rounding alone."""
    return 1e-3 * EQUAL * float(np.abs(means).max())


def questions_to_tell(differences_Q: np.ndarray, most: float | None = None) -> float:
    """How many questions would tell a difference from 0 in 80 % of cases by Student's t, if it is what was
    seen. Infinite if nothing was seen; NaN with a single question.

    Args:
        most: how many standard errors a difference has to be from 0, by these questions (`furthest`). By
            default as many as Student's t asks of a single pair.

    >>> questions_to_tell(np.array([1.0, 0.0, 1.0, 2.0]))  # mean 1, variance 2/3; by the normal law 5.2
    8.0
    """
    if len(differences_Q) < 2:
        return math.nan
    level = LEVEL if most is None else 2 * float(stats.t.sf(most, len(differences_Q) - 1))
    mean, deviation = float(differences_Q.mean()), float(differences_Q.std(ddof=1))
    if mean == 0 or not level:
        return math.inf
    ratio = min((deviation / mean) ** 2, 1e12)
    needed = max(2, math.ceil((stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER)) ** 2 * ratio))
    while (
        wanted := _wanted(needed, ratio, level)
    ) > needed:  # the quantiles depend on the number that is sought
        needed += max(1, (wanted - needed) // 4)
    return float(needed)


def _wanted(count: int, ratio: float, level: float) -> int:
    """How many questions are needed, with the quantiles of `count`."""
    times = float(stats.t.ppf(1 - level / 2, count - 1) + stats.t.ppf(POWER, count - 1))
    return math.ceil(times**2 * ratio)
