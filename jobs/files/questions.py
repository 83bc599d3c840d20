"""Questions in the user's own files: each a conversation up to the turn to be answered, with its references
and an id of its own.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from cluster.models.messages import Message, Prompt
from cluster.models.reasoning import with_reasoning
from cluster.models.repair import begun, whole_characters
from jobs.experiment.questions import Fields
from jobs.files.columns import (
    ID_NAMES,
    QUESTION_NAMES,
    REFERENCE_NAMES,
    as_text,
    first_filled,
    first_value,
    value_at,
)
from jobs.files.rows import OnBroken, read_rows
from jobs.files.turn import NotUnderstood
from jobs.files.turns import turns_of
from jobs.run.keys import question_key


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        references: right answers, of which one is enough; none where nobody knows.
        family: groups questions in reports; empty if the file has none.
        method: how its answers are checked; empty for the experiment's `verify.method`.
        row: the row it was read from as JSON text, where a check reads it.
        solution: worked, where the row has one and an arm shows it; part of no identity of the question.
    """

    id: str
    prompt: Prompt
    references: tuple[str, ...] = ()
    family: str = ""
    method: str = ""
    row: str = ""
    solution: str = ""

    @property
    def text(self) -> str:
        """What people are shown of it."""
        return self.prompt.text

    @property
    def reference(self) -> str:
        """The first reference; empty where there is none."""
        return self.references[0] if self.references else ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row of which no question of ours can be made, and why."""

    id: str
    reason: str


@dataclass
class ReadQuestions:
    """What a file held.

    Attributes:
        layouts: how many questions each layout gave.
        turns: questions of more than one turn, or with tools.
    """

    path: str
    questions: list[Question] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    layouts: Counter[str] = field(default_factory=Counter)
    turns: int = 0

    def __str__(self) -> str:
        layouts = ", ".join(f"{n:,} as {name}" for name, n in self.layouts.most_common())
        several = f", {self.turns:,} of them with several turns or tools" if self.turns else ""
        told = f"{self.path}: {len(self.questions):,} questions ({layouts}){several}"
        if not self.refused:
            return told
        reasons = Counter(r.reason for r in self.refused).most_common(3)
        why = "; ".join(f"{n:,} with {reason}" for reason, n in reasons)
        return f"{told}; {len(self.refused):,} refused: {why}"


def question_id_of(prompt: Prompt) -> str:
    """The id of a question that has none: a hash of its text, or of all its turns."""
    if prompt.is_plain and prompt.system is None:
        return hashlib.sha256(prompt.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return question_key(prompt).hex()


def read_questions(
    path: str | Path,
    fields: Fields,
    *,
    system: str | None = None,
    on_broken: OnBroken = None,
    need_reference: bool = True,
    keep_rows: bool = False,
) -> ReadQuestions:
    """Read questions, in the file's order.

    Args:
        system: for questions that have none of their own.
        keep_rows: keep each question's row, for a check that reads it.

    Raises:
        BadInput: a row without a question or reference, an id that comes twice, no question in the file that
            could be understood.
    """
    found = ReadQuestions(str(path))
    places: dict[str, int] = {}
    lines = array("q")
    for number, row in read_rows(path, on_broken):
        where = f"{found.path} line {number}"
        try:
            question, layout = _question_in(row, where, fields, system, need_reference)
        except NotUnderstood as error:
            given = first_value(row, fields.id, ID_NAMES)
            name = f"line {number}" if given is None else f"line {number}: {given}"
            found.refused.append(Refused(whole_characters(name), whole_characters(str(error))))
            continue
        if keep_rows:
            text = json.dumps(row, ensure_ascii=False, default=str, sort_keys=True)
            question = replace(question, row=text)
        first = places.setdefault(question.id, len(found.questions))
        if first < len(found.questions):
            raise _repeated(where, question, found.questions[first], lines[first])
        lines.append(number)
        found.questions.append(question)
        found.layouts[layout] += 1
        found.turns += not question.prompt.is_plain
    if not found.questions:
        why = found.refused[0].reason if found.refused else "0 rows"
        raise BadInput(f"{found.path} holds no questions", why, "at least one", "")
    return found


def _question_in(
    row: Mapping[str, Any], where: str, fields: Fields, system: str | None, need_reference: bool
) -> tuple[Question, str]:
    turns = turns_of(row, fields, answered=False)
    prompt = turns.prompt
    if prompt is None:
        raise BadInput(
            f"{where} has no question",
            ", ".join(row),
            " or ".join(QUESTION_NAMES),
            "name the column with fields.question",
        )
    own, prompt = prompt, prompt.told(system) if prompt.system is None else prompt
    references = _references_in(row, fields, turns.answer)
    if need_reference and not references:
        raise BadInput(
            f"{where} has no reference answer",
            ", ".join(row),
            " or ".join(REFERENCE_NAMES),
            "name the column with fields.reference",
        )
    given = first_value(row, fields.id, ID_NAMES)
    identity = question_id_of(own) if given is None else str(given)
    said = "".join([identity, *(turn.content for turn in prompt.turns)])
    if whole_characters(said) != said:  # no tokenizer takes it, and no file of ours holds it
        raise NotUnderstood("half of a character in its text or id")
    method = str(value_at(row, fields.method) or "") if fields.method else ""
    family = str(row.get("family") or row.get("task") or "")
    return Question(identity, prompt, references, family, method), turns.layout


def _references_in(row: Mapping[str, Any], fields: Fields, answer: Message | None) -> tuple[str, ...]:
    """The right answers that a row names: a value, a list of them, or the turn that answers its question.

    Raises:
        NotUnderstood: a reference that is an object, or a list of such.
    """
    given = first_filled(row, fields.reference, REFERENCE_NAMES)
    if given is None:
        if answer is None or answer.tool_calls:  # no check compares calls
            return ()
        return (with_reasoning(answer.reasoning, answer.content),)
    found = [as_text(value) for value in (given if isinstance(given, list | tuple) else [given])]
    if any(value is None for value in found):
        raise NotUnderstood("a reference that is neither a value nor a list of values")
    return tuple(begun(str(value)) for value in found if str(value).strip())


def _repeated(where: str, question: Question, earlier: Question, line: int) -> BadInput:
    same = "the same text" if question.prompt == earlier.prompt else "another text"
    return BadInput(
        f"{where} repeats an id",
        f"{question.id}, first seen at line {line} with {same}",
        "one question an id",
        "remove one",
    )


def take_rows(questions: list[Question], rows: str | None) -> list[Question]:
    """The questions in a slice of the file, `start:stop`, 0-based and end exclusive; all of them for None.

    >>> from cluster.models.messages import plain
    >>> [q.id for q in take_rows([Question(str(i), plain("q")) for i in range(5)], "1:3")]
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
