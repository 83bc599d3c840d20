"""Reads a row of any layout as a conversation: the turns up to the one to be answered, and the answer if the
row has one.

Layouts: `messages` (OpenAI), `conversations` (ShareGPT, LLaMA-Factory's tools included), `prompt` and
`completion` (TRL; texts or turns), Alpaca (`instruction`, `input`, `output`, `history`), plain columns, and
those of agents and other providers (`jobs/files/agents.py`).
Anything else in a row is refused by name. Nothing is cut, joined or flattened silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.models.messages import Conversation, Message, Prompt
from cluster.models.repair import begun
from jobs.experiment.questions import Fields
from jobs.files.agents import in_messages
from jobs.files.beside import refuse_beside
from jobs.files.columns import (
    ANSWER_RANKS,
    QUESTION_NAMES,
    Ambiguous,
    value_at,
)
from jobs.files.openai_turns import are_objects
from jobs.files.refusals import NotUnderstood
from jobs.files.turn import MARKS as MARKS_OF_TURNS
from jobs.files.turn import (
    calls_of,
    kept_in,
    marked_in,
    reasoning_of,
    refuse_not_text,
    refuse_unlearned,
    says_as,
    text_of,
    tools_of,
    turns_in,
)
from jobs.files.values import as_text, is_no, is_nothing

# what a model said, or why it said nothing, beside a column that may hold the reference
UNREAD_ANSWERS = (
    "responses", "samples", "generations", "completions", "candidates", "rollouts", "attempts", "attempt",
    "generated_text", "model_response", "model_answer", "prediction", "predictions", "pred", "error",
)  # fmt: skip
IS_UNREAD = frozenset(UNREAD_ANSWERS)
IS_QUESTION = frozenset(QUESTION_NAMES)
NAMES_OF_TURNS = ("messages", "conversations", "conversation")
HAS_TURNS = frozenset(NAMES_OF_TURNS)
LISTS_OF_TURNS = (*NAMES_OF_TURNS, "completion")
MARKS = ("weight", "train", "loss_mask")  # marks on a row that it must not be learnt
IS_MARK = frozenset(MARKS_OF_TURNS)
MESSAGES, SHAREGPT, PROMPT_COMPLETION, ALPACA, COLUMNS = (
    "messages",
    "ShareGPT",
    "prompt and completion",
    "Alpaca",
    "columns",
)


@dataclass(frozen=True)
class Turns:
    """A row as turns.

    Attributes:
        layout: the name of the row's layout.
        prompt: the turns up to the one to be answered. None for columns without a question.
        answer: the assistant's turn after them. None if the row has none.
        said: how many of the last turns are the answer's, if the row divides them from the question. None if
            it does not. Turns of the assistant that are marked as not to be learnt, before all others, are
            part of the question.
        skips: whether a later turn of the assistant is marked so.
    """

    layout: str
    prompt: Prompt | None
    answer: Message | None = None
    said: int | None = None
    skips: bool = False


def turns_of(
    row: Mapping[str, Any], fields: Fields | None = None, *, answered: bool = True, is_learnt: bool = True
) -> Turns:
    """Read a row's turns, in the first layout whose keys the row has.

    Args:
        fields: the columns of question, answer and system text, if the user named them.
        answered: whether the row's columns hold an answer. Otherwise they hold a question and its
            reference.
        is_learnt: whether an answer that is marked as bad, or as not to be learnt, is refused.

    Raises:
        NotUnderstood: no layout fits, or the row holds something that cannot be kept.
    """
    named = fields or Fields()
    refuse_not_text(row)
    known, row = ("", row) if named.question is not None else in_messages(row)
    if is_learnt and (answered or "completion" in row or False in (row.get("label"), row.get("kto_tag"))):
        refuse_label(row)
    if is_learnt and answered:
        refuse_marked(row, named.answer)
    if not is_nothing(row.get("chosen")) and not is_nothing(row.get("rejected")):
        raise NotUnderstood("a preference pair, which has two answers of which one is wrong")
    reads_column = answered and named.answer is None
    layout, turns = _named(row, named) if named.question is not None else _found(row, reads_column)
    said = _said_in(row, layout)
    if answered and (named.answer is not None or named.question is not None):
        own = _answer_named(row, named)
        turns, said = [*_unanswered(turns), *own], len(own)
    tools = tools_of(row)
    if layout not in (MESSAGES, SHAREGPT) and all(turn.role == "assistant" for turn in turns):
        return Turns(layout, None, turns[-1] if turns else None)
    question, answer = question_and_answer([*system_of(row, turns, named.system), *turns])
    said, skips = _learnt(row, layout, said) if is_learnt else (said, False)
    return Turns(known or layout, Prompt(question, tools), answer, said, skips)


def _learnt(row: Mapping[str, Any], layout: str, said: int | None) -> tuple[int | None, bool]:
    """How many of the last turns are the answer's, if some are marked as not to be learnt, and whether one of
    these turns is marked.
    """
    if layout not in (MESSAGES, SHAREGPT):
        given = row.get("completion")
        return said, isinstance(given, list) and any(marked_in(given))
    given = next(row[name] for name in NAMES_OF_TURNS if not is_nothing(row.get(name)))
    if not any(isinstance(turn, Mapping) and not IS_MARK.isdisjoint(turn) for turn in given):
        return said, False
    marked = marked_in(given)
    if not any(marked):
        return said, False
    speakers = [says_as(turn) for turn in kept_in(given)]
    last = len(marked) - 1 - marked[::-1].index(True)
    learnt = next(k for k in range(last, len(marked)) if k == len(marked) - 1 or _begins(speakers, marked, k))
    skips = any(s == "assistant" and not m for s, m in zip(speakers[:last], marked[:last], strict=True))
    return len(marked) - learnt, skips


def _begins(speakers: Sequence[str | None], marked: Sequence[bool], place: int) -> bool:
    return speakers[place] in ("assistant", None) and not marked[place]


def _said_in(row: Mapping[str, Any], layout: str) -> int | None:
    """How many turns a row holds as the answer. None if question and answer are one list of turns."""
    if layout in (MESSAGES, SHAREGPT):
        return None
    given = row.get("completion")
    return len(turns_in(given)) if layout == PROMPT_COMPLETION and isinstance(given, list) else 1


def refuse_label(row: Mapping[str, Any]) -> None:
    """Refuse a completion that is labelled bad, as in data for KTO.

    Raises:
        NotUnderstood: the label is false.
    """
    label = row.get("label")
    # a label 0 beside other columns than a completion is a reference
    is_mark = isinstance(label, bool | None) or "completion" in row or str(label).strip().lower() == "false"
    if (is_mark and is_no(label)) or is_no(row.get("kto_tag")):
        raise NotUnderstood("a completion that its label calls bad")


def refuse_marked(row: Mapping[str, Any], named: str | None = None) -> None:
    """Refuse a row, or an answer at the end of its turns, that is marked as not to be learnt.

    Raises:
        NotUnderstood: with the mark.
    """
    refuse_unlearned(row, MARKS)
    for name in (*LISTS_OF_TURNS, *([named] if named else [])):
        turns = value_at(row, name)
        last = turns[-1] if isinstance(turns, list) and turns else None
        if isinstance(last, Mapping) and says_as(last) == "assistant":
            refuse_unlearned(last)


def refuse_skipped(turns: Turns) -> None:
    """Refuse a row of which a turn of the assistant between others is marked as not to be learnt, where all
    of its turns are learned.

    Raises:
        NotUnderstood: there is such a turn.
    """
    if turns.skips:
        raise NotUnderstood("a mark that a turn between others is not to be learnt")


def _found(row: Mapping[str, Any], answered: bool) -> tuple[str, list[Message]]:
    """The first layout whose keys a row has, and the row's turns in it."""
    named = (("messages", MESSAGES), ("conversations", SHAREGPT), ("conversation", SHAREGPT))
    for name, layout in named if not HAS_TURNS.isdisjoint(row) else ():
        if is_nothing(row.get(name)):
            continue
        if isinstance(row[name], str):
            raise NotUnderstood(f"{name} that are a text, not a list of turns")
        if isinstance(row[name], Sequence):
            return layout, _with_column(turns_in(row[name]), row, answered)
    if isinstance(row.get("prompt"), list):
        turns = [*turns_in(row["prompt"]), *_completion(row)]
        return PROMPT_COMPLETION, turns if _completion(row) else _with_column(turns, row, answered)
    refuse_beside(row)
    if isinstance(row.get("prompt"), str) and not is_nothing(row.get("completion")):
        return PROMPT_COMPLETION, [*said_before(row), Message("user", row["prompt"]), *_completion(row)]
    if isinstance(row.get("instruction"), str) and ("input" in row or "history" in row):
        return ALPACA, [*alpaca(row), *(_answer_column(row) if answered else ())]
    return COLUMNS, [*columns(row), *(_answer_column(row) if answered else ())]


