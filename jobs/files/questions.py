"""Questions in the user's own files: each with its reference answer and an id of its own."""

import hashlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from jobs.experiment.questions import Fields
from jobs.files.columns import ID_NAMES, QUESTION_NAMES, REFERENCE_NAMES, as_text, first_turn, first_value
from jobs.files.rows import OnBroken, read_rows


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `family` groups questions in reports ("" if the file has none)."""

    id: str
    text: str
    reference: str
    system: str | None = None
    family: str = ""


def question_id_of(text: str) -> str:
    """The id of a question that has none: a hash of its text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_questions(
    path: Path,
    fields: Fields,
    *,
    system: str | None = None,
    on_broken: OnBroken = None,
    need_reference: bool = True,
) -> list[Question]:
    """Read questions, in the file's order.

    Raises:
        BadInput: a row without a question or reference, an id that comes twice.
    """
    questions: list[Question] = []
    places: dict[str, int] = {}
    lines = array("q")
    for number, row in read_rows(path, on_broken):
        where = f"{path} line {number}"
        question = _question_in(row, where, fields, system, need_reference)
        first = places.setdefault(question.id, len(questions))
        if first < len(questions):
            raise _repeated(where, question, questions[first], lines[first])
        lines.append(number)
        questions.append(question)
    if not questions:
        raise BadInput(f"{path} holds no questions", "0 rows", "at least one", "")
    return questions


def _question_in(
    row: Mapping[str, Any], where: str, fields: Fields, system: str | None, need_reference: bool
) -> Question:
    text = as_text(first_value(row, fields.question, QUESTION_NAMES)) or first_turn(row, "user")
    reference = as_text(first_value(row, fields.reference, REFERENCE_NAMES)) or first_turn(row, "assistant")
    if not text or not text.strip():
        raise BadInput(
            f"{where} has no question",
            ", ".join(row),
            " or ".join(QUESTION_NAMES),
            "name the column with fields.question",
        )
    if need_reference and (reference is None or not reference.strip()):
        raise BadInput(
            f"{where} has no reference answer",
            ", ".join(row),
            " or ".join(REFERENCE_NAMES),
            "name the column with fields.reference",
        )
    given = first_value(row, fields.id, ID_NAMES)
    identity = question_id_of(text) if given is None else str(given)
    own_system = as_text(first_value(row, fields.system, ("system",))) or first_turn(row, "system") or system
    family = str(row.get("family") or row.get("task") or "")
    return Question(identity, text, reference or "", own_system, family)


def _repeated(where: str, question: Question, earlier: Question, line: int) -> BadInput:
    same = "the same text" if question.text == earlier.text else "another text"
    return BadInput(
        f"{where} repeats an id",
        f"{question.id}, first seen at line {line} with {same}",
        "one question an id",
        "remove one",
    )


def take_rows(questions: list[Question], rows: str | None) -> list[Question]:
    """The questions in a slice of the file, `start:stop`, 0-based and end exclusive; all of them for None.

    >>> [q.id for q in take_rows([Question(str(i), "q", "a") for i in range(5)], "1:3")]
    ['1', '2']
    """
    if rows is None:
        return questions
    start, _, stop = rows.partition(":")
    taken = questions[int(start or 0) : int(stop) if stop else None]
    if not taken:
        raise BadInput(
            "a slice of the questions is empty",
            rows,
            f"within 0:{len(questions)}",
            "change train_rows or evaluate_rows",
        )
    return taken
