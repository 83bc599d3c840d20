"""Audit of the proxy: does a cost rank answers as their exact gradient norms do?

SCAS's score estimates the squared gradient norm of an answer's mean loss without a backward pass. The exact
norm, over all parameters and over the vocabulary projection alone (`selection/gradients.py`), is compared
with every cost by Spearman's rank correlation. It is computed over all answers and within questions, with
bootstrap intervals over questions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from selection.drawn_means import interval

RESAMPLES = 1000
NORMS = ("gradient_norm", "projection_gradient_norm")


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of one cost with one norm, with its 95 % interval over questions. NaN if nothing can
    be ranked.

    Attributes:
        scope: "all answers", or "within a question": the mean over questions with at least two different
            answers.
        questions, answers: how many were used.
    """

    cost: str
    norm: str
    scope: str
    correlation: float
    low: float
    high: float
    questions: int
    answers: int


def agreements(table: pd.DataFrame, costs: Sequence[str], seed: int = 0) -> list[Agreement]:
    """Compare every cost with both norms, over all answers and within questions.

    Args:
        table: one row per answer: question_id, the costs, `gradient_norm`, `projection_gradient_norm`.
    """
    codes, _ = pd.factorize(table["question_id"])
    own = [np.flatnonzero(codes == q) for q in range(codes.max() + 1)]
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(own), size=len(own)) for _ in range(RESAMPLES)]
    found = []
    for cost in costs:
        for norm in NORMS:
            x, y = table[cost].to_numpy(float), table[norm].to_numpy(float)
            overall = [
                _spearman(x[rows], y[rows])
                for draw in draws
                for rows in [np.concatenate([own[q] for q in draw])]
            ]
            found.append(
                _agreement(cost, norm, "all answers", _spearman(x, y), overall, len(own), len(table))
            )
            per_question = np.array([_spearman(x[rows], y[rows]) for rows in own])
            ranked = np.isfinite(per_question)
            means = [
                float(np.mean(v[np.isfinite(v)]))
                for draw in draws
                for v in [per_question[draw]]
                if np.isfinite(v).any()
            ]
            middle = float(per_question[ranked].mean()) if ranked.any() else math.nan
            answers = sum(len(rows) for rows, kept in zip(own, ranked, strict=True) if kept)
            found.append(
                _agreement(cost, norm, "within a question", middle, means, int(ranked.sum()), answers)
            )
    return found


def _agreement(
    cost: str, norm: str, scope: str, value: float, resampled: Sequence[float], questions: int, answers: int
) -> Agreement:
    finite = [v for v in resampled if math.isfinite(v)]
    is_known = finite and questions > 1  # one question says nothing of others
    low, high = interval(np.array(finite), questions) if is_known else (math.nan, math.nan)
    return Agreement(cost, norm, scope, value, low, high, questions, answers)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation. Ties get their mean rank. NaN for fewer than two values or constant
    ones.

    >>> _spearman(np.array([1.0, 2.0, 9.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    a, b = stats.rankdata(x), stats.rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))
