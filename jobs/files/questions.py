"""Questions in the user's own files. Each is a conversation up to the turn to be answered, with its
references and an id.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from cluster.models.messages import Message, Prompt
from cluster.models.reasoning import with_reasoning
from cluster.models.repair import begun
from jobs.experiment.questions import Fields
from jobs.files.agents import in_messages
from jobs.files.columns import (
    QUESTION_NAMES,
    REFERENCE_NAMES,
    Named,
    first_value,
    id_of,
    name_in,
    value_at,
)
from jobs.files.json_rows import OnBroken
from jobs.files.refusals import NO_QUESTION, NO_REFERENCE, LeftOut, Missing, NotUnderstood, told_of
from jobs.files.rows import read_rows, unread_in
from jobs.files.turns import refuse_marked, turns_of
from jobs.files.values import as_text, is_nothing
from jobs.run.keys import question_key


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        references: right answers, of which one is enough. Empty if they are unknown.
        family: groups questions in reports; empty if the file has none.
        method: how its answers are checked. Empty for the experiment's `verify.method`.
        row: the row that it was read from, as JSON text, if a check needs it.
        solution: a worked solution, if the row has one and an arm shows it. The question's identity does not
            depend on it.
        cluster: what it has in common with other questions; empty if it is independent of them.
    """

    id: str
    prompt: Prompt
    references: tuple[str, ...] = ()
    family: str = ""
    method: str = ""
    row: str = ""
    solution: str = ""
    cluster: str = ""

    @property
    def text(self) -> str:
        """The text that is shown to users."""
        return self.prompt.text

    @property
    def reference(self) -> str:
        """The first reference. Empty if there is none."""
        return self.references[0] if self.references else ""


NAMED_ALONE = ("id", "system", "method", "cluster")  # a column of these that no row has is told here
DUPLICATE = "duplicate"  # the state of a row that repeats an earlier one


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that could not be read as a question, and why.

    Attributes:
        state: its state in the ledger.
    """

    id: str
    reason: str
    state: str = "not_understood"


@dataclass
class ReadQuestions:
    """The content of a file of questions.

    Attributes:
        layouts: the number of questions in each layout.
        turns: the number of questions with more than one turn, or with tools.
        notes: further lines for the user: files that are not read, and the first refused rows.
    """

    path: str
    questions: list[Question] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    layouts: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    notes: list[str] = field(default_factory=list, compare=False)

    def __str__(self) -> str:
        layouts = ", ".join(f"{n:,} as {name}" for name, n in self.layouts.most_common())
        several = f", {self.turns:,} of them with several turns or tools" if self.turns else ""
        told = f"{self.path}: {len(self.questions):,} questions ({layouts}){several}"
        again = sum(r.state == DUPLICATE for r in self.refused)
        told += f", {again:,} more that repeat one of them" if again else ""
        return told + told_of(Counter(r.reason for r in self.refused if r.state != DUPLICATE))


def question_id_of(prompt: Prompt) -> str:
    """The id of a question without one: a hash of its text, or of all its turns."""
    if prompt.is_plain and prompt.system is None:
        return hashlib.sha256(prompt.text.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return question_key(prompt).hex()


def read_questions(
    path: str | Path,
    fields: Fields,
    *,
    system: str | None = None,
    on_broken: OnBroken = None,
    need_reference: bool = True,
    keep_rows: bool = False,
    to_learn: bool = False,
    check: Callable[[Question], None] = lambda question: None,
) -> ReadQuestions:
    """Read questions, in the file's order. A defective row is left out. Rows with the same content are one
    question. If an id has several texts, all its rows are left out.

    Args:
        system: the system text of questions without their own.
        keep_rows: keep each question's row, for a check that reads it.
        to_learn: refuse rows that are marked as not to be learnt.
        check: raises `NotUnderstood` for a question that cannot be used.

    Raises:
        BadInput: no row of the file is understood as a question.
    """
    found = ReadQuestions(str(path), notes=[note for note in [unread_in(str(path))] if note])
    reading = Reading(found, LeftOut(found.path))
    named = Named({f"fields.{name}": getattr(fields, name) for name in NAMED_ALONE})
    for place, row in read_rows(path, on_broken):
        named.see(row)
        try:
            if to_learn:
                refuse_marked(row if fields.question else in_messages(row)[1])
            question, layout = _question_in(row, fields, system, need_reference)
            check(question)
        except NotUnderstood as error:
            reading.refuse(place, id_of(row, fields.id), error)
            continue
        if keep_rows:
            text = json.dumps(row, ensure_ascii=False, default=str, sort_keys=True)
            question = replace(question, row=text)
        reading.take(place, question, layout)
    found = reading.done()
    named.refuse_absent(found.path)
    return found


@dataclass
class Reading:
    """Questions while their file is read.

    Attributes:
        places: id -> position among the questions. `rows` has their positions in the file.
        torn: ids with several texts.
    """

    found: ReadQuestions
    left_out: LeftOut
    places: dict[str, int] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    torn: set[str] = field(default_factory=set)

    def refuse(self, place: str, name: str | None, why: NotUnderstood, state: str = "not_understood") -> None:
        """Leave a row out."""
        identity = place if name is None else f"{place}: {name}"
        self.found.refused.append(Refused(identity, str(why), state))
        self.left_out.add(place, why, name)

    def take(self, place: str, question: Question, layout: str) -> None:
        """Take a question, unless its id is already used."""
        first = self.places.setdefault(question.id, len(self.found.questions))
        if first == len(self.found.questions):
            self.rows.append(place)
            self.layouts.append(layout)
            self.found.questions.append(question)
            return
        earlier = self.found.questions[first]
        if question.prompt != earlier.prompt:
            self.torn.add(question.id)
            self.refuse(place, question.id, SeveralTexts(question.id, self.rows[first]))
        elif question.references != earlier.references or question.method != earlier.method:
            why = "a question that an earlier row has with another reference"
            self.refuse(place, question.id, NotUnderstood(why))
        else:
            same = NotUnderstood("a question that an earlier row has too")
            self.refuse(place, question.id, same, DUPLICATE)

    def done(self) -> ReadQuestions:
        """The file's questions, without those whose ids have several texts."""
        for identity in sorted(self.torn, key=self.places.__getitem__):
            self.refuse(self.rows[self.places[identity]], identity, SeveralTexts(identity, ""))
        kept = [n for n, question in enumerate(self.found.questions) if question.id not in self.torn]
        self.found.questions = [self.found.questions[n] for n in kept]
        self.found.layouts.update(self.layouts[n] for n in kept)
        self.found.turns = sum(not question.prompt.is_plain for question in self.found.questions)
        self.found.notes += self.left_out.first
        self.left_out.taken = len(kept)
        self.left_out.refuse_all()
        if not kept:
            raise BadInput(f"{self.found.path} holds no questions", "0 rows", "at least one", "")
        return self.found


