"""The uncertainty of a mean over questions and training seeds. Both contribute to it.

An arm's values are Y [S, Q]. The mean over seeds of each question already contains the noise of single
questions under single seeds. So the variance of a mean difference is the variance between questions, plus the
variance of training seeds beyond that noise:

    V = A + 2 (s2 - noise) / S,  A = variance over questions of the mean differences / Q,  at least A / 2

The seeds' part is pooled over all paths of a run, or of a study's part, because two seeds of one arm say next
to nothing about it. It may be negative and is not cut at 0; intervals would cover too often otherwise.
Degrees of freedom are Satterthwaite's. An interval and its p-value always agree. `docs/methods.md`,
Statistics, has more, and `benchmarks/intervals.py` measures how often such intervals hold the truth.

Shapes: S training seeds, Q questions.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from scipy import stats

LEVEL = 0.05  # a difference is called where its p-value is below; intervals are of 95 %
FEW_DIFFER = 10
EQUAL = 1e-12  # a share of the mean square: differences that vary by less count as equal

TELLING = 8  # questions on which seeds disagree: two trainings agree on all of them with a chance of 4 ** -8


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, in its own unit. Unknown ends are NaN."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether it has ends."""
        return not (math.isnan(self.low) or math.isnan(self.high))


NOTHING = Interval(math.nan, math.nan, math.nan)  # if no question could be judged


@dataclass(frozen=True)
class SeedVariance:
    """The variance of training seeds, pooled over paths.

    Attributes:
        s2: variance of one seed's mean value. It includes the noise of questions.
        noise: the part of s2 that is noise, which the variance between questions already contains.
        freedom: degrees of freedom: different paths x (seeds - 1). 0 if no path has two seeds.
    """

    s2: float = 0.0
    noise: float = 0.0
    freedom: int = 0


ONE_SEED = SeedVariance()


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of a mean.

    Attributes:
        questions: the part of the variance that falls with the number of questions.
        variance: the whole variance. 0 if nothing differs.
        freedom: degrees of freedom of Student's t.
        seeds, seeds_freedom: what training seeds differ by, noise included, and its degrees of freedom; 0
            where nothing is known of it.
    """

    questions: float
    variance: float
    freedom: float
    seeds: float = 0.0
    seeds_freedom: int = 0

    def with_questions(self, now: int, then: int) -> "Uncertainty":
        """How sure the mean would be with another number of questions.

        What lies between questions falls with their number, and so does the noise of single ones. What seeds
        differ by beyond that noise stays. Where its estimate is negative none of it stays.
        """
        stays, falls = max(0.0, self.variance - self.questions), now / then
        between = self.questions * falls
        variance = stays + (self.variance - stays) * falls
        seeds = stays + (self.seeds - stays) * falls if self.seeds_freedom else 0.0
        freedom = _freedom(variance, between, then, seeds, self.seeds_freedom)
        return Uncertainty(between, variance, freedom, seeds, self.seeds_freedom)

    @property
    def reach(self) -> float:
        """Half of a 95 % interval's width."""
        return float(stats.t.ppf(1 - LEVEL / 2, self.freedom)) * math.sqrt(self.variance)

    def around(self, mean: float, bound: float = math.inf) -> Interval:
        """The interval around a mean, cut at plus and minus `bound`. Its ends are NaN if nothing differs, or
        if they are not finite.
        """
        reach = self.reach if self.variance else math.nan
        if not math.isfinite(min(reach, bound)):
            return Interval(mean, math.nan, math.nan)
        return Interval(mean, max(-bound, mean - reach), min(bound, mean + reach))

    def p_value(self, mean: float) -> float:
        """The two-sided p-value of a mean at least this far from 0."""
        if not self.variance:
            return 1.0
        return float(2 * stats.t.sf(abs(mean) / math.sqrt(self.variance), self.freedom))


