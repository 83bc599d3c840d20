"""The training questions in slices, for workers. An index of them, with which answers from files find their
questions.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from cluster.models.messages import Prompt, plain, read_prompt
from cluster.models.repair import whole_characters
from jobs.files.answers import body_of
from jobs.files.questions import Question
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.slices import Made, Sliced, make_slices, slice_of

VERSION = 1
QUESTIONS = "questions"
COLUMNS = [
    "question_id",
    "key",
    "body",
    "is_text",
    "system",
    "prompt",
    "references",
    "family",
    "method",
    "row",
]


def question_slices(run: Run, questions: Mapping[str, Question], count: int) -> Sliced:
    """Write the questions for workers, sorted by key. The stage's id follows from their content."""
    held = HeldQuestions([[] for _ in range(count)])
    for question in questions.values():
        held.slices[slice_of(question_key(question.prompt), count)].append(question)
    content = hashlib.sha256()
    for number in range(count):
        for row in held.rows(number):
            content.update(repr(row).encode())
    stage = run.store.stage(QUESTIONS, VERSION, {"slices": count}, {"content": content.hexdigest()[:24]})
    sliced = Sliced(stage, (QUESTIONS,), count)
    if run.mode == "plan" and count > 1:
        run.note(QUESTIONS, "the questions", stage)
        return sliced
    return make_slices(run, QUESTIONS, "the questions", sliced, held, here=True, questions="questions")


@dataclass(frozen=True)
class HeldQuestions:
    """Makes slices of questions that this process holds."""

    slices: list[list[Question]]

    def __call__(self, number: int) -> Made:
        rows = self.rows(number)
        return Made({QUESTIONS: pd.DataFrame(rows, columns=COLUMNS)}, {"questions": len(rows)})

    def rows(self, number: int) -> list[tuple[Any, ...]]:
        """One slice's questions as rows, in the order of keys."""
        return sorted((row_of(q) for q in self.slices[number]), key=lambda row: (row[1], row[0]))


def row_of(question: Question) -> tuple[Any, ...]:
    """A question as a row of plain values. A question of one plain turn is stored as its text alone. Lone
    surrogates, which no file can hold, are escaped.
    """
    prompt = question.prompt
    said = prompt.text + (prompt.system or "")
    is_text = prompt.is_plain and whole_characters(said) == said
    return (
        question.id,
        question_key(prompt),
        body_digest(prompt),
        is_text,
        prompt.system if is_text else None,
        prompt.text if is_text else prompt.to_json(),
        json.dumps(question.references),
        whole_characters(question.family),
        question.method,
        question.row.encode("utf-8", "backslashreplace").decode(),
    )


def read_slice(questions: Sliced, number: int) -> dict[str, Question]:
    """One slice's questions, by id."""
    table = questions.read(QUESTIONS, number)
    columns = (table[c].tolist() for c in COLUMNS if c not in ("key", "body"))
    return {
        identity: Question(
            identity,
            plain(text, system if isinstance(system, str) else None) if is_text else read_prompt(text),
            tuple(json.loads(references)),
            family,
            method,
            row,
        )
        for identity, is_text, system, text, references, family, method, row in zip(*columns, strict=True)
    }


def body_digest(prompt: Prompt) -> bytes:
    """An eight-byte digest of a prompt's turns without the system turn."""
    return hashlib.sha256(repr(body_of(prompt)).encode("utf-8", "surrogatepass")).digest()[:8]


@dataclass(frozen=True)
class QuestionIndex:
    """What is needed to find the questions of answers from files. It takes about a hundred bytes for each
    question.

    Attributes:
        places: id -> number. `keys` and `bodies` hold the digests by that number.
    """

    questions: Sliced
    places: Mapping[str, int]
    keys: list[bytes]
    bodies: list[bytes]

    @cached_property
    def by_key(self) -> dict[bytes, list[str]]:
        """The ids of the questions by the key of all their turns."""
        return _ids_by(self.keys, self.places)

    @cached_property
    def by_body(self) -> dict[bytes, list[str]]:
        """The ids of the questions by the digest of their turns without the system turn."""
        return _ids_by(self.bodies, self.places)

    def question(self, identity: str) -> Question:
        """One question."""
        number = slice_of(self.keys[self.places[identity]], self.questions.count)
        return read_slice(self.questions, number)[identity]


def _ids_by(digests: Iterable[bytes], places: Mapping[str, int]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for identity, own in zip(places, digests, strict=True):
        found.setdefault(own, []).append(identity)
    return found


_KEPT: dict[str, QuestionIndex] = {}  # the index that this process read last


def index_of(questions: Sliced) -> QuestionIndex:
    """The index of these questions."""
    place = str(questions.stage.directory)
    if questions.held or place not in _KEPT:
        _KEPT.clear()
        table = questions.whole(QUESTIONS, ["question_id", "key", "body"])
        places = dict(zip(table["question_id"].tolist(), range(len(table)), strict=True))
        _KEPT[place] = QuestionIndex(questions, places, table["key"].tolist(), table["body"].tolist())
    return _KEPT[place]
