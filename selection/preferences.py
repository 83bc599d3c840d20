"""What a student prefers among texts, and how sure that is (ARTE, arXiv 2406.19227).

A draft is a question with one worked answer to it, a rationale. A student's score of a rationale is a
number, most often the share of some items that the student gets right with the draft before it. Scores become
pairs of a chosen and a rejected text. Nothing here needs a model.

Shapes: N respondents, M items, R rationales.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

Best = Literal["random", "shortest"]
Pairing = Literal["random", "rank"]
ABILITY_SD, LOG_DISCRIMINATION_SD, DIFFICULTY_SD = 1.0, 0.5, 1.0  # of the priors, all of mean 0
LEVEL = 0.05
SPLITS = 50  # how many times items are halved for a reliability
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class ItemResponse:
    """A two-parameter logistic model: p(right) = sigmoid(a (theta - b)).

    Attributes:
        ability: theta of each respondent [N].
        discrimination, difficulty: a and b of each item [M]. NaN for an item that all respondents answer
            alike, because that tells nothing of it.
    """

    ability: np.ndarray
    discrimination: np.ndarray
    difficulty: np.ndarray


def fit_items(
    right_NM: np.ndarray, ability_N: np.ndarray | None = None, uses_priors: bool = True
) -> ItemResponse:
    """Fit the model by joint maximum a posteriori, with theta ~ N(0, 1), ln a ~ N(0, 0.5^2) and b ~ N(0, 1).

    Args:
        right_NM: 1 where a respondent is right, 0 where it is wrong. Shares between are allowed.
        ability_N: theta, if it is known. It is not fitted then.
        uses_priors: without them, maximum likelihood. Only for known abilities.

    >>> ability = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    >>> shares = expit(1.5 * (ability - 0.5)).reshape(-1, 1)
    >>> fitted = fit_items(shares, ability, uses_priors=False)
    >>> round(float(fitted.discrimination[0]), 4), round(float(fitted.difficulty[0]), 4)
    (1.5, 0.5)
    """
    if ability_N is None and not uses_priors:
        raise ValueError("without priors abilities must be known")
    right = np.asarray(right_NM, dtype=float)
    tells = (right.min(axis=0) < 1) & (right.max(axis=0) > 0) & (np.ptp(right, axis=0) > 0)
    told = right[:, tells]
    respondents, items = told.shape
    free = 0 if ability_N is not None else respondents
    weight = 1.0 if uses_priors else 0.0

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        theta = ability_N if ability_N is not None else x[:free]
        return np.asarray(theta), x[free : free + items], x[free + items :]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        theta, log_a, b = unpack(x)
        a, away = np.exp(log_a), theta[:, None] - b
        logit = a * away
        total = float(np.sum(np.logaddexp(0, logit) - told * logit))
        total += (
            weight
            * float(np.sum((log_a / LOG_DISCRIMINATION_SD) ** 2) + np.sum((b / DIFFICULTY_SD) ** 2))
            / 2
        )
        error = expit(logit) - told
        slopes = [
            np.sum(error * away * a, axis=0) + weight * log_a / LOG_DISCRIMINATION_SD**2,
            -np.sum(error * a, axis=0) + weight * b / DIFFICULTY_SD**2,
        ]
        if free:
            total += float(np.sum((theta / ABILITY_SD) ** 2)) / 2
            slopes.insert(0, np.sum(error * a, axis=1) + theta / ABILITY_SD**2)
        return total, np.concatenate(slopes)

    start = np.zeros(free + 2 * items)
    if free:
        share = np.clip(told.mean(axis=1), 0.02, 0.98)
        start[:free] = np.log(share / (1 - share))
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9}
    )
    theta, log_a, b = unpack(found.x)
    discrimination, difficulty = (np.full(len(tells), np.nan) for _ in range(2))
    discrimination[tells], difficulty[tells] = np.exp(log_a), b
    return ItemResponse(theta, discrimination, difficulty)


def most_telling(right_NM: np.ndarray, count: int) -> list[int]:
    """The items with the largest discrimination, the largest first. Items that all respondents answer alike
    are left out, so there may be fewer.
    """
    a = fit_items(right_NM).discrimination
    known = np.flatnonzero(~np.isnan(a))
    return [int(i) for i in known[np.argsort(-a[known], kind="stable")][:count]]


def reliability(values_RM: np.ndarray, questions: Sequence[str] | None = None, seed: int = 0) -> float:
    """How well a score repeats: the rank correlation of scores on two halves of the items, stepped up to all
    items by 2r / (1 + r), the median over random halvings. NaN if it cannot be computed.

    Args:
        values_RM: each rationale's value on each item. A rationale's score is their mean.
        questions: each rationale's question, to look at differences within questions alone.
    """
    values = np.asarray(values_RM, dtype=float)
    if questions is not None:
        names, number = np.unique(list(questions), return_inverse=True)
        sums = np.zeros((len(names), values.shape[1]))
        np.add.at(sums, number, values)
        values = values - (sums / np.bincount(number)[:, None])[number]
    rationales, items = values.shape
    if rationales < 3 or items < 2:
        return math.nan
    rng, found = np.random.default_rng(seed), []
    for _ in range(SPLITS):
        order = rng.permutation(items)
        halves = values[:, order[: items // 2]].mean(axis=1), values[:, order[items // 2 :]].mean(axis=1)
        ranks = [rankdata(half) for half in halves]
        if min(rank.std() for rank in ranks) == 0:
            continue
        found.append(stepped_up(float(np.corrcoef(ranks)[0, 1])))
    return float(np.median(found)) if found else math.nan


def stepped_up(half: float) -> float:
    """The reliability of a whole, from the correlation of its halves (Spearman-Brown).

    >>> [round(stepped_up(r), 2) for r in (0.1, 0.3, 0.5, -0.2)]  # below 0 there is nothing that repeats
    [0.18, 0.46, 0.67, 0.0]
    """
    return 2 * half / (1 + half) if half > 0 else 0.0


def is_chance(whole: float, freedom: int) -> bool:
    """Whether a reliability may be that of noise: whether the correlation of halves that it comes from is not
    above 0 by Student's t, one-sided at 5 %.

    >>> is_chance(0.4, 10), is_chance(0.4, 100)
    (True, False)
    """
    half = whole / (2 - whole) if whole < 2 else 1.0
    if freedom < 1 or half >= 1:
        return freedom < 1
    return bool(stats.t.sf(half * math.sqrt(freedom / (1 - half**2)), freedom) > LEVEL)


@dataclass(frozen=True)
class Pair:
    """Two texts by their names, and their scores. The chosen one's is higher."""

    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float


