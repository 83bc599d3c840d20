"""What a teacher is asked and the table of what it answered, the same for hosted models, endpoints
and files.
"""

from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from cluster.metrics import Tally
from jobs.run.store import digest_rows

VERSION = 1  # of every stage whose parts are answers
ANSWER_COLUMNS = [
    "answer_id",
    "question_id",
    "teacher",
    "sample",
    "text",
    "finish",
    "error",
    "prompt_tokens",
    "answer_tokens",
    "usd",
]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to one teacher, `sample` counting its repetitions from 0."""

    question_id: str
    text: str
    system: str | None
    sample: int


class Asks(tuple[Ask, ...]):
    """What is asked of one or several teachers; its identity and its shards' names are computed once for all
    of them.
    """

    @cached_property
    def id(self) -> str:
        return digest_rows(map(astuple, self))

    def shards(self, size: int) -> list[tuple[str, "Asks"]]:
        """Shards named by their place and content, so that running one twice is harmless."""
        if self._size_and_names is None or self._size_and_names[0] != size:
            parts = (self[i : i + size] for i in range(0, len(self), size))
            self._size_and_names = (
                size,
                [f"{k:06d}-{digest_rows(map(astuple, part), 8)}" for k, part in enumerate(parts)],
            )
        return [
            (name, Asks(self[k * size : (k + 1) * size])) for k, name in enumerate(self._size_and_names[1])
        ]

    _size_and_names: tuple[int, list[str]] | None = None


def answer_id(teacher: str, question_id: str, sample_index: int) -> str:
    return f"{teacher}/{question_id}/{sample_index}"


def answer_row(
    teacher: str,
    ask: Ask,
    text: str,
    finish: str,
    error: str = "",
    tokens: tuple[int, int] = (0, 0),
    usd: float = 0.0,
) -> tuple[Any, ...]:
    """One row of the answers table; `finish` is stop, length, or failed."""
    return (
        answer_id(teacher, ask.question_id, ask.sample),
        ask.question_id,
        teacher,
        ask.sample,
        text,
        finish,
        error,
        *tokens,
        usd,
    )


def tally_of(answers: pd.DataFrame) -> Tally:
    """What a part of answers amounts to."""
    failed = int((answers["finish"] == "failed").sum())
    return Tally(
        len(answers), int(answers["answer_tokens"].sum()), failed, spend_usd=float(answers["usd"].sum())
    )
