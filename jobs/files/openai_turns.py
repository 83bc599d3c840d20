"""Turns as other programs write them, in OpenAI's form: Anthropic's, Bedrock's and LangChain's messages,
ms-swift's and ShareGPT's calls, speakers and fields by other names.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from jobs.files.refusals import NotUnderstood
from jobs.files.values import is_nothing, whole

Row = Mapping[str, Any]
# Speakers of an assistant's calls and of their results, in ShareGPT and ms-swift.
CALLS = ("function_call", "function-call", "tool_call", "tool-call")
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "agent": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
USUAL = ("system", "user", "assistant", "human", "gpt")
SAID = ("content", "value", "text")  # what holds a turn's text
# fields that carry a call or its result where nothing here reads them
UNREAD = ("toolInvocations", "recipient", "tool_responses")


def are_objects(given: Any) -> TypeGuard[list[Row]]:
    """Whether something is a list of objects, and not empty."""
    return isinstance(given, list) and bool(given) and all(isinstance(one, Mapping) for one in given)


def is_parts(content: Any) -> bool:
    """Whether a content is a list of typed parts."""
    return are_objects(content) and all(
        part.get("type") in ("text", "image", "input_text", "output_text") for part in content
    )


def json_in(text: str) -> Any:
    """The repaired value of a JSON text. None if it is none."""
    try:
        return whole(json.loads(text))
    except (ValueError, RecursionError):
        return None


def filled(part: Any, *names: str) -> Any:
    """The first of these fields that says something. None if there is none."""
    for name in names:
        value = part.get(name) if isinstance(part, Mapping) else None
        if not is_nothing(value) and not (
            isinstance(value, Mapping) and all(map(is_nothing, value.values()))
        ):
            return value
    return None


def speaks_as(speaker: Any) -> str:
    """A speaker in OpenAI's words. One that is not known is returned as it is."""
    name = str(speaker or "")
    plain = name.casefold().replace("-", "_").removesuffix("message").removesuffix("_")
    return ROLES.get(plain, name)


def is_turn(turn: Any) -> bool:
    """Whether an object is a turn: a known speaker, and something said or called."""
    if not isinstance(turn, Mapping):
        return False
    speaker = next((turn[n] for n in ("role", "from", "type") if isinstance(turn.get(n), str)), None)
    known = speaker in CALLS or speaks_as(speaker) in ROLES.values() or speaker == "constructor"
    return known and any(name in turn for name in (*SAID, "tool_calls", "system_prompt", "data", "kwargs"))


def text_in(part: Any) -> str:
    """The text of a part of reasoning.

    Raises:
        NotUnderstood: it has none.
    """
    text = part if isinstance(part, str) else filled(part, "text", "thinking", "reasoning", "content")
    if isinstance(text, list):
        return "".join(text_in(one) for one in text)
    if not isinstance(text, str):
        raise NotUnderstood("a part of the reasoning without a text")
    return text


def thought_in(part: Row) -> str:
    """The reasoning of a part of a message: its text, or the texts of its summary. Empty if it has none.

    Raises:
        NotUnderstood: there is something that is no text.
    """
    if filled(part, "text", "thinking", "reasoning", "content") is not None:
        return text_in(part)
    summary = part.get("summary")
    said = [one for one in summary if filled(one, "text")] if are_objects(summary) else []
    return "\n".join(map(text_in, said)) if are_objects(summary) else str(summary or "")


def result_turn(content: Any, call: Any, name: Any) -> dict[str, Any]:
    """A tool's result. Results that are objects become JSON text."""
    if isinstance(content, str) or is_parts(content):
        text = content
    else:
        text = "" if is_nothing(content) else json.dumps(content, ensure_ascii=False, default=str)
    return {"role": "tool", "content": text, "tool_call_id": call, "name": name}


def openai_turns(given: Sequence[Any]) -> list[Any]:
    """Turns in OpenAI's form. Those that have it already are returned as they are.

    Raises:
        NotUnderstood: a turn holds something that would be lost.
    """
    if all(map(_is_usual, given)):  # true for most rows, of which there may be millions
        return list(given)
    found: list[Any] = []
    ids: set[str] = set()
    for turn in given:
        if not isinstance(turn, Mapping):
            found.append(turn)
            continue
        try:
            each = _without_blocks(_in_openai_words(turn, ids))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise NotUnderstood("a turn in an unknown form") from error
        for own in each:
            ids |= _ids_of(own)
            if found and _belongs(found[-1], own):
                found[-1] = _merged(found[-1], own)
            else:
                found.append(own)
    return found