def _with_column(turns: list[Message], row: Mapping[str, Any], answered: bool) -> list[Message]:
    """A list of turns with a teacher's answer that stands in a column beside it. Later columns may hold the
    reference, and are not read.

    Raises:
        NotUnderstood: the turns end with another answer.
    """
    names = [name for name in ANSWER_RANKS[0] if not is_nothing(row.get(name))]
    if answered and names and are_objects(row[names[0]]) and turns and turns[-1].role != "assistant":
        return [*turns, *turns_in(row[names[0]])]
    if answered and turns and turns[-1].role == "assistant":
        for name in (*UNREAD_ANSWERS, "output"):
            other = row.get(name)
            if isinstance(other, str) and other.strip() and other.strip() != turns[-1].content.strip():
                raise NotUnderstood(f"two answers, one in the turns and one in the column {name}")
    if not answered or not names or not isinstance(row[names[0]], str | int | float):
        return turns
    beside = said(row[names[0]], names[0], row)
    if not turns or turns[-1].role != "assistant":
        return [*turns, beside]
    if beside.content.strip() != turns[-1].content.strip():
        raise NotUnderstood(f"two answers, one in the turns and one in the column {names[0]}")
    return turns


def _named(row: Mapping[str, Any], fields: Fields) -> tuple[str, list[Message]]:
    """The turns of a question in the column that the user named."""
    given = value_at(row, str(fields.question))
    if isinstance(given, list):
        return f"turns in {fields.question}", turns_in(given)
    if is_nothing(given):
        return f"column {fields.question}", []
    if isinstance(given, Mapping):
        raise NotUnderstood(f"a question in {fields.question} that is an object")
    return f"column {fields.question}", [Message("user", as_text(given) or str(given))]


