"""Reads answers to score in any layout, one `<teacher>.jsonl` for each teacher. Writes their scores in the
SCAS authors' layout, `<teacher>_scas_scores.jsonl`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from cluster.models.messages import Conversation, Prompt, write_calls
from jobs.experiment.questions import Fields
from jobs.files.answers import Row, answer_text, body_of
from jobs.files.columns import (
    ANSWER_NAMES,
    QUESTION_NAMES,
    UnreadNames,
    id_of,
    teacher_of,
    with_one_rank,
)
from jobs.files.folders import listing, shard_of, teachers_of
from jobs.files.foreign import ForeignMarkers
from jobs.files.json_rows import OnBroken
from jobs.files.loaded import HUB, is_saved
from jobs.files.questions import question_id_of
from jobs.files.refusals import NO_ANSWER, NO_QUESTION, LeftOut, Missing, NotUnderstood, told_of
from jobs.files.rows import check_source, read_rows
from jobs.files.trajectories import WhichTurns, question_and_turns
from jobs.files.turns import Turns, refuse_skipped, turns_of

IN_THE_TEXT = ("input", "history")  # Alpaca's columns, which have become part of the instruction or the turns
# What files of questions and parts of data sets are named after. A teacher may have such a name all the same.
HARDLY_TEACHERS = {
    "questions",
    "prompts",
    "references",
    "train",
    "test",
    "dev",
    "validation",
    "eval",
    "evaluate",
}


@dataclass
class Answers:
    """Teachers' answers as files hold them.

    Attributes:
        rows: the rows of all teachers, in the files' order.
        sources: answer id -> the row it was read from.
        refused: rows that are not understood: teacher, row, reason.
        layouts: the number of answers in each layout.
        notes: further lines for the user: files that are not read, teachers that rows name, the first refused
            rows.
    """

    rows: list[Row] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    layouts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def in_order(self) -> list[Row]:
        """All rows, by question and then by answer."""
        return sorted(self.rows, key=lambda r: (r.question_id, r.answer_id))

    def __str__(self) -> str:
        teachers = len({row.teacher for row in self.rows})
        layouts = ", ".join(f"{n:,} as {name}" for name, n in self.layouts.most_common())
        told = f"{len(self.rows):,} answers of {teachers} teachers ({layouts})"
        return told + told_of(Counter(reason for _, _, reason in self.refused))


def read_teacher_files(
    where: str,
    on_broken: OnBroken = None,
    limit: int | None = None,
    which: WhichTurns = "last",
    answer: str | None = None,
) -> Answers:
    """Read every teacher's answers, in any layout. A row belongs to the teacher that it names. Other rows
    belong to the teacher after which the file or its folder is named. Several answers of a teacher to a
    question are its samples.

    Args:
        limit: the most questions, the first ones that appear, the same for all teachers. All rows are
            checked, also beyond it.
        which: the turns of the assistant that an answer is made of.
        answer: the column of the answers, if it has no usual name.

    Raises:
        BadInput: there is no file, or a file has no row with a question and an answer.
    """
    reading = Reading(Answers(), limit, which=which, fields=Fields(answer=answer))
    for source, name in sources_in(where, reading.found.notes):
        rows = read_rows(source, on_broken)
        left_out, named = reading.take_all(source, name, rows if answer else with_one_rank(rows, source))
        reading.found.notes += [*told_of_names(source, where, name, named), *left_out.first]
    return reading.done()


def told_of_names(source: str, where: str, name: str, named: Counter[str]) -> list[str]:
    """Notes on a file in a folder: its rows name other teachers than the file does, or it has no rows."""
    if not named:
        return [f"{source} holds no rows"]
    others = sorted(teacher for teacher in named if teacher != name)
    is_alone = source == where or not others
    return [] if is_alone else [f"{source}: its rows name {', '.join(others[:8])}, and win over its name"]


def sources_in(where: str, notes: list[str]) -> list[tuple[str, str]]:
    """The sources of answers at a place, each with the teacher that it is named after.

    Args:
        notes: gets a line about files that are not read.

    Raises:
        BadInput: there is nothing to read.
    """
    if where.startswith("~") and not Path(where).exists():
        where = str(Path(where).expanduser())
    folder = Path(where)
    if where.startswith(HUB) or not folder.is_dir() or is_saved(folder):
        check_source(where, "answers")
        name = Path(where.partition("?")[0]).name
        return [(where, shard_of(name) or Path(where).absolute().parent.name)]
    found = listing(folder)
    notes += [found.unread] if found.unread else []
    if not found.files:
        raise BadInput(
            "no teacher files there",
            f"{where}, with {', '.join(found.others[:8]) or 'nothing in it'}",
            "one <teacher>.jsonl per teacher",
            "check --answers",
        )
    sources = teachers_of(found)
    for file, teacher in sources if len(sources) > 1 else []:
        if teacher.lower() in HARDLY_TEACHERS:
            notes.append(
                f"{file} is read as the answers of a teacher {teacher}; keep it elsewhere if it is none"
            )
    return sources


@dataclass
class Reading:
    """Answers while their rows are read.

    Attributes:
        limit: the most questions whose answers are kept.
        is_numbered: the rows say in `sample` which of a teacher's answers to a question they are.
        texts: question id -> its turns, and the first file that had it.
    """

    found: Answers
    limit: int | None = None
    is_numbered: bool = False
    which: WhichTurns = "last"
    fields: Fields = field(default_factory=Fields)
    texts: dict[str, tuple[Prompt, str]] = field(default_factory=dict)
    samples: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: dict[str, int] = field(default_factory=dict)
    foreign: ForeignMarkers = field(default_factory=ForeignMarkers)
    unnamed: set[str] = field(default_factory=set)  # questions whose rows give no id

    def take_all(
        self, source: str, name: str, rows: Iterable[tuple[str, dict[str, Any]]]
    ) -> tuple[LeftOut, Counter[str]]:
        """Take the rows of one source; returns what was left out, and how many rows name each teacher.

        Args:
            name: the teacher of rows that name none.

        Raises:
            BadInput: none of the rows can be understood.
        """
        left_out, named, others = LeftOut(source), Counter[str](), UnreadNames()
        for place, row in rows:
            teacher = teacher_of(row) or name
            if teacher == name:
                others.see(row)
            named[teacher] += 1
            try:
                self.take(source, teacher, row)
                left_out.taken += 1
            except NotUnderstood as error:
                left_out.add(place, error, id_of(row))
                self.found.refused.append((teacher, row, str(error)))
        left_out.refuse_all()
        self.found.notes += others.lines(source)
        return left_out, named

    def take(self, source: str, teacher: str, row: dict[str, Any]) -> None:
        """Take one row.

        Raises:
            NotUnderstood: it has no question or no answer, or its id belongs to another question.
        """
        turns = turns_of(row, self.fields)
        asked, said = self._divided(row, turns)
        items = self._items(row, asked, said, teacher)
        question = items[0].question_id
        prompt, file = self.texts.setdefault(question, (asked, source))
        if body_of(prompt) != body_of(asked):
            raise AnotherText(question, file, source)
        self.samples[teacher, question] += 1
        if id_of(row) is None:
            self.unnamed.add(question)
        place = self.places.setdefault(question, len(self.places))
        if self.limit is None or place < self.limit:
            self.foreign.see(items[-1].answer)
            self.found.rows += items
            self.found.sources |= {item.answer_id: row for item in items}
            self.found.layouts[turns.layout] += 1

    def done(self) -> Answers:
        """The answers. A question without an id is the one question with an id that has the same turns."""
        self.found.notes += self.foreign.lines
        if not self.unnamed:
            return self.found
        named: dict[Any, list[str]] = {}
        for question, (prompt, _) in self.texts.items():
            if question not in self.unnamed:
                named.setdefault(body_of(prompt), []).append(question)
        known = {own: named.get(body_of(self.texts[own][0]), []) for own in self.unnamed}
        same = {own: ids[0] for own, ids in known.items() if len(ids) == 1}
        if same:
            self.found.rows = [
                replace(row, question_id=same.get(row.question_id, row.question_id))
                for row in self.found.rows
            ]
        return self.found

    def _divided(self, row: Mapping[str, Any], turns: Turns) -> tuple[Prompt, Conversation]:
        """A row's question, and the turns after it, of which the last one is the assistant's."""
        if turns.prompt is None:
            raise Missing(NO_QUESTION, row, " or ".join(QUESTION_NAMES), "name its column so")
        if self.which != "last":
            refuse_skipped(turns)
            asked, said = question_and_turns(turns.prompt, turns.answer, turns.said)
            if said:
                return asked, said
        if turns.answer is None:
            raise Missing(NO_ANSWER, row, " or ".join(ANSWER_NAMES), "name its column with --answer-field")
        return turns.prompt, (turns.answer,)

    def _items(self, row: Mapping[str, Any], asked: Prompt, said: Conversation, teacher: str) -> list[Row]:
        """The answers in a row: one, or one for each turn of the assistant."""
        identity = id_of(row) or question_id_of(asked)
        sample = row["sample"] if self.is_numbered else self.samples[teacher, identity]
        name = answer_name(teacher, identity, sample)
        if self.which != "each" or len(said) == 1:
            calls = write_calls(said[-1].tool_calls)
            return [Row(name, identity, teacher, asked, answer_text(said[-1]), calls, said[:-1])]
        places = [k for k, turn in enumerate(said) if turn.role == "assistant"]
        return [
            Row(
                f"{name}/turn {number}",
                identity,
                teacher,
                Prompt((*asked.turns, *said[:k]), asked.tools),
                answer_text(said[k]),
                write_calls(said[k].tool_calls),
                is_last=number == len(places),
            )
            for number, k in enumerate(places, start=1)
        ]


def answer_name(teacher: str, question: str, sample: object) -> str:
    """The id of an answer. Names that hold a slash themselves are written so that no two answers share one.

    >>> answer_name("ann", "q", 0), answer_name("a", "b/c", 0), answer_name("a/b", "c", 0)
    ('ann/q/0', 'a/b%2Fc/0', 'a%2Fb/c/0')
    """
    names = [
        n.replace("%", "%25").replace("/", "%2F") if "/" in n or "%2F" in n else n
        for n in (teacher, question)
    ]
    return "/".join([*names, str(sample)])


class AnotherText(NotUnderstood):
    """A question has the id of another question in an earlier file."""

    def __init__(self, identity: str, file: str, source: str) -> None:
        super().__init__(f"a question whose id has another text in {file}")
        self.told = (f"question {identity} has two different texts", f"in {file} and {source}")

    def stopping(self, where: str) -> BadInput:
        return BadInput(*self.told, "one text an id", "give them different ids")


def in_authors_words(item: Row, source: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the authors' columns added to its own. Its turns are added if they are more than one
    question.
    """
    source = {name: value for name, value in source.items() if name not in IN_THE_TEXT}
    row = {**source, "id": item.question_id, "instruction": item.prompt.text, "teacher_output": item.answer}
    if item.prompt.system is not None:
        row["system"] = item.prompt.system
    if not item.prompt.is_plain or item.calls or item.turns:
        row["messages"] = [*item.prompt.for_template(), *(turn.for_template() for turn in item.whole)]
        if item.prompt.tools:
            row["tools"] = item.prompt.tools
    return row


def state_of(reason: str) -> str:
    """The ledger's name for a row that was left out."""
    return "empty" if reason == NO_ANSWER else "not_understood"
