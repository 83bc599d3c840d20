"""How well a student predicts an answer that nobody asked for: the lower half of IFD (Cherry LLM, arXiv
2308.12032)."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.models.rendering import Rendered
from selection.scoring import EmptySpan, Scorer, Statistics


@dataclass(frozen=True)
class UnconditionedStatistics:
    """Of one answer without its question.

    Attributes:
        alone_loss: sum of its tokens' losses, in nats.
        n_alone: how many tokens have one. Without a BOS the first has none, as published.
    """

    alone_loss: float
    n_alone: int


class Unconditioned:
    """Reads answers without their questions."""

    result = UnconditionedStatistics

    def __init__(self, scorer: Scorer, bos: int | None) -> None:
        self.scorer, self.bos = scorer, bos
        self.proof, self.context_length = scorer.proof, scorer.context_length

    def score(self, rows: Sequence[Rendered]) -> list[UnconditionedStatistics | Exception]:
        """Statistics per answer, in order; one that fails alone gets its exception instead."""
        found = self.scorer.score([self.alone(row) for row in rows])
        return [of_rest(one) for one in found]

    def alone(self, row: Rendered) -> Rendered:
        """An answer behind the BOS that its text begins with, else behind its first token."""
        said = row.ids[row.prompt_length : row.answer_end]
        ids = (row.ids[0], *said) if self.bos is not None and row.ids[0] == self.bos else said
        return Rendered(ids, 1, len(ids))


def of_rest(found: Statistics | Exception) -> UnconditionedStatistics | Exception:
    """What was found of the tokens behind the first."""
    if isinstance(found, EmptySpan):
        return UnconditionedStatistics(0.0, 0)
    if isinstance(found, Exception):
        return found
    return UnconditionedStatistics(found.answer_loss, found.n_answer)
