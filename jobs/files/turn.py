"""One turn of a conversation as files and servers write it: who speaks, what is said, what is called."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.models.messages import Message, Role, ToolCall
from cluster.models.reasoning import split_reasoning
from cluster.models.repair import begun
from jobs.files.agents import declared
from jobs.files.openai_turns import CALLS, are_objects, openai_turns
from jobs.files.refusals import NotUnderstood
from jobs.files.values import as_text, is_no, is_nothing

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
# what a column `reasoning` says of the way of answering
SWITCHES = frozenset({"on", "off", "true", "false", "yes", "no", "low", "medium", "high", "none", "minimal"})
REASONING = ("reasoning_content", "reasoning", "thinking")
ARGUMENTS = ("arguments", "parameters", "args", "input", "kwargs", "params", "tool_input")  # of a call
DETAILS = "reasoning_details"  # OpenRouter's field, often beside another field with the same reasoning
FIELDS_OF_REASONING = frozenset({*REASONING, DETAILS})
MARKS = ("weight", "train", "trainable", "training", "loss_mask", "loss")  # of a turn that is not learnt
# Keys of a row or a turn that hold something other than text. They are refused unless they are empty.
NOT_TEXT = frozenset({"images", "image", "videos", "audios", "audio", "refusal"})
# parts of finish reasons that mean the answer was cut off
CUT_OFF = re.compile(
    r"length|(?<!rate_)limit(?!ed)|truncat|incomplete|not_finished|window_exceeded|max_?(?:\w+_)?tokens|maxpredict"
)
FINISHES = ("finish_reason", "stop_reason", "finish_reasons", "finish", "stop_reasons")
IS_FINISH = frozenset(FINISHES)


def is_cut_off(row: Mapping[str, Any]) -> bool:
    """Whether a row, or the turn at its end, says that its answer was cut off.

    >>> is_cut_off({"finish_reason": "length"}), is_cut_off({"finish_reason": "stop"}), is_cut_off({})
    (True, False, False)
    """
    for name in FINISHES if not IS_FINISH.isdisjoint(row) else ():
        given = row.get(name)
        told = given[0] if isinstance(given, list) and len(given) == 1 else given
        if isinstance(told, str) and CUT_OFF.search(told.lower()):
            return True
    turns = row.get("messages") or row.get("conversations")
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, Mapping) and is_cut_off(last)


def turns_in(given: Sequence[Any]) -> list[Message]:
    """The turns of a list. An empty system turn is left out, and so is an empty assistant turn at the end.

    Raises:
        NotUnderstood: a turn holds something that cannot be kept.
    """
    return [turn_of(turn) for turn in kept_in(given)]


def kept_in(given: Sequence[Any]) -> list[Any]:
    """The turns of a list that say something, in OpenAI's form."""
    every = openai_turns(given)
    last = len(every) - 1
    return [
        turn
        for place, turn in enumerate(every)
        if not says_nothing(turn, ("system", "assistant") if place == last else ("system",))
    ]


def marked_in(given: Sequence[Any]) -> list[bool]:
    """For each turn that is kept, whether it is the assistant's and is marked as not to be learnt."""
    return [
        isinstance(turn, Mapping)
        and says_as(turn) == "assistant"
        and any(is_no(turn.get(name)) for name in MARKS)
        for turn in kept_in(given)
    ]


def says_nothing(turn: Any, roles: Sequence[str]) -> bool:
    """Whether a turn of one of these roles holds nothing but its speaker."""
    if not isinstance(turn, Mapping) or SPEAKERS.get(speaker_of(turn)) not in roles:
        return False
    rest = (value for name, value in turn.items() if name not in ("role", "from", "name", *MARKS))
    return all(is_nothing(value) or _is_empty_part(value) for value in rest)


def _is_empty_part(value: Any) -> bool:
    """Whether parts of a content are empty texts."""
    return isinstance(value, list) and all(
        isinstance(part, Mapping) and part.get("type") == "text" and is_nothing(part.get("text"))
        for part in value
    )