def rationale_pairs(
    drafts: pd.DataFrame, seed: int, best: Best = "random", apart: float = 0.0
) -> tuple[dict[str, Pair], list[str]]:
    """For each question, the rationale with the highest score and the one with the lowest.

    Args:
        drafts: columns question, rationale (names), score, tokens, and error (the score's standard error).
        seed: of the choice among several that are best, or worst.
        best: which of several is taken: one at random, or the shortest.
        apart: how many standard errors of their difference the two must be apart.

    Returns:
        Pairs by question, and the questions without a preference.
    """
    rng, found, without = np.random.default_rng(seed), dict[str, Pair](), list[str]()
    for question, own in sorted(drafts.groupby("question"), key=lambda item: str(item[0])):
        scores = own["score"].to_numpy(float)
        top, bottom = scores.max(), scores.min()
        good, bad = (_one_of(own[scores == value], rng, best) for value in (top, bottom))
        error = math.hypot(float(good["error"]), float(bad["error"]))
        if not top > bottom or top - bottom < apart * error:
            without.append(str(question))
            continue
        found[str(question)] = Pair(str(good["rationale"]), str(bad["rationale"]), float(top), float(bottom))
    return found, without


def _one_of(drafts: pd.DataFrame, rng: np.random.Generator, best: Best) -> pd.Series:
    """One of several drafts with the same score."""
    ordered = drafts.sort_values("rationale")
    if best == "shortest":
        return ordered.sort_values("tokens", kind="stable").iloc[0]
    return ordered.iloc[int(rng.integers(len(ordered)))]


def question_pairs(
    scores: Mapping[str, float], most: int, seed: int, pairing: Pairing = "random"
) -> list[Pair]:
    """Pairs of questions of one task: from the best quarter and from the worst one. No question is used
    twice.

    Args:
        scores: of each question, by name: the mean score of its rationales.
        most: the most pairs.
        pairing: in a random order, or the best with the worst, the second best with the second worst.

    >>> pairs = question_pairs({f"q{k}": k / 60 for k in range(60)}, 50, 0)
    >>> len(pairs), min(p.chosen_score for p in pairs) > max(p.rejected_score for p in pairs)
    (15, True)
    """
    rng = np.random.default_rng(seed)
    names = sorted(scores)
    drawn = [names[i] for i in rng.permutation(len(names))]  # ties are broken by the draw
    ordered = sorted(drawn, key=lambda name: -scores[name])
    quarter = len(ordered) // 4
    top, bottom = ordered[:quarter], ordered[len(ordered) - quarter :][::-1]
    if pairing == "random":
        top, bottom = ([own[i] for i in rng.permutation(quarter)] for own in (top, bottom))
    pairs = [
        Pair(t, b, scores[t], scores[b]) for t, b in zip(top, bottom, strict=True) if scores[t] > scores[b]
    ]
    return pairs[:most]


def helpful_pairs(influence: Mapping[str, float]) -> list[Pair]:
    """Every helpful text with every unhelpful one (Montessori-Instruct, arXiv 2410.14208). A text is helpful
    if its influence is above 0.

    >>> [len(helpful_pairs({str(k): 1.0 if k < p else -1.0 for k in range(4)})) for p in range(5)]
    [0, 3, 4, 3, 0]
    """
    good = [name for name, value in sorted(influence.items()) if value > 0]
    bad = [name for name, value in sorted(influence.items()) if value <= 0]
    return [Pair(g, b, influence[g], influence[b]) for g in good for b in bad]


def shuffled_within(values: Mapping[K, V], groups: Mapping[K, str], seed: int) -> dict[K, V]:
    """The same values, permuted within each group. Whatever depends on them afterwards is no preference."""
    rng, members = np.random.default_rng(seed), dict[str, list[K]]()
    for name in sorted(values, key=str):
        members.setdefault(groups[name], []).append(name)
    found: dict[K, V] = {}
    for _, own in sorted(members.items()):
        found |= {own[i]: values[own[k]] for i, k in enumerate(rng.permutation(len(own)))}
    return found


def standard_error(right: Sequence[float]) -> float:
    """The standard error of the mean of some values. 0 for a single one.

    >>> round(standard_error([1, 0, 1, 0]), 4)
    0.2887
    """
    values = np.asarray(right, dtype=float)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