class SeveralTexts(NotUnderstood):
    """An id belongs to several questions."""

    def __init__(self, identity: str, first: str) -> None:
        super().__init__("an id that has several texts")
        self.identity, self.first = identity, first

    def stopping(self, where: str) -> BadInput:
        return BadInput(
            f"{where} repeats an id",
            f"{self.identity}, first seen at {self.first} with another text",
            "one question an id",
            "give them different ids",
        )


def _question_in(
    row: Mapping[str, Any], fields: Fields, system: str | None, need_reference: bool
) -> tuple[Question, str]:
    turns = turns_of(row, fields, answered=False)
    prompt = turns.prompt
    if prompt is None:
        remedy = "name the column with fields.question"
        raise Missing(NO_QUESTION, row, " or ".join(QUESTION_NAMES), remedy)
    own, prompt = prompt, prompt.told(system) if prompt.system is None else prompt
    references = _references_in(row, fields, turns.answer)
    if need_reference and not references:
        remedy = "name the column with fields.reference"
        raise Missing(NO_REFERENCE, row, " or ".join(REFERENCE_NAMES), remedy)
    identity = id_of(row, fields.id) or question_id_of(own)
    method = str(value_at(row, fields.method) or "") if fields.method else ""
    family = name_in(row, None, ("family", "task")) or ""
    cluster = name_in(row, fields.cluster, ()) or "" if fields.cluster else ""
    return Question(identity, prompt, references, family, method, cluster=cluster), turns.layout


def _references_in(row: Mapping[str, Any], fields: Fields, answer: Message | None) -> tuple[str, ...]:
    """The right answers of a row: a value, a list of values, or the turn that answers its question.

    Raises:
        NotUnderstood: the reference is an object, or a list of objects.
    """
    given = first_value(row, fields.reference, REFERENCE_NAMES)
    if given is None:
        if answer is None or answer.tool_calls:  # no check compares tool calls
            return ()
        return (with_reasoning(answer.reasoning, answer.content),)
    values = [value for value in (given if isinstance(given, list) else [given]) if not is_nothing(value)]
    found = [as_text(value) for value in values]
    if None in found:
        raise NotUnderstood("a reference that is neither a value nor a list of values")
    return tuple(begun(text) for text in found if text is not None)


def rows_of(count: int, rows: str | None) -> int:
    """How many of a file's questions are in a slice `start:stop`.

    >>> rows_of(300, "0:100"), rows_of(300, "250:"), rows_of(300, None)
    (100, 50, 300)
    """
    return count if rows is None else len(range(count)[_slice(rows)])


def _slice(rows: str) -> slice:
    start, _, stop = rows.partition(":")
    return slice(int(start or 0), int(stop) if stop else None)


def take_rows(questions: list[Question], rows: str | None) -> list[Question]:
    """The questions in a slice `start:stop` of the file, 0-based and end exclusive. None takes all.

    >>> from cluster.models.messages import plain
    >>> [q.id for q in take_rows([Question(str(i), plain("q")) for i in range(5)], "1:3")]
    ['1', '2']
    """
    if rows is None:
        return questions
    taken = questions[_slice(rows)]
    if not taken:
        raise BadInput(
            "a slice of the questions is empty",
            rows,
            f"within 0:{len(questions)}",
            "change train_rows or evaluate_rows",
        )
    return taken
