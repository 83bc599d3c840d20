"""Exact gradients of answers' mean losses under one student, with one backward pass an answer. They give
norms, or sketches that keep inner products.

Shapes: T answer tokens, D width, V vocabulary, P parameters, K numbers of a sketch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.halving import run_halving
from cluster.models.positions import context_length
from cluster.models.proof import prove
from cluster.models.rendering import Rendered
from cluster.models.vocabulary import decoder_of
from cluster.progress import tell
from cluster.threads import one_thread
from selection.scoring import refusal

SKETCH = 512  # how many numbers a sketch has, as in GRACE's program
SKETCH_SEED = 0
PIECE = 2**22  # how many coordinates are sketched at once


@dataclass(frozen=True)
class GradientStatistics:
    """The gradient norms of one answer's mean loss.

    Attributes:
        gradient_norm: |gradient| over all parameters.
    """

    gradient_norm: float


@dataclass(frozen=True)
class SketchStatistics:
    """The gradient sketch of one answer's mean loss.

    Attributes:
        gradient_sketch: `SKETCH` float32 numbers, little-endian, whose inner products stand for those of the
            gradients, over the square root of P.
    """

    gradient_sketch: bytes


class Gradients:
    """Computes exact gradients of answers' mean losses under one student, one answer at a time: their norms,
    or with `sketches` their sketches.
    """

    def __init__(self, model: Any, special_ids: frozenset[int], sketches: bool = False) -> None:
        self.model, self.special_ids, self.sketches = model, special_ids, sketches
        self.result: type = SketchStatistics if sketches else GradientStatistics
        self.proof = prove(model, ("projection",))
        self.head, self.context_length = self.proof.head, context_length(model)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        self._buckets: list[torch.Tensor] | None = None

    def score(self, rows: Sequence[Rendered]) -> list[GradientStatistics | SketchStatistics | Exception]:
        """The norm or sketch of each answer's gradient. An answer that fails by itself gets its exception."""
        found = []
        for row in rows:
            found.append(self._score(row))
            tell(1 / len(rows))
        return found

    def _score(self, row: Rendered) -> GradientStatistics | SketchStatistics | Exception:
        refused = refusal(self.model, row)
        if refused is not None:
            return refused
        with one_thread(self.model):
            (found,) = run_halving([row], lambda some: [self._measure(one) for one in some], self._free)
        self._free()
        return found

    def _measure(self, row: Rendered) -> GradientStatistics | SketchStatistics:
        self.backward(row)
        norm = self._norm()
        if not math.isfinite(norm):
            raise ArithmeticError("the student gives a gradient that is not finite")
        if not self.sketches:
            return GradientStatistics(norm)
        return SketchStatistics(self._sketch().astype("<f4").tobytes())

    def _free(self) -> None:
        self.model.zero_grad(set_to_none=True)

    def backward(self, row: Rendered) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the gradient of an answer's mean loss in the model's parameters. Natural log, over the
        answer's tokens without special ones, as in scoring.

        Returns:
            The hidden states before those tokens [T, D], and the tokens [T].

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
        loss = torch.nn.functional.cross_entropy(self.head.logits(hidden_TD), target_T)
        loss.backward()  # type: ignore[no-untyped-call]
        return hidden_TD, target_T

    def norms(self, row: Rendered) -> tuple[float, float]:
        """|gradient| over all parameters, and over the vocabulary projection as if its weights were not
        tied.

        The second only needs the last hidden states: |sum_t (p_t - onehot_t) h_t^T| / T if the projection is
        one plain matrix. If logits are scaled or capped, the derivative of that is included.

        Raises:
            ValueError: no token has a loss.
        """
        with one_thread(self.model):
            hidden_TD, target_T = self.backward(row)
            whole = self._norm()
            self.model.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(self.head.logits(hidden_TD.detach()), target_T)
            (gradient_VD,) = torch.autograd.grad(loss, self.head.weight)
        return whole, float(torch.linalg.vector_norm(gradient_VD.double()))

    def _norm(self) -> float:
        parts = (float(p.grad.double().pow(2).sum()) for p in self.model.parameters() if p.grad is not None)
        return math.sqrt(sum(parts))

    def _sketch(self) -> np.ndarray:
        """A count sketch: every coordinate of the gradient is added to one of K numbers with a sign. Both are
        drawn by a seed. Inner products are kept on average. It takes one pass over the gradient, piece by
        piece.
        """
        parameters = list(self.model.parameters())
        if self._buckets is None:
            drawn = draw_buckets([p.numel() for p in parameters], SKETCH, SKETCH_SEED)
            self._buckets = [one.to(p.device) for one, p in zip(drawn, parameters, strict=True)]
        total = torch.zeros(SKETCH, dtype=torch.float64)
        for p, drawn_P in zip(parameters, self._buckets, strict=True):
            if p.grad is None:
                continue
            gradient_P = p.grad.detach().reshape(-1)
            for at in range(0, len(drawn_P), PIECE):
                gradient, bucket = gradient_P[at : at + PIECE], drawn_P[at : at + PIECE]
                signed = gradient.float() * (1 - 2 * (bucket & 1))
                own = torch.zeros(SKETCH, device=p.device)
                total += own.index_add_(0, (bucket >> 1).int(), signed).double().cpu()
        return np.asarray(total.numpy() / math.sqrt(sum(p.numel() for p in parameters)))


def draw_buckets(sizes: Sequence[int], width: int, seed: int) -> list[torch.Tensor]:
    """For every coordinate of some parameters, in 16 bits: twice the index of the number that it is added to,
    plus one if it is subtracted.
    """
    rng = torch.Generator().manual_seed(seed)
    return [torch.randint(2 * width, (size,), generator=rng, dtype=torch.int16) for size in sizes]
