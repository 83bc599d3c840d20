"""Local naturalness (arXiv 2510.03988): how well a student predicts each sentence of an answer from only the
question and the few sentences before it.

A sentence ends at a full stop, a question or exclamation mark before white space, at a wide mark, or with a
line.
"""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cluster.models.rendering import Rendered
from selection.scoring import EmptySpan, Scorer, Statistics

CLOSING = r"['\")\]*_”’»）」』]*"
# A mark and closing characters before white space or the end, or a wide mark; then ends of lines.
ENDS = re.compile(rf"(?:[.!?…]+{CLOSING}(?=\s|$)|[。！？]+{CLOSING})(?:[^\S\n]*\n)*|\n+")


@dataclass(frozen=True)
class LocalStatistics:
    """The local statistics of one answer.

    Attributes:
        local_loss: mean over its sentences of the mean loss of a sentence's tokens, in nats.
        sentences: the number of its sentences.
    """

    local_loss: float
    sentences: int


class Sentences:
    """Finds the sentences of answers in one tokenizer's tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.is_byte_level = tokenizer, is_byte_level(tokenizer)

    def ends(self, row: Rendered) -> list[int]:
        """The ends of an answer's sentences, counted from its beginning. The last one is the answer's end."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(row.ids[row.prompt_length : row.answer_end]))
        return sentence_ends(texts_of(pieces, self.is_byte_level))


class Windows:
    """Reads every sentence of an answer after the question and the `window` sentences before it."""

    result = LocalStatistics

    def __init__(self, scorer: Scorer, tokenizer: Any, window: int) -> None:
        self.scorer, self.sentences, self.window = scorer, Sentences(tokenizer), window
        self.proof, self.context_length = scorer.proof, scorer.context_length

    def score(self, rows: Sequence[Rendered]) -> list[LocalStatistics | Exception]:
        """The local statistics of each answer, in order. One that fails by itself gets its exception
        instead.
        """
        cut = [self.windows(row) for row in rows]
        found = iter(self.scorer.score([one for own in cut for one in own]))
        return [summed([next(found) for _ in own]) for own in cut]

    def windows(self, row: Rendered) -> list[Rendered]:
        """One row for each sentence: the prompt, the sentences before it, and as its answer the sentence."""
        prompt = row.ids[: row.prompt_length]
        bounds = [row.prompt_length + end for end in (0, *self.sentences.ends(row))]
        rows = []
        for k in range(1, len(bounds)):
            context = prompt + row.ids[bounds[max(0, k - 1 - self.window)] : bounds[k - 1]]
            ids = context + row.ids[bounds[k - 1] : bounds[k]]
            rows.append(Rendered(ids, len(context), len(ids)))
        return rows


def is_byte_level(tokenizer: Any) -> bool:
    """Whether a tokenizer writes its tokens as GPT-2's does, in characters that stand for bytes."""
    vocabulary = tokenizer.get_vocab()
    return "Ġ" in vocabulary and "▁" not in vocabulary


@lru_cache(maxsize=1)
def byte_of_character() -> dict[str, int]:
    """The byte of each character of a byte-level vocabulary (GPT-2's table). Printable characters stand for
    themselves, the others are characters from U+0100 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + k): byte for k, byte in enumerate(others)}


def texts_of(pieces: Sequence[str], is_byte_level: bool) -> list[str]:
    """The text that each token of an answer adds. Tokens are written as in byte-level and SentencePiece
    vocabularies; added tokens stand for themselves. A character of several tokens comes with the last of
    them.

    >>> texts_of(["Ġis", "ãĢ", "Ĥ"], True), texts_of(["▁is", "<0xE3>", "<0x80>", "<0x82>"], False)
    ([' is', '', '。'], [' is', '', '', '。'])
    """
    table = byte_of_character()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = []
    for piece in pieces:
        if is_byte_level and all(character in table for character in piece):
            content = bytes(table[character] for character in piece)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
            content = bytes.fromhex(piece[3:5])
        else:
            content = piece.replace("▁", " ").encode("utf-8", "replace")
        texts.append(decoder.decode(content))
    return texts


def sentence_ends(texts: Sequence[str]) -> list[int]:
    """The tokens after which a sentence ends, counted from 1: the first token that reaches the end. A full
    stop within a number ends no sentence.

    Args:
        texts: the text that each token adds.

    >>> sentence_ends(["It", " is", " 3", ".", "5", ".", " Yes", "\\n", "\\n", "So"])
    [6, 9, 10]
    """
    whole, at, ends = "".join(texts), 0, []
    marks = [found.end() for found in ENDS.finditer(whole)]
    length = 0
    for k, text in enumerate(texts, 1):
        length += len(text)
        reached = at
        while at < len(marks) and marks[at] <= length:
            at += 1
        if at > reached:
            ends.append(k)
    return ends if ends and ends[-1] == len(texts) else [*ends, len(texts)]


def summed(found: Sequence[Statistics | Exception]) -> LocalStatistics | Exception:
    """Combine the sentences of one answer. Sentences of only special tokens do not count."""
    own = [one for one in found if not isinstance(one, EmptySpan)]
    for one in own:
        if isinstance(one, Exception):
            return one
    means = [one.answer_loss / one.n_answer for one in own if isinstance(one, Statistics)]
    if not means:
        return EmptySpan("the answer has no token besides special ones", "", "at least one", "")
    return LocalStatistics(sum(means) / len(means), len(means))