def _is_usual(turn: Any) -> bool:
    """Whether a turn is a speaker that is known and a text."""
    if type(turn) is not dict or len(turn) != 2:
        return False
    if type(turn.get("content")) is str:
        return turn.get("role") in USUAL
    return type(turn.get("value")) is str and turn.get("from") in USUAL


def _ids_of(turn: Row) -> set[str]:
    calls = turn.get("tool_calls")
    return (
        {str(c["id"]) for c in calls if isinstance(c, Mapping) and c.get("id")}
        if are_objects(calls)
        else set()
    )


def _in_openai_words(turn: Row, ids: set[str]) -> Row:
    """A turn with its speaker under `role` or `from`, its text under `content` or `value`, and OpenAI's names
    for calls and their ids.

    Args:
        ids: of the calls before it.
    """
    if not turn.get("role") and not turn.get("from") and isinstance(turn.get("type"), str):
        turn = _langchain(turn)
    given = turn.get("role") or turn.get("from")
    role = given if given in CALLS else speaks_as(given)
    own = dict(turn)
    if role != given or not turn.get("role"):
        own.pop("from", None)
        own["role"] = role
    for name in UNREAD:
        if not is_nothing(turn.get(name)):
            raise NotUnderstood(f"a turn with {name}")
    if not isinstance(turn.get("content"), list):
        said = next((turn[n] for n in SAID if not is_nothing(turn.get(n))), None)
        if role == "system" and said is None:
            said = turn.get("system_prompt")  # as SWE-agent's turns at Nebius have it
        if said is not None or any(name in turn for name in SAID):
            own["content"] = said
            own.pop("value", None)
    if not is_nothing(turn.get("toolCalls")):
        own.setdefault("tool_calls", own.pop("toolCalls"))
    if role == "tool":
        own = _as_result(own, ids)
    blocks = turn.get("thinking_blocks")
    if are_objects(blocks) and is_nothing(turn.get("reasoning_content")):
        own["reasoning_content"] = (
            "".join(text_in(b) for b in blocks if filled(b, "thinking", "text")) or None
        )
    return own if own != turn else turn


def _as_result(turn: dict[str, Any], ids: set[str]) -> dict[str, Any]:
    """A tool's turn with the id of its call, wherever that stands, and its result as text."""
    listed = turn.get("tool_call_ids")
    named = filled(turn, "tool_call_id", "toolCallId", "call_id")
    if named is None and isinstance(listed, list) and len(listed) == 1:
        named = listed[0]
    if named is None and str(turn.get("id") or "") in ids:
        named = turn["id"]
    if named is not None:
        turn["tool_call_id"] = named
    content = turn.get("content")
    is_list = are_objects(content) and not any(filled(p, "type", "text", "toolResult") for p in content)
    if isinstance(content, Mapping) or is_list:
        turn["content"] = json.dumps(content, ensure_ascii=False, default=str)
    return turn


def _langchain(turn: Row) -> Row:
    """A message of LangChain: with a type, or an object that is to be built again."""
    if turn["type"] == "constructor" and isinstance(turn.get("kwargs"), Mapping):
        kind = str((turn.get("id") or ["?"])[-1]).removesuffix("Chunk")
        turn = {"type": kind, **turn["kwargs"]}
    if isinstance(turn.get("data"), Mapping):
        turn = {**turn["data"], "type": turn["type"]}
    if not is_nothing(turn.get("invalid_tool_calls")):
        raise NotUnderstood("a tool call that LangChain calls invalid")
    further = turn.get("additional_kwargs")
    told = {n: v for n, v in further.items() if not is_nothing(v)} if isinstance(further, Mapping) else {}
    names = ("tool_calls", "function_call", "reasoning_content")
    added = {n: told[n] for n in names if n in told and is_nothing(turn.get(n))}
    if "tool_calls" in turn and not is_nothing(turn["tool_calls"]):
        added.pop("function_call", None)
    kind = str(turn["type"]).removesuffix("Chunk")
    rest = {k: v for k, v in turn.items() if k not in ("type", "id", "additional_kwargs")}
    return {**rest, **added, "role": speaks_as(kind)}


