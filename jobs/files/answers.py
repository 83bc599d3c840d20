"""Answers in the user's own files: a teacher's samples, and rows that hold an answer and its reference."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from cluster.models.messages import Conversation, Message, Prompt, read_calls, write_calls, write_turns
from cluster.models.reasoning import split_reasoning, with_reasoning
from cluster.models.repair import begun
from jobs.experiment.questions import Fields
from jobs.files.columns import (
    ANSWER_NAMES,
    ID_NAMES,
    REFERENCE_NAMES,
    TEACHER_NAMES,
    Named,
    UnreadNames,
    first_value,
    id_of,
    teacher_of,
    with_one_rank,
)
from jobs.files.foreign import ForeignMarkers
from jobs.files.json_rows import OnBroken
from jobs.files.questions import question_id_of
from jobs.files.refusals import NO_ANSWER, NO_REFERENCE, LeftOut, Missing, NotUnderstood, told_of
from jobs.files.rows import read_rows, unread_in
from jobs.files.trajectories import WhichTurns, question_and_turns
from jobs.files.turn import is_cut_off
from jobs.files.turns import COLUMNS, refuse_skipped, turns_of
from jobs.files.values import as_text, is_nothing

USUAL = Fields()


@dataclass(frozen=True)
class FoundAnswer:
    """One answer read from a file, before its question has been looked up in the run.

    Attributes:
        prompt: its question. None if the row only names an id.
        text: the answer's text, with its reasoning in think tags.
        calls: its tool calls as JSON text.
        turns: of an answer of many turns, those before its last one, as JSON text.
        problem: why the row is not understood. Empty if it is.
        is_cut: whether the row says that the answer was cut off.
    """

    question_id: str
    prompt: Prompt | None
    text: str
    calls: str = ""
    sample: int = 0
    problem: str = ""
    turns: str = ""
    is_cut: bool = False


@dataclass(frozen=True)
class Row:
    """One answer to score.

    Attributes:
        answer, calls: text and tool calls of its last turn.
        turns: of an answer of many turns, those before its last one.
        is_last: whether it ends its row. False for a turn that is an answer of its own, and not the last.
    """

    answer_id: str
    question_id: str
    teacher: str
    prompt: Prompt
    answer: str
    calls: str = ""
    turns: Conversation = ()
    is_last: bool = True

    @property
    def whole(self) -> Conversation:
        """All turns after the question."""
        return (*self.turns, answer_turn(self.answer, self.calls))


@dataclass
class ReadAnswers:
    """The content of a teacher's file.

    Attributes:
        answers: the answers, if they are kept in memory.
        count: the number of answers. `refused` counts the rows that are not understood, by reason.
        layouts: the number of answers in each layout.
        teachers: the teachers that rows name, with the number of rows.
        notes: further lines for the user: files that are not read, and the first refused rows.
    """

    path: str
    answers: list[FoundAnswer] = field(default_factory=list)
    count: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list, compare=False)

    def __str__(self) -> str:
        layouts = ", ".join(f"{n:,} as {name}" for name, n in self.layouts.most_common())
        taken = self.count - self.refused.total()
        return f"{self.path}: {taken:,} answers ({layouts}){told_of(self.refused)}"


def answer_text(answer: Message) -> str:
    """An answer as one text, its reasoning in think tags."""
    return with_reasoning(answer.reasoning, answer.content)


def answer_turn(text: str, calls: str = "") -> Message:
    """An answer as a turn: the inverse of `answer_text` and `write_calls`."""
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
    """Read a teacher's answers one by one. Several rows for one question are its samples, in the file's
    order.

    Args:
        told: names the file, and gets the counts of its content.
        rows_of: take only the rows that name this teacher.

    Raises:
        BadInput: no row has an answer, or no row names a question; or the rows are of several teachers and
            `rows_of` is not set.
    """
    for _, answer in each_answer_of(told.path, fields, on_broken, {rows_of: told}):
        yield answer


def each_answer_of(
    path: str,
    fields: Fields,
    on_broken: OnBroken,
    told: Mapping[str | None, ReadAnswers],
    check: Callable[[FoundAnswer], None] = lambda answer: None,
    which: WhichTurns = "last",
) -> Iterator[tuple[str | None, FoundAnswer]]:
    """The answers of several teachers in one file, which is read once for all of them; see `each_answer`.

    Args:
        told: by the names of the teachers whose rows are taken. None takes all rows, and must be the only
            key.
        check: raises `NotUnderstood` for an answer that cannot be used.
        which: the turns of the assistant that an answer is made of; not `each`.
    """
    counts: dict[str | None, Counter[str]] = {name: Counter() for name in told}
    left_out = {name: LeftOut(path) for name in told}
    teachers: Counter[str] = Counter()
    foreign = {name: ForeignMarkers() for name in told}
    is_anybody, is_usual = None in told, fields == USUAL
    rows = read_rows(path, on_broken)
    others = UnreadNames()
    named = Named({f"fields.{name}": getattr(fields, name) for name in ("id", "system", "teacher", "method")})
    for place, row in rows if fields.answer is not None else with_one_rank(rows, path):
        named.see(row)
        teacher = teacher_of(row, fields.teacher)
        if teacher is not None:
            teachers[teacher] += 1
        else:
            others.see(row)
        whose = None if is_anybody else teacher
        if whose not in told:
            continue
        own, plain = told[whose], plain_answer(row, counts[whose]) if is_usual else None
        answer, layout, why = plain or _answer_in(row, fields, place, counts[whose], which)
        try:
            check(answer)
        except NotUnderstood as error:
            why = why or error
        own.count += 1
        if why is None:
            foreign[whose].see(answer.text)
            own.layouts[layout] += 1
            yield whose, answer
        else:
            own.refused[str(why)] += 1
            left_out[whose].add(place, why, answer.question_id)
            yield whose, replace(answer, problem=str(why))
    unread = unread_in(path)
    named.refuse_absent(path)
    for name, own in told.items():
        own.teachers = teachers
        own.notes += [*([unread] if unread else []), *left_out[name].first, *foreign[name].lines]
        own.notes += others.lines(path)
        left_out[name].taken = own.count - own.refused.total()
        left_out[name].refuse_all()
    _refuse_teachers(path, teachers, told)


def _refuse_teachers(path: str, teachers: Counter[str], told: Mapping[str | None, ReadAnswers]) -> None:
    """Refuse a file of several teachers if `rows_of` is not set, or one without rows of that teacher.

    Raises:
        BadInput: names the teachers that have rows.
    """
    known = ", ".join(sorted(teachers)[:8])
    for name, own in told.items():
        if name is not None and not own.count:
            raise BadInput(
                f"{path} has no row of {name}",
                known or "rows without a teacher's name",
                "rows_of: one of them",
                "",
            )
    if None in told and len(teachers) > 1:
        raise BadInput(
            f"{path} holds answers of several teachers",
            known,
            "the name of the teacher to read",
            "set the teacher's rows_of to one of them",
        )


@lru_cache(maxsize=64)
def plain_names(names: tuple[str, ...]) -> tuple[str, str] | None:
    """The columns of id and answer, if rows have no other columns except a teacher's name.

    >>> plain_names(("teacher", "id", "response")), plain_names(("id", "response", "think"))
    (('id', 'response'), None)
    """
    ids, answers = ([name for name in names if name in usual] for usual in (ID_NAMES, ANSWER_NAMES))
    others = [name for name in names if name in TEACHER_NAMES]
    whole = len(ids) == len(answers) == 1 and len(others) <= 1 and len(names) == 2 + len(others)
    return (ids[0], answers[0]) if whole else None


def plain_answer(row: Mapping[str, Any], counts: Counter[str]) -> tuple[FoundAnswer, str, None] | None:
    """The same as `_answer_in` for a row that holds only an id and a text. None for any other row. It halves
    the time for files of millions of such rows.
    """
    found = plain_names(tuple(row))
    if found is None:
        return None
    key, text = row[found[0]], row[found[1]]
    if (
        type(key) is not str
        or type(text) is not str
        or not key
        or key.isspace()
        or not text
        or text.isspace()
    ):
        return None
    counts[key] += 1
    return FoundAnswer(key, None, begun(text), "", counts[key] - 1), COLUMNS, None


def _answer_in(
    row: Mapping[str, Any], fields: Fields, place: str, counts: Counter[str], which: WhichTurns
) -> tuple[FoundAnswer, str, NotUnderstood | None]:
    """One row's answer, its layout, and why it is missing or not understood."""
    identity, prompt, why = id_of(row, fields.id), None, None
    layout = said = calls = before = ""
    try:
        turns = turns_of(row, fields)
        prompt, layout = turns.prompt, turns.layout
        if which == "all" and prompt is not None:
            refuse_skipped(turns)
            prompt, every = question_and_turns(prompt, turns.answer, turns.said)
            before = write_turns(every[:-1])
        if identity is None and prompt is None:
            expected, remedy = "an id or the question's text", "name it with fields.id"
            raise Missing("neither an id nor a question", row, expected, remedy, "names no question")
        if turns.answer is None:
            remedy = "name the column with fields.answer"
            raise Missing(NO_ANSWER, row, " or ".join(ANSWER_NAMES), remedy)
        said, calls = answer_text(turns.answer), write_calls(turns.answer.tool_calls)
    except NotUnderstood as error:
        why = error
    key = identity or (place if prompt is None else question_id_of(prompt))
    counts[key] += 1
    found = FoundAnswer(key, prompt, said, calls, counts[key] - 1, turns=before, is_cut=is_cut_off(row))
    return found, layout, why


