"""Audit of the proxy: does a cost rank answers as their exact gradient norms do?

SCAS's score stands for the squared gradient norm of an answer's mean loss without a backward pass. Here that
norm is computed by a backward pass, over all parameters and, in closed form, over the vocabulary projection
alone; both are set against every cost by Spearman's rank correlation, over all answers and within questions,
with bootstrap intervals over questions.

Shapes: T answer tokens, D width, V vocabulary, N answers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cluster.models.proof import prove
from cluster.models.rendering import Rendered
from cluster.models.vocabulary import decoder_of

RESAMPLES = 1000
NORMS = ("gradient_norm", "projection_gradient_norm")


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of one cost with one norm, with its 95 % interval over questions; NaN where nothing
    can be ranked.

    Attributes:
        scope: "all answers", or "within a question": the mean over questions with at least two different
            answers.
        questions, answers: how many entered.
    """

    cost: str
    norm: str
    scope: str
    correlation: float
    low: float
    high: float
    questions: int
    answers: int


class Gradients:
    """Exact gradient norms of answers' mean losses under one student, one answer at a time."""

    def __init__(self, model: Any, special_ids: frozenset[int]) -> None:
        self.model, self.special_ids, self.head = model, special_ids, prove(model, ("projection",)).head
        for parameter in model.parameters():
            parameter.requires_grad_(True)

    def norms(self, row: Rendered) -> tuple[float, float]:
        """|grad of the mean answer loss| over all parameters, and over the vocabulary projection as if it
        were tied to nothing.

        The second needs the last hidden states alone: |sum_t (p_t - onehot_t) h_t^T| / T where the projection
        is one plain matrix; where logits are scaled or capped, its derivative comes in. The mean is over the
        answer's tokens without special ones, as in scoring; natural log.

        Raises:
            ValueError: no token has a loss.
        """
        places = [
            t for t in range(max(1, row.prompt_length), row.answer_end) if row.ids[t] not in self.special_ids
        ]
        if not places:
            raise ValueError("no answer token has a loss")
        device = self.model.device
        ids, at = (
            torch.tensor([row.ids[: row.answer_end]], device=device),
            torch.tensor(places, device=device),
        )
        self.model.zero_grad(set_to_none=True)
        hidden_TD = decoder_of(self.model)(input_ids=ids, use_cache=False).last_hidden_state[0, at - 1]
        target_T = ids[0, at]
        torch.nn.functional.cross_entropy(self.head.logits(hidden_TD), target_T).backward()  # type: ignore[no-untyped-call]
        whole = math.sqrt(
            sum(float(p.grad.double().pow(2).sum()) for p in self.model.parameters() if p.grad is not None)
        )
        self.model.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self.head.logits(hidden_TD.detach()), target_T)
        (gradient_VD,) = torch.autograd.grad(loss, self.head.weight)
        return whole, float(torch.linalg.vector_norm(gradient_VD.double()))


def agreements(table: pd.DataFrame, costs: Sequence[str], seed: int = 0) -> list[Agreement]:
    """Every cost against both norms, over all answers and within questions.

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
    low, high = np.quantile(finite, [0.025, 0.975]) if finite else (math.nan, math.nan)
    return Agreement(cost, norm, scope, value, float(low), float(high), questions, answers)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN for fewer than two values or constant
    ones.

    >>> _spearman(np.array([1.0, 2.0, 9.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    a, b = stats.rankdata(x), stats.rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))
