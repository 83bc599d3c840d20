"""A row of any layout as a conversation: the turns up to the one to be answered, and the answer where the row
has one.

Layouts: `messages` (OpenAI), `conversations` (ShareGPT, LLaMA-Factory's tools included), `prompt` and
`completion` (TRL; texts or turns), Alpaca (`instruction`, `input`, `output`, `history`), plain columns. What
a row holds beyond that is refused by name: nothing is cut, joined or flattened without a word.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.models.messages import Conversation, Message, Role, ToolCall

MESSAGES, SHAREGPT, PROMPT_COMPLETION, ALPACA, COLUMNS = (
    "messages",
    "ShareGPT",
    "prompt and completion",
    "Alpaca",
    "columns",
)
QUESTION_COLUMNS = ("question", "problem", "instruction", "prompt", "input")
ANSWER_COLUMNS = ("teacher_output", "completion", "response", "solution", "answer", "output")
SPEAKERS: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
}
CALLS = ("function_call", "function-call", "tool_call")  # ShareGPT's speakers for an assistant's tool call
REASONING = ("reasoning_content", "reasoning", "thinking")
# Keys of a row or a turn that hold what no text can: refused unless they are empty.
NOT_TEXT = ("images", "image", "videos", "audios", "audio", "refusal")


class NotUnderstood(Exception):
    """What a row holds that no conversation of ours can: the reason, for people and the ledger."""


@dataclass(frozen=True)
class Turns:
    """What a row says.

    Attributes:
        layout: in which it says so.
        question: the turns up to the one to be answered.
        answer: the assistant's turn after them; None where the row ends before.
        tools: JSON text of the list of tools that the question may use; empty for none.
    """

    layout: str
    question: Conversation
    answer: Message | None = None
    tools: str = ""


def turns_of(row: Mapping[str, Any]) -> Turns:
    """A row's turns, in the first layout that it has the keys of.

    Raises:
        NotUnderstood: no layout fits, or the row holds what cannot be kept.
    """
    refuse_not_text(row)
    if "chosen" in row and "rejected" in row:
        raise NotUnderstood("a preference pair, which has two answers of which one is wrong")
    tools = tools_of(row)
    for name, layout in (("messages", MESSAGES), ("conversations", SHAREGPT), ("conversation", SHAREGPT)):
        if isinstance(row.get(name), Sequence) and not isinstance(row[name], str):
            turns = [turn_of(turn) for turn in row[name]]
            return Turns(layout, *question_and_answer([*system_of(row, turns), *turns]), tools)
    if isinstance(row.get("prompt"), list):
        turns = [turn_of(turn) for turn in row["prompt"]]
        return Turns(PROMPT_COMPLETION, *question_and_answer([*turns, *_completion(row)]), tools)
    if isinstance(row.get("prompt"), str) and row.get("completion") is not None:
        turns = [Message("user", row["prompt"]), *_completion(row)]
        return Turns(PROMPT_COMPLETION, *question_and_answer([*system_of(row, turns), *turns]), tools)
    if isinstance(row.get("instruction"), str) and ("input" in row or "history" in row):
        turns = alpaca(row)
        return Turns(ALPACA, *question_and_answer([*system_of(row, turns), *turns]), tools)
    turns = columns(row)
    return Turns(COLUMNS, *question_and_answer([*system_of(row, turns), *turns]), tools)


def turn_of(turn: Any) -> Message:
    """One turn of `messages` or ShareGPT's `conversations`.

    Raises:
        NotUnderstood: a speaker, a part of the content or a call that is not known.
    """
    if not isinstance(turn, Mapping):
        raise NotUnderstood(f"a turn that is no object but a {type(turn).__name__}")
    refuse_not_text(turn)
    speaker = str(turn.get("role", turn.get("from", "")))
    said = turn["content"] if "content" in turn else turn.get("value")
    if speaker in CALLS:
        return Message("assistant", "", tool_calls=calls_of(said))
    if speaker not in SPEAKERS:
        raise NotUnderstood(f"a turn of {speaker or 'nobody'}")
    calls = calls_of(turn.get("tool_calls")) or calls_of(turn.get("function_call"))
    reasoning = next((turn[k] for k in REASONING if isinstance(turn.get(k), str) and turn[k]), None)
    content = text_of(said)
    if reasoning is not None and "<think>" in content:
        raise NotUnderstood("reasoning twice, in a field of its own and in think tags")
    if not content and not calls and reasoning is None:
        raise NotUnderstood(f"a turn of {speaker} without content")
    name, call_id = (str(turn.get(k) or "") for k in ("name", "tool_call_id"))
    return Message(SPEAKERS[speaker], content, reasoning, calls, name, call_id)


def text_of(content: Any) -> str:
    """A turn's content, which may be a list of parts, as one text.

    Raises:
        NotUnderstood: a part that is no text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise NotUnderstood(f"content that is neither text nor parts but a {type(content).__name__}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise NotUnderstood(f"a part of the content of type {kind}")
        texts.append(part["text"])
    return "".join(texts)


def calls_of(given: Any) -> tuple[ToolCall, ...]:
    """Tool calls, in OpenAI's form or ShareGPT's: an object or a list of them, or JSON text of either.

    Raises:
        NotUnderstood: none of these.
    """
    if given is None or given == "" or given == []:
        return ()
    try:
        found = json.loads(given) if isinstance(given, str) else given
        return tuple(_call(call) for call in (found if isinstance(found, list) else [found]))
    except (ValueError, KeyError, TypeError) as error:
        raise NotUnderstood(f"a tool call that is not known: {str(given)[:60]}") from error


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    read = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(read, dict):
        raise ValueError("arguments are no object")
    return ToolCall(str(function["name"]), json.dumps(read, ensure_ascii=False), str(call.get("id") or ""))


def question_and_answer(turns: Sequence[Message]) -> tuple[Conversation, Message | None]:
    """The turns up to the one to be answered, and that one where it is there.

    Raises:
        NotUnderstood: nobody asks anything, or the answer is no assistant's.
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


def system_of(row: Mapping[str, Any], turns: Sequence[Message]) -> list[Message]:
    """A system text that stands beside the turns.

    Raises:
        NotUnderstood: the turns begin with another one.
    """
    text = row.get("system") or row.get("system_prompt")
    if not isinstance(text, str) or not text:
        return []
    if turns and turns[0].role == "system":
        if turns[0].content == text:
            return []
        raise NotUnderstood("two system texts, one beside the turns and one among them")
    return [Message("system", text)]


def alpaca(row: Mapping[str, Any]) -> list[Message]:
    """Alpaca's columns: the input stands below the instruction, as LLaMA-Factory has it.

    Raises:
        NotUnderstood: a column that is no text.
    """
    turns = []
    for pair in row.get("history") or []:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise NotUnderstood("a history that is no list of pairs")
        turns += [Message("user", text_of(pair[0])), Message("assistant", text_of(pair[1]))]
    below = row.get("input") or ""
    if not isinstance(below, str):
        raise NotUnderstood(f"an input that is no text but a {type(below).__name__}")
    turns.append(Message("user", f"{row['instruction']}\n{below}" if below else row["instruction"]))
    return [*turns, *_answer_column(row)]


def columns(row: Mapping[str, Any]) -> list[Message]:
    """Plain columns.

    Raises:
        NotUnderstood: none of them holds a question, or `input` stands beside one.
    """
    name = next((n for n in QUESTION_COLUMNS if isinstance(row.get(n), str) and row[n]), None)
    if name is None:
        raise NotUnderstood(f"no question among {', '.join(map(str, row)) or 'no columns at all'}")
    if name != "input" and row.get("input"):
        raise NotUnderstood(f"a column input beside {name}: which is the question?")
    return [Message("user", row[name]), *_answer_column(row)]


def _answer_column(row: Mapping[str, Any]) -> list[Message]:
    name = next((n for n in ANSWER_COLUMNS if row.get(n) is not None), None)
    if name is None:
        return []
    if not isinstance(row[name], str):
        raise NotUnderstood(f"a column {name} that is no text but a {type(row[name]).__name__}")
    reasoning = next((row[k] for k in REASONING if isinstance(row.get(k), str) and row[k]), None)
    if reasoning is not None and "<think>" in row[name]:
        raise NotUnderstood("reasoning twice, in a column of its own and in think tags")
    return [Message("assistant", row[name], reasoning)]


def _completion(row: Mapping[str, Any]) -> list[Message]:
    """TRL's completion: a text, or turns of which the last is the answer."""
    given = row.get("completion")
    if given is None:
        return []
    return (
        [turn_of(turn) for turn in given] if isinstance(given, list) else [Message("assistant", str(given))]
    )


def tools_of(row: Mapping[str, Any]) -> str:
    """The tools that a row names, as JSON text of a list.

    Raises:
        NotUnderstood: no list of objects.
    """
    given = row.get("tools")
    if not given:
        return ""
    try:
        tools = json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise NotUnderstood("tools that are no JSON") from error
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise NotUnderstood("tools that are no list of objects")
    return json.dumps(tools, ensure_ascii=False) if tools else ""


def refuse_not_text(given: Mapping[str, Any]) -> None:
    """Refuse what no text can hold."""
    for name in NOT_TEXT:
        if given.get(name):
            raise NotUnderstood(f"{name}, which is not text")
