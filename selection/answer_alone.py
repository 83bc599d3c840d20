"""How well a student predicts an answer without its question: the denominator of IFD (Cherry LLM, arXiv
2308.12032). The answer is read after the text that the template writes before an answer. The published
program reads it after its own header.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import BadInput
from cluster.models.rendering import Rendered
from selection.scoring import Scorer, Statistics


@dataclass(frozen=True)
class UnconditionedStatistics:
    """The statistics of one answer without its question.

    Attributes:
        alone_loss: sum of its tokens' losses, in nats.
        n_alone: the number of its tokens, the same as with the question.
    """

    alone_loss: float
    n_alone: int


class Unconditioned:
    """Reads answers without their questions.

    Args:
        head: the tokens after which an answer is read.

    Raises:
        BadInput: there are none, so the first token would have no loss.
    """

    result = UnconditionedStatistics

    def __init__(self, scorer: Scorer, head: tuple[int, ...]) -> None:
        if not head:
            raise BadInput(
                "an answer cannot be read without its question: nothing stands before it",
                "a template without a header, and a tokenizer without BOS and EOS",
                "a header, a BOS or an EOS token before the answer",
                "leave out cost ifd",
            )
        self.scorer, self.head = scorer, head
        self.proof, self.context_length = scorer.proof, scorer.context_length

    def score(self, rows: Sequence[Rendered]) -> list[UnconditionedStatistics | Exception]:
        """The statistics of each answer, in order. One that fails by itself gets its exception instead."""
        found = self.scorer.score([self.alone(row) for row in rows])
        return [
            UnconditionedStatistics(one.answer_loss, one.n_answer) if isinstance(one, Statistics) else one
            for one in found
        ]

    def alone(self, row: Rendered) -> Rendered:
        """An answer directly after the head."""
        ids = (*self.head, *row.ids[row.prompt_length : row.answer_end])
        return Rendered(ids, len(self.head), len(ids))