def linearised(values_SQ: np.ndarray, weights_Q: np.ndarray) -> np.ndarray:
    """Transform values so that their plain mean over questions is the weighted mean, and their spread is the
    spread of that mean. A loss per token is a ratio of two sums over questions.

    >>> linearised(np.array([[1.0, 4.0]]), np.array([3.0, 1.0])).mean()
    np.float64(1.75)
    """
    if not weights_Q.mean() > 0:  # NaN too
        raise ValueError("a loss over no tokens cannot be taken")
    share_Q = weights_Q / weights_Q.mean()
    mean_S1 = (values_SQ * share_Q).mean(axis=-1, keepdims=True)
    return mean_S1 + share_Q * (values_SQ - mean_S1)


def by_cluster(
    values_SQ: np.ndarray, clusters_Q: np.ndarray, weights_Q: np.ndarray | None = None
) -> np.ndarray:
    """Values of clusters of questions, [S, clusters], in the order of their names. Their plain mean is the
    mean over questions. Their spread is the spread of that mean if clusters are independent and their
    questions are not: a ratio of two sums over clusters, as a loss is one over questions.

    Args:
        weights_Q: of questions, none of them 0. By default all count alike.

    >>> by_cluster(np.array([[1.0, 0.0, 1.0, 1.0]]), np.array(["a", "a", "b", "b"]))
    array([[0.5, 1. ]])
    """
    names, place_Q = np.unique(np.asarray(clusters_Q, dtype=str), return_inverse=True)
    weights_Q = np.ones(len(place_Q)) if weights_Q is None else weights_Q
    weights_G = np.bincount(place_Q, weights_Q, len(names))
    sums_SG = np.stack([np.bincount(place_Q, own * weights_Q, len(names)) for own in values_SQ])
    return linearised(sums_SG / weights_G, weights_G)


def pool_seeds(paths: Iterable[np.ndarray]) -> SeedVariance:
    """The variance of seeds: a mean over paths, each weighted by its degrees of freedom. A training that
    stands under two names counts once.

    Args:
        paths: tables [S, Q]. Tables of one seed or one question are left out.

    >>> pool = pool_seeds([np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])])
    >>> round(18 * pool.s2, 9), round(18 * pool.noise, 9), pool.freedom
    (1.0, 1.0, 1)
    """
    known = _once([one for one in paths if one.shape[0] > 1 and one.shape[1] > 1])
    freedom = sum(len(one) - 1 for one in known)
    if not freedom:
        return ONE_SEED
    each = [(len(one) - 1, *_of_seeds(one)) for one in known]
    s2 = sum(own * s2 for own, s2, _ in each) / freedom
    return SeedVariance(float(s2), float(sum(own * noise for own, _, noise in each) / freedom), freedom)


