"""One turn of a conversation as files and servers write it: who speaks, what is said, what is called."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.models.messages import Message, Role, ToolCall
from cluster.models.repair import begun

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
FIELDS_OF_REASONING = frozenset(REASONING)
# Keys of a row or a turn that hold what no text can: refused unless they are empty.
NOT_TEXT = frozenset({"images", "image", "videos", "audios", "audio", "refusal"})


class NotUnderstood(Exception):
    """What a row holds that no conversation of ours can: the reason, for people and the ledger."""


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
        called = calls_of(said)
        if not called:
            raise NotUnderstood(f"a turn of {speaker} that calls nothing")
        return Message("assistant", "", reasoning_of(turn, ""), called)
    if speaker not in SPEAKERS:
        raise NotUnderstood(f"a turn of {speaker or 'nobody'}")
    calls = calls_of(turn.get("tool_calls")) or calls_of(turn.get("function_call"))
    content = begun(text_of(said)) if SPEAKERS[speaker] == "assistant" else text_of(said)
    reasoning = reasoning_of(turn, content)
    if not content and not calls and reasoning is None:
        raise NotUnderstood(f"a turn of {speaker} without content")
    name, call_id = (str(turn.get(k) or "") for k in ("name", "tool_call_id"))
    return Message(SPEAKERS[speaker], content, reasoning, calls, name, call_id)


def reasoning_of(turn: Mapping[str, Any], content: str) -> str | None:
    """The reasoning that stands in a field of its own beside some content.

    Raises:
        NotUnderstood: it is no text, stands in two fields, or in think tags too.
    """
    if FIELDS_OF_REASONING.isdisjoint(turn):
        return None
    found = [turn[name] for name in REASONING if turn.get(name) not in (None, "", [], {})]
    if not found:
        return None
    if not isinstance(found[0], str) or any(other != found[0] for other in found):
        raise NotUnderstood("reasoning that is no text, or stands in two fields")
    if "<think>" in content or "</think>" in found[0]:
        raise NotUnderstood("reasoning twice, in a field of its own and in think tags")
    return found[0]


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
    read = json.loads(arguments or "{}") if isinstance(arguments, str | None) else arguments
    if not isinstance(read, dict):
        raise ValueError("arguments are no object")
    return ToolCall(str(function["name"]), json.dumps(read, ensure_ascii=False), str(call.get("id") or ""))


def tools_of(row: Mapping[str, Any]) -> str:
    """The tools that a row names, as JSON text of a list.

    Raises:
        NotUnderstood: no list of objects.
    """
    given = row.get("tools")
    if not given:
        return ""
    try:
        tools = json.loads(given) if isinstance(given, str) else list(given)
    except (TypeError, ValueError) as error:
        raise NotUnderstood("tools that are no JSON") from error
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise NotUnderstood("tools that are no list of objects")
    return json.dumps(tools, ensure_ascii=False) if tools else ""


def refuse_not_text(given: Mapping[str, Any]) -> None:
    """Refuse what no text can hold."""
    if NOT_TEXT.isdisjoint(given):
        return
    for name in sorted(NOT_TEXT):
        if given.get(name):
            raise NotUnderstood(f"{name}, which is not text")