def _belongs(before: Any, turn: Row) -> bool:
    """Whether a turn of the assistant goes on with the one before it: a call after its text, another call, or
    what follows its reasoning.
    """
    if not isinstance(before, Mapping) or _role(before) != "assistant" or _role(turn) != "assistant":
        return False
    if _marks(before) != _marks(turn):
        return False
    says_nothing = is_nothing(turn.get("content")) or turn.get("role") in CALLS
    thought = not is_nothing(turn.get("reasoning_content"))
    if _calls(turn) and says_nothing and not thought:
        return True
    is_thought = not is_nothing(before.get("reasoning_content"))
    return is_thought and is_nothing(before.get("content")) and not _calls(before) and not thought


def _role(turn: Row) -> str:
    speaker = turn.get("role") or turn.get("from")
    return "assistant" if speaker in CALLS else speaks_as(speaker)


def _marks(turn: Row) -> list[Any]:
    return [turn.get(name) for name in ("weight", "train", "trainable", "training", "loss_mask", "loss")]


def _calls(turn: Row) -> list[Any]:
    """A turn's calls as a list: each may be JSON text of one or of several."""
    given: Any = turn.get("content", turn.get("value")) if turn.get("role") in CALLS else None
    given = given or turn.get("tool_calls") or turn.get("function_call")
    if is_nothing(given):
        return []
    found: list[Any] = []
    read = json_in(given) if isinstance(given, str) else given
    for call in read if isinstance(read, list) else [given if read is None else read]:
        inner = json_in(call) if isinstance(call, str) else call
        found += inner if isinstance(inner, list) else [call if inner is None else inner]
    return found


def _merged(before: Row, turn: Row) -> Row:
    """Two turns of the assistant as one."""
    calls = [*_calls(before), *_calls(turn)]
    text = "" if before.get("role") in CALLS else before.get("content")
    if is_nothing(text):
        text = "" if turn.get("role") in CALLS else turn.get("content") or ""
    left_out = ("role", "from", "value", "content", "tool_calls", "function_call")
    rest = {n: v for own in (turn, before) for n, v in own.items() if n not in left_out and not is_nothing(v)}
    merged = {**rest, "role": "assistant", "content": text}
    return merged | ({"tool_calls": calls} if calls else {})


def _without_blocks(turn: Row) -> list[Row]:
    """A turn whose content is a list of blocks. Results of tools become turns of their own before it, calls
    and thoughts fields of it. Other blocks stay, so that what is not text is refused by name.

    Raises:
        NotUnderstood: calls or reasoning stand in blocks and in fields, and differ.
    """
    given = turn.get("content")
    if not isinstance(given, list):
        return [turn]
    rest, calls, thoughts, results = list[Any](), list[Any](), list[str](), list[Row]()
    for block in given:
        kind = block.get("type") if isinstance(block, Mapping) else None
        if found := filled(block, "toolUse"):  # Bedrock's
            calls.append(
                {"name": found.get("name"), "arguments": found.get("input"), "id": found.get("toolUseId")}
            )
        elif found := filled(block, "toolResult"):
            parts = found.get("content")
            text = (
                "".join(p["text"] for p in parts)
                if are_objects(parts) and all("text" in p for p in parts)
                else parts
            )
            results.append(result_turn(text, found.get("toolUseId"), None))
        elif kind == "tool_use":
            calls.append({"name": block.get("name"), "arguments": block.get("input"), "id": block.get("id")})
        elif kind == "tool_result":
            results.append(result_turn(block.get("content"), block.get("tool_use_id"), None))
        elif kind in ("thinking", "reasoning"):
            thoughts.append(thought_in(block))
        elif kind in ("input_text", "output_text") or (
            kind is None and isinstance(block, Mapping) and "text" in block
        ):
            rest.append({"type": "text", "text": block.get("text")})
        elif kind != "redacted_thinking":
            rest.append({"type": "text", "text": block} if isinstance(block, str) else block)
    if rest == given:
        return [turn]
    own: dict[str, Any] = {**turn, "content": rest}
    if calls:
        if not is_nothing(turn.get("tool_calls")) and len(_calls(turn)) != len(calls):
            raise NotUnderstood("calls in blocks, and others in tool_calls")
        own["tool_calls"] = turn.get("tool_calls") or calls
    if thought := "".join(thoughts):
        if turn.get("reasoning_content") not in (None, "", thought):
            raise NotUnderstood("reasoning that is no text, or stands in two fields")
        own["reasoning_content"] = thought
    return [*results, *([own] if rest or calls or not results else [])]
