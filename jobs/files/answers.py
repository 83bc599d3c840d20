"""Answers in the user's own files: a teacher's samples, and rows that hold an answer and its reference."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from cluster.models.messages import Message, Prompt, read_calls, write_calls
from cluster.models.reasoning import split_reasoning, with_reasoning
from cluster.models.repair import begun
from jobs.experiment.questions import Fields
from jobs.files.columns import (
    ANSWER_NAMES,
    ID_NAMES,
    REFERENCE_NAMES,
    TEACHER_NAMES,
    as_text,
    first_filled,
    first_value,
)
from jobs.files.questions import question_id_of
from jobs.files.rows import OnBroken, read_rows
from jobs.files.turn import NotUnderstood
from jobs.files.turns import COLUMNS, turns_of

USUAL = Fields()


@dataclass(frozen=True)
class FoundAnswer:
    """One answer read from a file, before it is known whether its question is ours.

    Attributes:
        prompt: its question; None where the row names an id alone.
        text: with its reasoning in think tags.
        calls: JSON text of its tool calls.
        problem: why it cannot be understood; empty where it can.
    """

    question_id: str
    prompt: Prompt | None
    text: str
    calls: str = ""
    sample: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Row:
    """One answer to score."""

    answer_id: str
    question_id: str
    teacher: str
    prompt: Prompt
    answer: str
    calls: str = ""


@dataclass
class ReadAnswers:
    """What a teacher's file held.

    Attributes:
        answers: where they are kept.
        count: how many answers; `refused` counts those that cannot be understood, by reason.
        layouts: how many answers each layout gave.
        teachers: whom the rows name, where they do.
    """

    path: str
    answers: list[FoundAnswer] = field(default_factory=list)
    count: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        layouts = ", ".join(f"{n:,} as {name}" for name, n in self.layouts.most_common())
        refused = self.refused.total()
        told = f"{self.path}: {self.count - refused:,} answers ({layouts})"
        if not refused:
            return told
        why = "; ".join(f"{n:,} with {reason}" for reason, n in self.refused.most_common(3))
        return f"{told}; {refused:,} refused: {why}"


def answer_text(answer: Message) -> str:
    """An answer as one text, its reasoning in think tags."""
    return with_reasoning(answer.reasoning, answer.content)


def answer_turn(text: str, calls: str = "") -> Message:
    """The turn that an answer is: what `answer_text` and `write_calls` were made of."""
    reasoning, content = split_reasoning(text)
    return Message("assistant", content, reasoning, read_calls(calls))


def read_answers(
    path: str | Path, fields: Fields, on_broken: OnBroken = None, *, rows_of: str | None = None
) -> ReadAnswers:
    """Read a teacher's answers, all of them into memory; see `each_answer`."""
    found = ReadAnswers(str(path))
    found.answers.extend(each_answer(found, fields, on_broken, rows_of=rows_of))
    return found


def each_answer(
    told: ReadAnswers, fields: Fields, on_broken: OnBroken = None, *, rows_of: str | None = None
) -> Iterator[FoundAnswer]:
    """A teacher's answers; several rows for one question are its samples, in the file's order.

    Args:
        told: of which file; gets what it held.
        rows_of: take only the rows that name this teacher.

    Raises:
        BadInput: a row without an answer, or that names no question; rows of several teachers, and nobody
            said whose to take.
    """
    for _, answer in each_answer_of(told.path, fields, on_broken, {rows_of: told}):
        yield answer


def each_answer_of(
    path: str, fields: Fields, on_broken: OnBroken, told: Mapping[str | None, ReadAnswers]
) -> Iterator[tuple[str | None, FoundAnswer]]:
    """The answers of teachers whose rows are in one file, read once for all of them; see `each_answer`.

    Args:
        told: by the names of those whose rows are taken; None takes the rows of anybody, and is alone.
    """
    counts: dict[str | None, Counter[str]] = {name: Counter() for name in told}
    teachers: Counter[str] = Counter()
    is_anybody, is_usual = None in told, fields == USUAL
    for number, row in read_rows(path, on_broken):
        teacher = first_value(row, fields.teacher, TEACHER_NAMES)
        if teacher is not None:
            teachers[str(teacher)] += 1
        whose = None if is_anybody else str(teacher)
        if whose not in told:
            continue
        plain = plain_answer(row, counts[whose]) if is_usual else None
        answer, layout = plain or _answer_in(row, f"{path} line {number}", fields, number, counts[whose])
        own = told[whose]
        own.count += 1
        if answer.problem:
            own.refused[answer.problem] += 1
        else:
            own.layouts[layout] += 1
        yield whose, answer
    known = ", ".join(sorted(teachers)[:8])
    for name, own in told.items():
        own.teachers = teachers
        if name is not None and not own.count:
            raise BadInput(f"{path} has no row of {name}", known or "nobody", "rows_of: one of them", "")
    if is_anybody and len(teachers) > 1:
        raise BadInput(
            f"{path} holds answers of several teachers",
            known,
            "whose rows to take",
            "set the teacher's rows_of to one of them",
        )


