"""Reading the user's own files: questions and answers in the layouts of the field, with every defect named by
its line.

JSONL, JSON and Parquet; rows with plain columns (instruction, question, problem, prompt ... /
reference_answer, answer ...), with `messages` (OpenAI roles), `conversations` (ShareGPT) or `prompt` and
`completion` (TRL). Dotted paths reach into nested rows.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluster.errors import BadInput
from jobs.experiment.questions import Fields

QUESTION_NAMES = ("instruction", "question", "problem", "prompt", "input")
REFERENCE_NAMES = ("reference_answer", "reference", "ground_truth", "gold", "target", "answer", "output")
ANSWER_NAMES = ("teacher_output", "completion", "response", "solution", "answer", "output")
OnBroken = Callable[[str], None] | None
ID_NAMES = ("id", "question_id", "problem_id")


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `family` groups questions in reports ("" if the file has none)."""

    id: str
    text: str
    reference: str
    system: str | None = None
    family: str = ""


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


def question_id_of(text: str) -> str:
    """The id of a question that has none: a hash of its text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_rows(path: Path, on_broken: OnBroken = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based line or row number, row) of a JSONL, JSON or Parquet file.

    Raises:
        BadInput: no such file; a broken line, with its number, unless `on_broken` is given: it is told of
            each one left out.
    """
    if not path.is_file():
        raise BadInput("no such file", path, "a .jsonl, .json or .parquet file", "check the path")
    if path.suffix == ".parquet":
        for number, record in enumerate(pq.read_table(path).to_pylist(), 1):
            yield number, record
        return
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{path} is not JSON", error, "a list of rows", "") from error
        if not isinstance(content, list):
            raise BadInput(f"{path} holds no list", type(content).__name__, "a list of rows", "")
        for number, row in enumerate(content, 1):
            if not isinstance(row, dict):
                raise BadInput(
                    f"{path} row {number} is not an object",
                    type(row).__name__,
                    "an object with named fields",
                    "",
                )
            yield number, row
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
                if not isinstance(row, dict):
                    raise ValueError(f"a {type(row).__name__}, not an object")
            except ValueError as error:
                if on_broken is not None:
                    on_broken(f"left out {path} line {number}: {str(error)[:120]}")
                    continue
                raise BadInput(
                    f"{path} line {number} is broken",
                    str(error)[:120],
                    "one JSON object a line, in UTF-8",
                    "mend the line, or set skip_broken_lines to keep the rest",
                ) from error
            yield number, row


def _at(row: Mapping[str, Any], dotted: str) -> Any:
    value: Any = row
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _first(row: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> Any:
    if named is not None:
        return _at(row, named)
    return next((row[name] for name in usual if row.get(name) is not None), None)


def _turn(row: Mapping[str, Any], role: str) -> str | None:
    """The first text of a role in `messages` or `conversations`, or in a conversational `prompt` or
    `completion`.
    """
    shares = {"user": ("user", "human"), "assistant": ("assistant", "gpt"), "system": ("system",)}[role]
    for key in ("messages", "conversations", "prompt", "completion"):
        turns = row.get(key)
        if isinstance(turns, list):
            for turn in turns:
                if turn.get("role", turn.get("from")) in shares:
                    return str(turn.get("content", turn.get("value", "")))
    return None


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, list | dict) else str(value)


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
        text = _text(_first(row, fields.question, QUESTION_NAMES)) or _turn(row, "user")
        reference = _text(_first(row, fields.reference, REFERENCE_NAMES)) or _turn(row, "assistant")
        where = f"{path} line {number}"
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
        given = _first(row, fields.id, ID_NAMES)
        identity = question_id_of(text) if given is None else str(given)
        if identity in places:
            same = "the same text" if text == questions[places[identity]].text else "another text"
            raise BadInput(
                f"{where} repeats an id",
                f"{identity}, first seen at line {lines[places[identity]]} with {same}",
                "one question an id",
                "remove one",
            )
        places[identity] = len(questions)
        lines.append(number)
        own_system = _text(_first(row, fields.system, ("system",))) or _turn(row, "system") or system
        questions.append(
            Question(
                identity, text, reference or "", own_system, str(row.get("family") or row.get("task") or "")
            )
        )
    if not questions:
        raise BadInput(f"{path} holds no questions", "0 rows", "at least one", "")
    return questions


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


def read_answers(path: Path, fields: Fields, on_broken: OnBroken = None) -> list[FoundAnswer]:
    """Read a teacher's answers; several rows for one question are its samples, in the file's order."""
    answers: list[FoundAnswer] = []
    counts: dict[str, int] = {}
    for number, row in read_rows(path, on_broken):
        text = _text(_first(row, fields.answer, ANSWER_NAMES))
        text = _turn(row, "assistant") if text is None else text
        question = _text(_first(row, fields.question, QUESTION_NAMES)) or _turn(row, "user")
        identity = _first(row, fields.id, ID_NAMES)
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
                _text(_first(row, fields.system, ("system",))) or _turn(row, "system"),
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
        _text(_first(row, answer, ANSWER_NAMES))
        if answer
        else _text(_first(row, None, ANSWER_NAMES)) or _turn(row, "assistant")
    )
    gold = _text(_first(row, reference, REFERENCE_NAMES))
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