def speaker_of(turn: Mapping[str, Any]) -> str:
    """The speaker's name, as the file has it."""
    return str(turn.get("role") or turn.get("from") or "")


def says_as(turn: Mapping[str, Any]) -> str:
    """The speaker of a turn, the assistant's calls included. Empty if it is not known."""
    speaker = speaker_of(turn)
    return "assistant" if speaker in CALLS else SPEAKERS.get(speaker, "")


def turn_of(turn: Any) -> Message:
    """One turn of `messages` or ShareGPT's `conversations`.

    Raises:
        NotUnderstood: the speaker, a part of the content or a call is unknown.
    """
    if not isinstance(turn, Mapping):
        raise NotUnderstood(f"a turn that is no object but a {type(turn).__name__}")
    refuse_not_text(turn)
    speaker = speaker_of(turn)
    said = turn.get("content", turn.get("value"))
    if speaker in CALLS:
        called = calls_of(said)
        if not called:
            raise NotUnderstood(f"a turn of {speaker} that calls nothing")
        return Message("assistant", "", reasoning_of(turn, ""), called)
    if speaker not in SPEAKERS:
        raise NotUnderstood(
            f"a turn of the unknown speaker {speaker}" if speaker else "a turn without a speaker"
        )
    calls = calls_of(turn.get("tool_calls")) or calls_of(turn.get("function_call"))
    content = begun(text_of(said)) if SPEAKERS[speaker] == "assistant" else text_of(said)
    reasoning = reasoning_of(turn, content)
    if not content and not calls and reasoning is None and SPEAKERS[speaker] != "tool":
        raise NotUnderstood(f"a turn of {speaker} without content")
    name, call_id = (str(turn.get(k) or "") for k in ("name", "tool_call_id"))
    return Message(SPEAKERS[speaker], content, reasoning, calls, name, call_id)


def reasoning_of(turn: Mapping[str, Any], content: str) -> str | None:
    """The reasoning in a field of its own beside the content.

    Raises:
        NotUnderstood: it is no text, is in two fields, or is in think tags too.
    """
    if FIELDS_OF_REASONING.isdisjoint(turn):
        return None
    found = [turn[name] for name in REASONING if not is_nothing(turn.get(name))]
    found = [text for text in found if not isinstance(text, str) or text.strip().casefold() not in SWITCHES]
    found = found or [text for text in [_details(turn.get(DETAILS))] if text]
    if not found:
        return None
    if not isinstance(found[0], str) or any(
        not isinstance(other, str) or other.strip() != found[0].strip() for other in found
    ):
        raise NotUnderstood("reasoning that is no text, or stands in two fields")
    own = _without_tags(found[0])
    if (said := split_reasoning(content)[0]) is not None and said == own.strip():
        return None  # the content holds it too
    if content.lstrip().startswith("<think>") or "</think>" in content or "</think>" in own:
        raise NotUnderstood("reasoning twice, in a field of its own and in think tags")
    return own


def _without_tags(reasoning: str) -> str:
    """A reasoning without the think tags around it, which some engines leave in its field."""
    bare = reasoning.strip()
    if not bare.startswith("<think>") and not bare.endswith("</think>"):
        return reasoning
    return bare.removeprefix("<think>").removesuffix("</think>").strip("\n")


def _details(given: Any) -> str:
    """The texts and summaries in OpenRouter's list. Encrypted entries are skipped.

    Raises:
        NotUnderstood: it is another list.
    """
    if is_nothing(given):
        return ""
    if not isinstance(given, list) or not all(isinstance(part, Mapping) for part in given):
        raise NotUnderstood(f"{DETAILS} that are no list of objects")
    return "".join(str(part.get("text") or part.get("summary") or "") for part in given)


def refuse_unlearned(given: Mapping[str, Any], marks: Sequence[str] = MARKS) -> None:
    """Refuse a row or turn that is marked as not to be learnt, in any spelling: `weight: 0`, `train: false`
    ...

    Raises:
        NotUnderstood: with the mark.
    """
    for name in marks:
        if is_no(given.get(name)):
            raise NotUnderstood(f"a mark that it is not to be learnt, {name}")