def _unanswered(turns: list[Message]) -> list[Message]:
    """The turns without an answer at their end."""
    return turns[:-1] if turns and turns[-1].role == "assistant" else turns


def _answer_named(row: Mapping[str, Any], fields: Fields) -> list[Message]:
    """The answer in the column that the user named, or in a usual column if the user only named the
    question's.
    """
    if fields.answer is None:
        return _completion(row) if isinstance(row.get("completion"), list) else _answer_column(row)
    given = value_at(row, fields.answer)
    if isinstance(given, list):
        return turns_in(given)
    return [] if is_nothing(given) else [said(given, fields.answer, row)]


def question_and_answer(turns: Sequence[Message]) -> tuple[Conversation, Message | None]:
    """The turns up to the one to be answered, and the answer if there is one.

    Raises:
        NotUnderstood: no user turn has a text, or the last turn before the answer is no user's or tool's.
    """
    answer = turns[-1] if turns and turns[-1].role == "assistant" else None
    question = tuple(turns[:-1] if answer is not None else turns)
    if not any(turn.role == "user" and turn.content.strip() for turn in question):
        raise NotUnderstood("no turn of a user with a text")
    if question[-1].role not in ("user", "tool"):
        raise NotUnderstood(
            f"a turn of the {question[-1].role} where a user or a tool should have spoken last"
        )
    return question, answer


def system_of(row: Mapping[str, Any], turns: Sequence[Message], named: str | None = None) -> list[Message]:
    """A system text in a column beside the turns.

    Raises:
        NotUnderstood: the turns begin with a system text too.
    """
    names = [named] if named else ["system", "system_prompt"]
    given = [text for name in names if not is_nothing(text := value_at(row, name))]
    if not given:
        return []
    text = text_of(given[0]) if are_objects(given[0]) else given[0]
    given = [text, *given[1:]]
    if not isinstance(text, str) or any(other != text for other in given):
        raise NotUnderstood("a system text that is no text, or two of them")
    if turns and turns[0].role == "system":
        if turns[0].content == text:
            return []
        raise NotUnderstood("two system texts, one beside the turns and one among them")
    return [Message("system", text)]