def _once(paths: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Paths without those that are trainings of another one: the same choices under the same seeds give the
    same value everywhere. Where seeds disagree on few questions that may be chance, and both are kept.
    """
    found: dict[object, np.ndarray] = {}
    for place, one in enumerate(paths):
        disagreed = int((one != one[0]).any(axis=0).sum())
        same = one.shape, sha256(one.tobytes()).digest()
        found.setdefault(place if disagreed < TELLING else same, one)
    return list(found.values())


def _of_seeds(values_SQ: np.ndarray) -> tuple[float, float]:
    """The variance over seeds of one path's means over questions, and the part of it that is noise."""
    seeds, questions = values_SQ.shape
    means_S = values_SQ.mean(axis=1)
    rest_SQ = values_SQ - means_S[:, None] - values_SQ.mean(axis=0) + values_SQ.mean()
    return float(means_S.var(ddof=1)), float((rest_SQ**2).sum() / ((seeds - 1) * (questions - 1)) / questions)


def louder(values_SQ: np.ndarray, pool: SeedVariance, paths: int) -> float | None:
    """How many times farther apart the seeds of one path are than those of the others. Its intervals are too
    narrow then. None if the difference may be chance (F test, corrected for the number of paths).
    """
    own = values_SQ.shape[0] - 1
    rest = pool.freedom - own
    if own < 1 or rest < 1:
        return None
    s2, _ = _of_seeds(values_SQ)
    others = (pool.s2 * pool.freedom - s2 * own) / rest
    if others <= EQUAL * s2:
        return math.inf if s2 > 0 else None
    chance = float(stats.f.sf(s2 / others, own, rest)) * max(1, paths)
    return math.sqrt(s2 / others) if chance < LEVEL else None


def uncertainty_of(
    mean_Q: np.ndarray,
    seeds: Sequence[int],
    pool: SeedVariance,
    least: float = 0.0,
    of_trainings: bool = False,
) -> Uncertainty:
    """The uncertainty of a mean over questions, whose values are means over seeds.

    Args:
        mean_Q: for each question an arm's mean over its seeds, or the difference of two such means.
        seeds: the number of seeds of the arm, or of each of the two. With one seed, trained models are
            compared and not ways of training.
        least: the smallest possible difference of one question, used if no question differs. 0 if values have
            no such unit.
        of_trainings: whether one seed is a training like the pool's, whose variance then counts. Otherwise
            it may be a student before training.
    """
    questions = len(mean_Q)
    if questions < 2:
        return Uncertainty(math.inf, math.inf, 1.0)
    mean = float(mean_Q.mean())
    between = float(mean_Q.var(ddof=1)) / questions
    if between <= EQUAL * mean**2:  # all values are equal: use what one reversed question would change
        between = ((2 * mean if abs(mean) > EQUAL else least) / questions) ** 2
    elif np.count_nonzero(mean_Q) < FEW_DIFFER and not (mean_Q.min() < 0 < mean_Q.max()):
        # few that all differ in one way do not show their spread: as if two more differed
        between += 2 * least**2 / questions**2
    if (min(seeds) < 2 and not of_trainings) or not pool.freedom:
        return Uncertainty(between, between, questions - 1.0)
    share = sum(1 / n for n in seeds)
    variance = max(between + share * (pool.s2 - pool.noise), between / 2)
    freedom = _freedom(variance, between, questions, share * pool.s2, pool.freedom)
    return Uncertainty(between, variance, freedom, share * pool.s2, pool.freedom)


def _freedom(variance: float, between: float, questions: int, seeds: float, seeds_freedom: int) -> float:
    """Satterthwaite's degrees of freedom."""
    spread = between**2 / (questions - 1) + (seeds**2 / seeds_freedom if seeds_freedom else 0.0)
    return max(1.0, variance**2 / spread) if spread else float(questions - 1)


def arm_interval(values_SQ: np.ndarray, pool: SeedVariance, metric: str = "accuracy") -> Interval:
    """The mean of one arm with its 95 % interval. For accuracies it is Wilson's interval for the number of
    questions that gives the same uncertainty, so it stays within 0 and 1. For one seed of right and wrong
    answers it is exactly Wilson's. `NOTHING` without questions.

    >>> i = arm_interval(np.array([[1.0] * 8 + [0.0] * 2]), ONE_SEED)
    >>> round(i.value, 2), round(i.low, 2), round(i.high, 2)
    (0.8, 0.49, 0.94)
    """
    mean_Q = values_SQ.mean(axis=0)
    if not len(mean_Q):
        return NOTHING
    mean, sure = float(mean_Q.mean()), uncertainty_of(mean_Q, [len(values_SQ)], pool)
    if metric != "accuracy":
        return sure.around(mean)
    within = mean * (1 - mean)
    is_plain = len(values_SQ) == 1 and bool(np.isin(mean_Q, (0.0, 1.0)).all())
    if is_plain or within <= 0 or not math.isfinite(sure.variance) or not sure.variance:
        return _wilson(mean, len(mean_Q), float(stats.norm.ppf(1 - LEVEL / 2)))
    return _wilson(mean, within / sure.variance, float(stats.t.ppf(1 - LEVEL / 2, sure.freedom)))


def accuracy_interval(correct_Q: np.ndarray) -> Interval:
    """The share of right questions of one model, with a 95 % interval."""
    return arm_interval(np.atleast_2d(correct_Q), ONE_SEED)


def _wilson(share: float, questions: float, quantile: float) -> Interval:
    """Wilson's score interval."""
    pull = quantile**2 / questions
    centre = (share + pull / 2) / (1 + pull)
    reach = quantile * math.sqrt(share * (1 - share) / questions + pull / (4 * questions)) / (1 + pull)
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Interval(share, 0.0 if share == 0 else low, 1.0 if share == 1 else high)
