"""How likely the first tokens of an answer's steps are: what the costs of ASLEC need (arXiv 2604.06834).

A mean loss is confounded by the length of steps. The first token of a step is hard to predict, and long
steps dilute it. A step is a sentence or a line, as in `selection/windows.py`. The published program ends a
step at a full stop or question mark before a space, and not with a line.

Shapes: T answer tokens, D width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.models.positions import context_length
from cluster.models.proof import prove
from cluster.models.rendering import Rendered
from cluster.models.vocabulary import decoder_of
from selection.likelihood import one_by_one
from selection.scoring import EmptySpan
from selection.windows import Sentences


@dataclass(frozen=True)
class StepStatistics:
    """The first tokens of the steps of one answer. Special tokens do not count, as in all costs.

    Attributes:
        first_loss: sum of their losses, in nats.
        n_first: how many there are: the number of steps.
    """

    first_loss: float
    n_first: int


class Steps:
    """Reads answers after their questions, one text a pass."""

    result = StepStatistics

    def __init__(self, model: Any, tokenizer: Any, special_ids: frozenset[int]) -> None:
        self.model, self.sentences, self.special_ids = model, Sentences(tokenizer), special_ids
        self.proof = prove(model, ("projection",))
        self.head, self.context_length = self.proof.head, context_length(model)

    def score(self, rows: Sequence[Rendered]) -> list[StepStatistics | Exception]:
        """The statistics of each answer. One that fails by itself gets its exception."""
        return one_by_one(self.model, rows, self._read)

    def first_tokens(self, row: Rendered) -> list[int]:
        """The places in an answer at which its steps begin: the first token of each that counts."""
        answer, ends, places = row.ids[row.prompt_length : row.answer_end], self.sentences.ends(row), []
        for begin, end in zip([0, *ends], ends, strict=False):
            own = [t for t in range(begin, end) if answer[t] not in self.special_ids]
            places += own[:1]
        return places

    def _read(self, row: Rendered) -> StepStatistics:
        places = self.first_tokens(row)
        if not places:
            raise EmptySpan("the answer has no token besides special ones", "", "at least one", "")
        ids = torch.tensor([row.ids[: row.answer_end]], device=self.model.device)
        hidden_TD = decoder_of(self.model)(input_ids=ids, use_cache=False).last_hidden_state[0]
        at = np.array(places) + row.prompt_length
        at = at[at > 0]  # nothing predicts the very first token
        logits = self.head.logits(hidden_TD[torch.from_numpy(at - 1)])
        target = ids[0, torch.from_numpy(at)]
        each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        total = float(each.double().sum())
        if not math.isfinite(total):
            raise ArithmeticError("the student gives losses that are not finite")
        return StepStatistics(total, len(places))
