"""How likely a model finds whole texts: every token of an answer counts, its end token too, as in training.

Shapes: T tokens of a pass, D width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from cluster.halving import run_halving
from cluster.models.branching import Layout, Tree, divided, forward, sharing
from cluster.models.positions import context_length, steady_positions, stretched_above
from cluster.models.proof import prove
from cluster.models.rendering import Rendered
from cluster.progress import tell
from cluster.threads import one_thread
from selection.predictions import Vocabulary, find_predictions
from selection.scoring import refusal

R = TypeVar("R")


def one_by_one(model: Any, rows: Sequence[Rendered], read: Callable[[Rendered], R]) -> list[R | Exception]:
    """What `read` finds of each text, one text a pass. One that fails by itself gets its exception."""
    found: list[R | Exception] = []
    for row in rows:
        refused = refusal(model, row)
        if refused is None:
            with one_thread(model), torch.inference_mode():
                found += run_halving([row], lambda some: [read(one) for one in some])
        else:
            found.append(refused)
        tell(1 / len(rows))
    return found


@dataclass(frozen=True)
class Likelihood:
    """The log-probability of one text.

    Attributes:
        logprob: the sum over its tokens, natural log.
        tokens: their number.
    """

    logprob: float
    tokens: int


class Likelihoods:
    """Reads texts under a model. Texts after one prompt share its computation where the architecture allows
    it; otherwise each has a pass of its own. Log-probabilities are computed in float32, whatever the model's
    dtype.
    """

    result = Likelihood

    def __init__(self, model: Any, token_budget: int = 8192) -> None:
        """Prove what the model allows.

        Args:
            token_budget: the most tokens of a pass over several texts. The prompt counts once.
        """
        self.model, self.token_budget = model, token_budget
        self.proof = prove(model, ("projection", "sharing"))
        self.context_length, self.vocabulary = context_length(model), Vocabulary(self.proof.head)
        self.alone_above = stretched_above(model)

    def score(self, rows: Sequence[Rendered]) -> list[Likelihood | Exception]:
        """The likelihood of each text, in order. One that fails by itself gets its exception."""
        found: list[Likelihood | Exception | None] = [refusal(self.model, row) for row in rows]
        readable = [(i, row) for i, row in enumerate(rows) if found[i] is None]
        passes = self._passes(readable)
        with one_thread(self.model), torch.inference_mode(), sharing(self.model, self._shares):
            for some in passes:
                results = run_halving([row for _, row in some], self._read, self.vocabulary.free)
                for (i, _), result in zip(some, results, strict=True):
                    found[i] = result
                tell(len(some) / len(readable))
        return [own for own in found if own is not None]

    @property
    def _shares(self) -> bool:
        return self.proof.allows("sharing")

    def _passes(self, rows: Sequence[tuple[int, Rendered]]) -> list[list[tuple[int, Rendered]]]:
        """The rows of each pass, which begin with one prompt."""
        families: dict[Any, list[tuple[int, Rendered]]] = {}
        for i, row in rows:
            is_alone = not self._shares or row.answer_end > self.alone_above
            families.setdefault((prompt_of(row), i if is_alone else None), []).append((i, row))
        return [
            some
            for (prompt, _), family in families.items()
            for some in divided(
                family, [row.answer_end - len(prompt) for _, row in family], len(prompt), self.token_budget
            )
        ]

    def _read(self, rows: Sequence[Rendered]) -> list[Likelihood]:
        """The likelihoods of texts after one prompt."""
        if self.alone_above < math.inf:
            steady_positions(self.model)
        prompt = prompt_of(rows[0])
        layout = Layout([Tree(prompt, tuple(row.ids[len(prompt) : row.answer_end] for row in rows))])
        hidden_TD = forward(self.model, layout, self._shares)
        spans = [(layout.prompts[0], span) for span in layout.branches[0]]
        wanted = find_predictions(layout, np.ones(len(layout.ids), dtype=bool), spans)
        losses = self.vocabulary.measure(hidden_TD, layout, wanted, full=False)["loss"]
        totals = np.bincount(wanted.segment, losses, len(rows))
        if not np.isfinite(totals).all():
            raise ArithmeticError("the model gives a log-probability that is not finite")
        return [
            Likelihood(-float(t), span.stop - span.start) for t, (_, span) in zip(totals, spans, strict=True)
        ]


def prompt_of(row: Rendered) -> tuple[int, ...]:
    """The tokens before the first one that is read. A text's first token is not predicted."""
    return tuple(row.ids[: max(1, row.prompt_length)])