def text_of(content: Any) -> str:
    """A turn's content, which may be a list of parts, as one text.

    Raises:
        NotUnderstood: a part that is no text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, int | float) and not isinstance(content, bool):
        return as_text(content) or ""
    if not isinstance(content, Sequence):
        raise NotUnderstood(f"content that is neither text nor parts but a {type(content).__name__}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        is_bare = kind is None and isinstance(part, Mapping) and set(part) == {"text"}  # as Bedrock writes it
        if (kind != "text" and not is_bare) or not isinstance(part.get("text"), str):
            raise NotUnderstood(f"a part of the content of type {kind}")
        texts.append(part["text"])
    return "".join(texts)


def calls_of(given: Any) -> tuple[ToolCall, ...]:
    """Tool calls in OpenAI's or ShareGPT's form: an object, a list of objects, or JSON text of either.

    Raises:
        NotUnderstood: it is none of these.
    """
    if is_nothing(given):
        return ()
    try:
        found = _unwritten(given)
        calls = found if isinstance(found, list) else [found]
        if all(is_nothing(call) for call in calls):
            return ()
        return tuple(_call(_unwritten(call)) for call in calls)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotUnderstood(f"a tool call that is not known: {str(given)[:60]}") from error


def _unwritten(given: Any) -> Any:
    """The value of a JSON text, even if it was encoded as text twice."""
    for _ in range(2):
        given = json.loads(given) if isinstance(given, str) else given
    return given


def _call(call: Any) -> ToolCall:
    if not isinstance(call, Mapping):
        raise ValueError("a call that is no object")
    named = call.get("function")
    is_name = isinstance(named, str) and not named.lstrip().startswith(("{", '"'))  # as Inspect writes it
    inner: Any = named if is_name else _unwritten(named or call)
    function: Mapping[str, Any] = {**call, "name": inner} if isinstance(inner, str) else inner
    carriers = (function[name] for name in ARGUMENTS if not is_nothing(function.get(name)))
    arguments = next(
        carriers, next((call[name] for name in ARGUMENTS if not is_nothing(call.get(name))), None)
    )
    if arguments is None and set(function) - {"name", "id", "type", "function", "index", *ARGUMENTS}:
        raise ValueError("arguments under an unknown name")
    read = {} if is_nothing(arguments) else _unwritten(arguments)
    read = {} if read is None else read  # the JSON text null
    if not isinstance(read, dict) or is_nothing(function["name"]):
        raise ValueError("arguments are no object")
    return ToolCall(str(function["name"]), json.dumps(read, ensure_ascii=False), str(call.get("id") or ""))


def tools_of(row: Mapping[str, Any]) -> str:
    """The tools that a row names, as JSON text of a list.

    Raises:
        NotUnderstood: it is no list of objects.
    """
    given = row.get("tools")
    if is_nothing(given) and _are_functions(row.get("functions")):
        given = row["functions"]
    if is_nothing(given):
        return ""
    try:
        found = _unwritten(given)
        tools = [_unwritten(tool) for tool in (found if isinstance(found, list) else [found] * bool(found))]
    except (TypeError, ValueError, RecursionError) as error:
        raise NotUnderstood("tools that are no JSON") from error
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise NotUnderstood("tools that are no list of objects")
    return json.dumps(declared(tools), ensure_ascii=False) if tools else ""


def _are_functions(given: Any) -> bool:
    """Whether a column `functions` declares tools, as OpenAI once wrote them."""
    return are_objects(given) and all("name" in one and "parameters" in one for one in given)


def refuse_not_text(given: Mapping[str, Any]) -> None:
    """Refuse keys that hold something other than text."""
    if NOT_TEXT.isdisjoint(given):
        return
    for name in sorted(NOT_TEXT):
        if given.get(name):
            raise NotUnderstood(f"{name}, which is not text")
