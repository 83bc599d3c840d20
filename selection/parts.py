"""The statistics of parts of answers: of the results in a worked solution, say. The text before a part is
context, as it is in the statistics of a whole answer.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cluster.models.rendering import Rendered
from selection.scoring import EmptySpan, Scorer, Statistics
from selection.windows import is_byte_level, texts_of


def parts_of(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """The parts of a text that a pattern matches, as places of characters. If the pattern has groups, the
    parts are those of its groups that matched. Empty parts are left out.

    >>> parts_of("16-3=13, 13*2=26", re.compile(r"=(\\d+)"))
    [(5, 7), (14, 16)]
    """
    groups = range(1, pattern.groups + 1) if pattern.groups else (0,)
    found = [m.span(group) for m in pattern.finditer(text) for group in groups]
    return sorted((begin, end) for begin, end in found if end > begin)


VERSION = 2  # of what is matched: 1 took the token that ends a turn as part of the text


class Parts:
    """Computes the statistics of those tokens of an answer that hold a character of one of its parts. Tokens
    of the answer that hold none are context: the student reads them, and they do not count.
    """

    result = Statistics

    def __init__(self, scorer: Scorer, tokenizer: Any, pattern: str) -> None:
        self.scorer, self.tokenizer, self.pattern = scorer, tokenizer, re.compile(pattern)
        self.proof, self.context_length = scorer.proof, scorer.context_length
        self.is_byte_level = is_byte_level(tokenizer)

    def score(self, rows: Sequence[Rendered]) -> list[Statistics | Exception]:
        """The statistics of each answer's parts, in order. An answer without a part gets an exception."""
        own = [self.narrowed(row) for row in rows]
        found = iter(self.scorer.score([row for row in own if row is not None]))
        none = EmptySpan("no part of the answer is matched", self.pattern.pattern, "at least one", "")
        return [none if row is None else next(found) for row in own]

    def narrowed(self, row: Rendered) -> Rendered | None:
        """An answer of which only these tokens count. None if there are none. What a template writes around
        the answer, such as the token that ends the turn, is not part of the text that is matched: `$` is its
        end.
        """
        ids = list(row.ids[row.prompt_length : row.answer_end])
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        special = set(self.scorer.special_ids.tolist())
        read = zip(ids, texts_of(pieces, self.is_byte_level), strict=True)
        texts = ["" if i in special else text for i, text in read]
        whole = "".join(texts)
        parts, at = parts_of(whole.strip(), self.pattern), len(whole.lstrip()) - len(whole)
        spans = list[tuple[int, int]]()
        for place, text in enumerate(texts, row.prompt_length):
            begin, at = at, at + len(text)
            if any(begin < end and at > start for start, end in parts):
                spans.append((place, place + 1))
        return replace(row, spans=tuple(spans)) if spans else None