@lru_cache(maxsize=64)
def plain_names(names: tuple[str, ...]) -> tuple[str, str] | None:
    """The columns of id and answer, in rows that have these columns and whose teacher at most.

    >>> plain_names(("teacher", "id", "response")), plain_names(("id", "response", "think"))
    (('id', 'response'), None)
    """
    ids, answers = ([name for name in names if name in usual] for usual in (ID_NAMES, ANSWER_NAMES))
    others = [name for name in names if name in TEACHER_NAMES]
    whole = len(ids) == len(answers) == 1 and len(others) <= 1 and len(names) == 2 + len(others)
    return (ids[0], answers[0]) if whole else None


def plain_answer(row: Mapping[str, Any], counts: Counter[str]) -> tuple[FoundAnswer, str] | None:
    """What `_answer_in` makes of a row that holds an id and a text alone; None for any other row. Files of
    millions of such rows are read in half the time.
    """
    found = plain_names(tuple(row))
    if found is None:
        return None
    key, text = row[found[0]], row[found[1]]
    if type(key) is not str or type(text) is not str:
        return None
    counts[key] += 1
    return FoundAnswer(key, None, begun(text), "", counts[key] - 1), COLUMNS


def _answer_in(
    row: Mapping[str, Any], where: str, fields: Fields, number: int, counts: Counter[str]
) -> tuple[FoundAnswer, str]:
    """One row's answer and its layout; what cannot be understood is an answer with a problem."""
    identity = first_value(row, fields.id, ID_NAMES)
    try:
        turns = turns_of(row, fields)
    except NotUnderstood as error:
        key = f"line {number}" if identity is None else str(identity)
        counts[key] += 1
        return FoundAnswer(key, None, "", "", counts[key] - 1, str(error)), ""
    if identity is None and turns.prompt is None:
        raise BadInput(
            f"{where} names no question",
            ", ".join(row),
            "an id or the question's text",
            "name it with fields.id",
        )
    if turns.answer is None:
        raise BadInput(
            f"{where} has no answer",
            ", ".join(row),
            " or ".join(ANSWER_NAMES),
            "name the column with fields.answer",
        )
    key = str(identity) if turns.prompt is None or identity is not None else question_id_of(turns.prompt)
    counts[key] += 1
    calls = write_calls(turns.answer.tool_calls)
    found = FoundAnswer(key, turns.prompt, answer_text(turns.answer), calls, counts[key] - 1)
    return found, turns.layout


def answer_and_reference(
    row: Mapping[str, Any], where: str, answer: str | None, reference: str | None
) -> tuple[str, tuple[str, ...]]:
    """The answer and the references of one row that holds both.

    Raises:
        BadInput: one of them is missing, or cannot be understood.
    """
    fields = Fields(answer=answer)
    try:
        found = turns_of(row, fields).answer
    except NotUnderstood as error:
        raise BadInput(f"{where} cannot be understood", error, "an answer and its reference", "") from error
    gold = first_filled(row, reference, REFERENCE_NAMES)
    golds = [as_text(g) for g in (gold if isinstance(gold, list | tuple) else [gold])]
    both = {next((n for n in names if row.get(n)), "") for names in (ANSWER_NAMES, REFERENCE_NAMES)}
    if answer is None and reference is None and len(both) == 1 and both != {""}:
        raise BadInput(
            f"{where} has its reference for an answer",
            both.pop(),
            "two columns",
            "name them with --answer-field and --reference-field",
        )
    if found is None:
        raise BadInput(
            f"{where} has no answer", ", ".join(row), " or ".join(ANSWER_NAMES), "name it with --answer-field"
        )
    if not golds or any(g is None for g in golds):
        raise BadInput(
            f"{where} has no reference",
            ", ".join(row),
            " or ".join(REFERENCE_NAMES),
            "name it with --reference-field",
        )
    return answer_text(found), tuple(begun(str(g)) for g in golds)


def body_of(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """The turns of a prompt but the system's, with their calls: by these a row without an id finds its
    question, if only one has them.
    """
    return tuple(
        (turn.role, turn.content.strip() + write_calls(turn.tool_calls))
        for turn in prompt.turns
        if turn.role != "system"
    )