def answer_and_references(
    row: Mapping[str, Any], answer: str | None, reference: str | None
) -> tuple[str, tuple[str, ...]]:
    """The answer and the references of one row that holds both.

    Args:
        answer, reference: the columns, if the user named them.

    Raises:
        NotUnderstood: one of them is missing or not understood.
    """
    # a column that the user named is not the other one too
    is_taken = reference is not None and answer is None
    others = {name: value for name, value in row.items() if name != reference} if is_taken else row
    turns = turns_of(others, Fields(answer=answer), is_learnt=False)
    if turns.answer is None:
        raise Missing(NO_ANSWER, row, " or ".join(ANSWER_NAMES), "name it with --answer-field")
    names = [name for name in REFERENCE_NAMES if name != answer]
    gold = first_value(row, reference, names)
    golds = [as_text(g) for g in (gold if isinstance(gold, list) else [gold]) if not is_nothing(g)]
    if answer is None and reference is None:
        of_answer = next((n for n in ANSWER_NAMES if not is_nothing(row.get(n))), "")
        of_reference = next((n for n in names if not is_nothing(row.get(n))), "")
        if of_answer and of_answer == of_reference and _answered_by(row, of_answer):
            remedy = "name them with --answer-field and --reference-field"
            raise Missing("its reference for an answer", {of_answer: ""}, "two columns", remedy)
    found = turns.answer
    if not golds:
        raise Missing(NO_REFERENCE, row, " or ".join(REFERENCE_NAMES), "name it with --reference-field")
    if None in golds:
        raise NotUnderstood("a reference that is neither a value nor a list of values")
    return answer_text(found), tuple(begun(g) for g in golds if g is not None)


def _answered_by(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has no answer without this column."""
    try:
        rest = {key: value for key, value in row.items() if key != name}
        return turns_of(rest, Fields(), is_learnt=False).answer is None
    except NotUnderstood:
        return True


def body_of(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """The turns of a prompt without the system turn, with their calls. A row without an id finds its question
    by them, if only one question has them.
    """
    return tuple(
        (turn.role, turn.content.strip() + write_calls(turn.tool_calls))
        for turn in prompt.turns
        if turn.role != "system"
    )
