"""Answers in the user's own files: a teacher's samples, and rows that hold an answer and its reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from jobs.experiment.questions import Fields
from jobs.files.columns import (
    ANSWER_NAMES,
    ID_NAMES,
    QUESTION_NAMES,
    REFERENCE_NAMES,
    as_text,
    first_turn,
    first_value,
)
from jobs.files.questions import Question, question_id_of
from jobs.files.rows import OnBroken, read_rows


@dataclass(frozen=True)
class FoundAnswer:
    """One answer read from a file, before it is known whether its question is ours."""

    question_id: str
    question_text: str | None
    text: str
    system: str | None = None
    sample: int = 0


@dataclass(frozen=True)
class Row:
    """One answer to score."""

    answer_id: str
    question_id: str
    teacher: str
    question: str
    answer: str
    system: str | None


def read_answers(path: Path, fields: Fields, on_broken: OnBroken = None) -> list[FoundAnswer]:
    """Read a teacher's answers; several rows for one question are its samples, in the file's order."""
    answers: list[FoundAnswer] = []
    counts: dict[str, int] = {}
    for number, row in read_rows(path, on_broken):
        text = as_text(first_value(row, fields.answer, ANSWER_NAMES))
        text = first_turn(row, "assistant") if text is None else text
        question = as_text(first_value(row, fields.question, QUESTION_NAMES)) or first_turn(row, "user")
        identity = first_value(row, fields.id, ID_NAMES)
        if identity is None and question is None:
            raise BadInput(
                f"{path} line {number} names no question",
                ", ".join(row),
                "an id or the question's text",
                "name it with fields.id",
            )
        if text is None:
            raise BadInput(
                f"{path} line {number} has no answer",
                ", ".join(row),
                " or ".join(ANSWER_NAMES),
                "name the column with fields.answer",
            )
        key = str(identity) if identity is not None else question_id_of(str(question))
        sample = counts.get(key, 0)
        counts[key] = sample + 1
        answers.append(
            FoundAnswer(
                key,
                question,
                text,
                as_text(first_value(row, fields.system, ("system",))) or first_turn(row, "system"),
                sample,
            )
        )
    return answers


def answer_and_reference(
    row: Mapping[str, Any], where: str, answer: str | None, reference: str | None
) -> tuple[str, str]:
    """The answer and the reference of one row that holds both.

    Raises:
        BadInput: one of them is missing.
    """
    found = (
        as_text(first_value(row, answer, ANSWER_NAMES))
        if answer
        else as_text(first_value(row, None, ANSWER_NAMES)) or first_turn(row, "assistant")
    )
    gold = as_text(first_value(row, reference, REFERENCE_NAMES))
    if found is None:
        raise BadInput(
            f"{where} has no answer", ", ".join(row), " or ".join(ANSWER_NAMES), "name it with --answer-field"
        )
    if gold is None:
        raise BadInput(
            f"{where} has no reference",
            ", ".join(row),
            " or ".join(REFERENCE_NAMES),
            "name it with --reference-field",
        )
    return found, gold


def refuse_other_texts(answers: Sequence[FoundAnswer], questions: Mapping[str, Question], path: Path) -> None:
    """Stop when an answer's question has the same id as one of ours but another text.

    Raises:
        BadInput: with the id and both texts.
    """
    for answer in answers:
        known = questions.get(answer.question_id)
        if (
            known is not None
            and answer.question_text is not None
            and answer.question_text.strip() != known.text.strip()
        ):
            raise BadInput(
                f"question {answer.question_id} has two different texts",
                f"{answer.question_text[:50]!r} in {path}, {known.text[:50]!r} among the questions",
                "one text an id",
                "these are different questions: give them different ids",
            )
