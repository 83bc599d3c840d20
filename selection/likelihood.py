"""How likely a model finds whole texts: every token of an answer counts, its end token too, as in training.

Shapes: T answer tokens, D width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from cluster.halving import run_halving
from cluster.models.positions import context_length
from cluster.models.proof import prove
from cluster.models.rendering import Rendered
from cluster.models.vocabulary import decoder_of
from cluster.progress import tell
from cluster.threads import one_thread
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
    """Reads texts under a model, one text a pass, and in no other order than training does. Log-probabilities
    are computed in float32, whatever the model's dtype.
    """

    result = Likelihood

    def __init__(self, model: Any) -> None:
        self.model = model
        self.proof = prove(model, ("projection",))
        self.head, self.context_length = self.proof.head, context_length(model)

    def score(self, rows: Sequence[Rendered]) -> list[Likelihood | Exception]:
        """The likelihood of each text. One that fails by itself gets its exception."""
        return one_by_one(self.model, rows, self._read)

    def _read(self, row: Rendered) -> Likelihood:
        start = max(1, row.prompt_length)
        ids = torch.tensor([row.ids[: row.answer_end]], device=self.model.device)
        hidden = decoder_of(self.model)(input_ids=ids, use_cache=False).last_hidden_state
        hidden_TD, target_T = hidden[0, start - 1 : row.answer_end - 1], ids[0, start:]
        each = torch.nn.functional.cross_entropy(self.head.logits(hidden_TD), target_T, reduction="none")
        total = -float(each.double().sum())
        if not math.isfinite(total):
            raise ArithmeticError("the model gives a log-probability that is not finite")
        return Likelihood(total, len(target_T))
