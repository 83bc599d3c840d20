"""Local naturalness (arXiv 2510.03988): how well a student predicts each sentence of an answer from the
question and the few sentences before it alone.

A sentence ends with a token that ends in a full stop, a question or exclamation mark, or with a line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.models.rendering import Rendered
from selection.scoring import EmptySpan, Scorer, Statistics

ENDS = re.compile(r"[.!?…。！？]['\")\]*_]*$")
# How vocabularies write the white space that a token begins with, and the end of a line.
SPACES, LINES = (" ", "\t", "\n", "Ġ", "▁", "Ċ", "<0x0A>"), ("\n", "Ċ", "<0x0A>")


@dataclass(frozen=True)
class LocalStatistics:
    """Of one answer.

    Attributes:
        local_loss: mean over its sentences of the mean loss of a sentence's tokens, in nats.
        sentences: how many.
    """

    local_loss: float
    sentences: int


class Windows:
    """Reads every sentence of an answer behind the question and the `window` sentences before it."""

    result = LocalStatistics

    def __init__(self, scorer: Scorer, tokenizer: Any, window: int) -> None:
        self.scorer, self.tokenizer, self.window = scorer, tokenizer, window
        self.proof, self.context_length = scorer.proof, scorer.context_length

    def score(self, rows: Sequence[Rendered]) -> list[LocalStatistics | Exception]:
        """Local statistics per answer, in order; one that fails alone gets its exception instead."""
        cut = [self.windows(row) for row in rows]
        found = iter(self.scorer.score([one for own in cut for one in own]))
        return [summed([next(found) for _ in own]) for own in cut]

    def windows(self, row: Rendered) -> list[Rendered]:
        """One row for each sentence: the prompt, the sentences before it, and as its answer the sentence."""
        prompt = row.ids[: row.prompt_length]
        bounds = [row.prompt_length, *self._ends(row)]
        rows = []
        for k in range(1, len(bounds)):
            context = prompt + row.ids[bounds[max(0, k - 1 - self.window)] : bounds[k - 1]]
            ids = context + row.ids[bounds[k - 1] : bounds[k]]
            rows.append(Rendered(ids, len(context), len(ids)))
        return rows

    def _ends(self, row: Rendered) -> list[int]:
        """Where the sentences of an answer end; the last ends where the answer does."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(row.ids[row.prompt_length : row.answer_end]))
        return [row.prompt_length + end for end in sentence_ends(pieces)]


def sentence_ends(pieces: Sequence[str]) -> list[int]:
    """Behind which tokens a sentence ends, counted from 1. A full stop within a number ends none.

    >>> sentence_ends(["It", "Ġis", "Ġ3", ".", "5", ".", "ĠYes", "Ċ", "Ċ", "So"])
    [6, 9, 10]
    """
    ends = []
    for k, piece in enumerate(pieces, 1):
        following = pieces[k] if k < len(pieces) else " "
        is_end = piece.endswith(LINES) or (ENDS.search(piece) and following.startswith(SPACES))
        if is_end and not following.startswith(LINES):
            ends.append(k)
    return ends if ends and ends[-1] == len(pieces) else [*ends, len(pieces)]


def summed(found: Sequence[Statistics | Exception]) -> LocalStatistics | Exception:
    """One answer's sentences together; those of special tokens alone do not count."""
    own = [one for one in found if not isinstance(one, EmptySpan)]
    for one in own:
        if isinstance(one, Exception):
            return one
    means = [one.answer_loss / one.n_answer for one in own if isinstance(one, Statistics)]
    if not means:
        return EmptySpan("the answer has no token besides special ones", "", "at least one", "")
    return LocalStatistics(sum(means) / len(means), len(means))