def alpaca(row: Mapping[str, Any]) -> list[Message]:
    """Alpaca's columns. The input is put below the instruction, as in LLaMA-Factory.

    Raises:
        NotUnderstood: a column is no text.
    """
    below = "" if is_nothing(row.get("input")) else as_text(row["input"])
    if below is None:
        raise NotUnderstood(f"an input that is no text but a {type(row['input']).__name__}")
    text = f"{row['instruction']}\n{below}" if below else row["instruction"]
    return [*said_before(row), Message("user", text)]


def said_before(row: Mapping[str, Any]) -> list[Message]:
    """The turns in a column `history`: pairs of what a user and an assistant said.

    Raises:
        NotUnderstood: it holds something else.
    """
    turns = []
    given = row.get("history")
    if are_objects(given):
        return turns_in(given)
    for pair in [] if is_nothing(given) else given if isinstance(given, list) else [given]:
        if (
            not isinstance(pair, Sequence)
            or isinstance(pair, str)
            or len(pair) != 2
            or any(map(is_nothing, pair))
        ):
            raise NotUnderstood("a history that is no list of pairs")
        turns += [Message("user", text_of(pair[0])), Message("assistant", text_of(pair[1]))]
    return turns


def columns(row: Mapping[str, Any]) -> list[Message]:
    """The question in plain columns. Empty if none of them holds one.

    Raises:
        NotUnderstood: there is a second column that may be the question.
    """
    if IS_QUESTION.isdisjoint(row):
        return []
    name = next((n for n in QUESTION_NAMES if not is_nothing(as_text(row.get(n)))), None)
    if name is None:
        return []
    for other in QUESTION_NAMES:
        is_other = other not in (name, "query")  # which is SQL in data sets about it
        if is_other and not is_nothing(row.get(other)) and row[other] != row[name]:
            raise NotUnderstood(f"a column {other} beside {name}: which is the question?")
    return [*said_before(row), Message("user", as_text(row[name]) or "")]


def refuse_another_answer(row: Mapping[str, Any], name: str) -> None:
    """Refuse a column that may hold the reference if another one holds what a model said, or why it did not.

    Raises:
        NotUnderstood: with both columns.
    """
    remedy = "name the one with the answer (fields.answer, --answer-field)"
    for other in UNREAD_ANSWERS if not IS_UNREAD.isdisjoint(row) else ():
        if not is_nothing(row.get(other)):
            raise NotUnderstood(f"a column {other} beside {name}: {remedy}")
    if isinstance(row, Ambiguous):
        raise NotUnderstood(f"texts in {row.unread} beside {name}: {remedy}")


def _answer_column(row: Mapping[str, Any]) -> list[Message]:
    rank = next((own for own in ANSWER_RANKS if any(name in row for name in own)), ())
    name = next((n for n in rank if not is_nothing(row.get(n))), None)
    if name is not None:
        if rank != ANSWER_RANKS[0]:
            refuse_another_answer(row, name)
        return [said(row[name], name, row)]
    calls = calls_of(row.get("tool_calls"))
    return [Message("assistant", "", reasoning_of(row, ""), calls)] if calls else []


def said(given: Any, name: str, row: Mapping[str, Any]) -> Message:
    """An answer in a column, with its reasoning in another column if the row has it.

    Raises:
        NotUnderstood: it is no text, or has its reasoning twice.
    """
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise NotUnderstood(f"a column {name} that is no text but a {type(given).__name__}")
    text = begun(as_text(given) or "")
    return Message("assistant", text, reasoning_of(row, text), calls_of(row.get("tool_calls")))


def _completion(row: Mapping[str, Any]) -> list[Message]:
    """TRL's completion: a text, or turns whose last one is the answer."""
    given = row.get("completion")
    if is_nothing(given):
        return []
    return turns_in(given) if isinstance(given, list) else [said(given, "completion", row)]
