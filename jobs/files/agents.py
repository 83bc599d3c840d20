"""Agents' and providers' layouts, rewritten as OpenAI's `messages` before a row is read: Anthropic's blocks,
Gemini's `contents`, the items of OpenAI's Responses, LangChain's messages, ATIF's `steps`, ms-swift's turns,
and turns under other names (`trajectory`, `traj`, `history` ...). Nothing is judged here: what a rewritten
row holds is read, or refused by name, like any other row.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from jobs.files.refusals import NotUnderstood
from jobs.files.values import is_nothing

Row = Mapping[str, Any]
OTHER_NAMES = ("trajectory", "traj", "history", "dialog", "dialogue", "chat")  # of a list of turns
TURNS = ("messages", "conversations", "conversation")
MAY_DIFFER = frozenset({"steps", "contents", "input", "answers", *OTHER_NAMES})
# Columns that hold the question where a list of turns under another name is what was said before it.
ASKED_BESIDE = ("instruction", "question", "prompt", "query", "input", "problem")
# Speakers of an assistant's calls and of their results, in ShareGPT and ms-swift.
CALLS = ("function_call", "function-call", "tool_call")
LANGCHAIN = {"human": "user", "ai": "assistant", "aimessagechunk": "assistant"}


def in_messages(row: Row) -> tuple[str, Row]:
    """A row with its turns under `messages`, and the name of the layout that they had. The name is empty if
    the row is returned as it is.

    Raises:
        NotUnderstood: the row is in a known layout, and a part of it is not known.
    """
    named = next((name for name in TURNS if not is_nothing(row.get(name))), None)
    if named is not None:
        return _read_text(row, named)
    if MAY_DIFFER.isdisjoint(row):
        return "", row
    for layout, convert in LAYOUTS.items():
        turns = convert(row)
        if turns is not None:
            return layout, {**row, "messages": turns}
    return "", row


def _read_text(row: Row, name: str) -> tuple[str, Row]:
    """A row whose turns are JSON text, or pairs of what a human and an assistant say."""
    given = row[name]
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise NotUnderstood(f"{name} that are a text, and no JSON") from error
        row = {**row, name: given}
    pair = {"human", "assistant"}
    if isinstance(given, list) and given and all(isinstance(t, Mapping) and pair <= set(t) for t in given):
        turns = [
            {"role": r, "content": t[n]} for t in given for r, n in (("user", "human"), ("assistant",) * 2)
        ]
        return "pairs", {**row, name: None, "messages": turns}
    return "", row


def _other_name(row: Row) -> list[Row] | None:
    """Turns under another name. SWE-agent has them in `history`, and single steps in `trajectory`."""
    is_asked = any(not is_nothing(row.get(name)) for name in ASKED_BESIDE)
    for name in OTHER_NAMES[:2] if is_asked else OTHER_NAMES:
        given = row.get(name)
        if isinstance(given, str) and given.lstrip().startswith("[{"):
            given = _json(given)
        if isinstance(given, list) and given and all(_is_turn(turn) for turn in given):
            return list(given)
    return None


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, Mapping) and any(isinstance(turn.get(n), str) for n in ("role", "from", "type"))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _xlam(row: Row) -> list[Row] | None:
    """A query, and the calls that answer it."""
    answers = row.get("answers")
    calls = _json(answers) if isinstance(answers, str) else answers
    if not isinstance(row.get("query"), str) or not isinstance(calls, list) or not calls:
        return None
    if not all(isinstance(call, Mapping) and "name" in call and "arguments" in call for call in calls):
        return None
    return [
        {"role": "user", "content": row["query"]},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]


def _gemini(row: Row) -> list[Row] | None:
    """Gemini's `contents`: roles user, model and function, with parts."""
    given = row.get("contents")
    if not are_objects(given) or not all("parts" in turn for turn in given):
        return None
    turns: list[Row] = []
    told = row.get("systemInstruction") or row.get("system_instruction")
    if isinstance(told, Mapping):
        turns.append({"role": "system", "content": "".join(_gemini_text(p) for p in told.get("parts", ()))})
    for turn in given:
        speaker = str(turn.get("role") or "user")
        role = {"model": "assistant", "function": "tool"}.get(speaker, speaker)
        text, thought = list[str](), list[str]()
        calls, results = list[Row](), list[Row]()
        for part in turn["parts"]:
            if found := _first(part, "functionCall", "function_call"):
                calls.append(
                    {"name": found["name"], "arguments": found.get("args") or {}, "id": found.get("id")}
                )
            elif found := _first(part, "functionResponse", "function_response"):
                results.append(_result(found.get("response"), found.get("id"), found.get("name")))
            else:
                (thought if part.get("thought") is True else text).append(_gemini_text(part))
        turns += results
        if text or calls or not results:
            own: dict[str, Any] = {"role": role, "content": "".join(text)}
            own |= {"tool_calls": calls} if calls else {}
            own |= {"reasoning_content": "".join(thought)} if thought else {}
            turns.append(own)
    return turns


def _gemini_text(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    names = ", ".join(part) if isinstance(part, Mapping) else type(part).__name__
    raise NotUnderstood(f"a part of the content with {names}")


def _responses(row: Row) -> list[Row] | None:
    """The items of OpenAI's Responses: in `input`, and what was answered in `output`."""
    given, answered = row.get("input"), row.get("output")
    if not are_objects(given) or not all("role" in item or "type" in item for item in given):
        return None
    items = [*given, *(answered if are_objects(answered) else [])]
    items += [{"role": "assistant", "content": answered}] if isinstance(answered, str) and answered else []
    told = row.get("instructions")
    turns: list[dict[str, Any]] = (
        [{"role": "system", "content": told}] if isinstance(told, str) and told else []
    )
    thoughts: list[str] = []
    for item in items:
        kind = item.get("type", "message")
        if kind == "reasoning":
            parts = [
                *(item.get("content") or []),
                *([] if item.get("content") else item.get("summary") or []),
            ]
            thoughts += [str(part.get("text") or "") for part in parts]
        elif kind == "function_call_output":
            turns.append(_result(item.get("output"), item.get("call_id"), item.get("name")))
        elif kind in ("function_call", "message"):
            is_call = kind == "function_call"
            role = "assistant" if is_call else str(item.get("role"))
            before = turns[-1] if turns and turns[-1]["role"] == role == "assistant" else None
            own: dict[str, Any] = before or {"role": role, "content": ""}
            if is_call:
                call = {
                    "name": item.get("name"),
                    "arguments": item.get("arguments"),
                    "id": item.get("call_id"),
                }
                own["tool_calls"] = [*own.get("tool_calls", ()), call]
            elif before is not None and (before["content"] or before.get("tool_calls")):
                raise NotUnderstood("two turns of the assistant in a row")
            else:
                own["content"] = item.get("content")
            if thoughts and role == "assistant":
                own["reasoning_content"] = "".join([own.get("reasoning_content", ""), *thoughts])
                thoughts = []
            if before is None:
                turns.append(own)
        else:
            raise NotUnderstood(f"an item of type {kind}")
    return list(turns)


def _atif(row: Row) -> list[Row] | None:
    """The steps of ATIF: the agent's message and calls are one step, with their results in it."""
    steps = row.get("steps")
    if not are_objects(steps) or not all("source" in step for step in steps):
        return None
    turns: list[Row] = []
    for step in steps:
        source = str(step["source"])
        own: dict[str, Any] = {
            "role": "assistant" if source == "agent" else source,
            "content": step.get("message"),
            "reasoning_content": step.get("reasoning_content"),
        }
        calls = [
            {
                "name": call.get("function_name"),
                "arguments": call.get("arguments"),
                "id": call.get("tool_call_id"),
            }
            for call in step.get("tool_calls") or ()
        ]
        own |= {"tool_calls": calls} if calls else {}
        if step.get("is_copied_context"):  # said in an earlier trajectory, and not to be learnt again
            own["train"] = False
        turns.append(own)
        observed = step.get("observation")
        for result in (observed.get("results") or ()) if isinstance(observed, Mapping) else ():
            turns.append(_result(result.get("content"), result.get("source_call_id"), None))
    return turns


LAYOUTS: Mapping[str, Callable[[Row], list[Row] | None]] = {
    "ATIF steps": _atif,
    "Gemini contents": _gemini,
    "Responses items": _responses,
    "messages": _other_name,
    "query and calls": _xlam,
}


def are_objects(given: Any) -> TypeGuard[list[Row]]:
    """Whether something is a list of objects, and not empty."""
    return isinstance(given, list) and bool(given) and all(isinstance(one, Mapping) for one in given)


def _first(part: Any, *names: str) -> Any:
    """The first of these fields that says something. None if the part is no object."""
    return next((part[n] for n in names if isinstance(part, Mapping) and part.get(n)), None)


def _result(content: Any, call: Any, name: Any) -> dict[str, Any]:
    """A tool's result. Results that are objects become JSON text."""
    is_text = isinstance(content, str) or _is_parts(content)
    text = content if is_text else "" if content is None else json.dumps(content, ensure_ascii=False)
    return {"role": "tool", "content": text, "tool_call_id": call, "name": name}


def _is_parts(content: Any) -> bool:
    return are_objects(content) and all("type" in part for part in content)


def openai_turns(given: Sequence[Any]) -> list[Any]:
    """Turns in OpenAI's form. Those that have it already are returned as they are."""
    found: list[Any] = []
    for turn in given:
        if not isinstance(turn, Mapping):
            found.append(turn)
            continue
        own = _with_speaker(turn)
        if isinstance(own.get("content"), list):
            found += _without_blocks(own)
        elif own.get("role", own.get("from")) in CALLS and found and _takes_calls(found[-1]):
            found[-1] = _with_further_call(found[-1], own)
        else:
            found.append(own)
    return found


def _with_speaker(turn: Row) -> Row:
    """A turn whose speaker is under `role` or `from`, and whose text is under `content` or `value`."""
    if "role" not in turn and "from" not in turn and isinstance(turn.get("type"), str):
        turn = _langchain(turn)
    speaker = turn.get("role")
    if "content" not in turn and "value" not in turn and "text" in turn:  # as SWE-agent's turns at Nebius
        said = turn["text"]
        if speaker == "system" and is_nothing(said):
            said = turn.get("system_prompt")
        turn = {**turn, "content": said}
    ids = turn.get("tool_call_ids")
    if speaker == "tool" and isinstance(ids, list) and len(ids) == 1 and not turn.get("tool_call_id"):
        turn = {**turn, "tool_call_id": ids[0]}
    if speaker in ("tool", "function") and isinstance(turn.get("content"), dict):
        turn = {**turn, "content": json.dumps(turn["content"], ensure_ascii=False)}
    blocks = turn.get("thinking_blocks")
    if are_objects(blocks) and not turn.get("reasoning_content"):
        thought = "".join(str(block.get("thinking") or "") for block in blocks)
        turn = {**turn, "reasoning_content": thought or None}
    return turn


def _langchain(turn: Row) -> Row:
    """A message of LangChain: with a type, or an object that is to be built again."""
    if turn["type"] == "constructor" and isinstance(turn.get("kwargs"), Mapping):
        kind = str((turn.get("id") or ["?"])[-1]).removesuffix("Message").removesuffix("MessageChunk")
        turn = {"type": kind.lower(), **turn["kwargs"]}
    if isinstance(turn.get("data"), Mapping):
        turn = {**turn["data"], "type": turn["type"]}
    if not is_nothing(turn.get("invalid_tool_calls")):
        raise NotUnderstood("a tool call that LangChain calls invalid")
    kind = str(turn["type"]).lower()
    return {**{k: v for k, v in turn.items() if k not in ("type", "id")}, "role": LANGCHAIN.get(kind, kind)}


def _takes_calls(turn: Any) -> bool:
    """Whether a call may belong to the turn before it: the assistant's text, or another call."""
    speaker = turn.get("role") or turn.get("from") if isinstance(turn, Mapping) else None
    return speaker in (*CALLS, "assistant", "gpt", "model", "ai") and not turn.get("function_call")


def _with_further_call(turn: Row, call: Row) -> Row:
    """A turn of the assistant with one more call."""
    speaker = turn.get("role") or turn.get("from")
    said = turn.get("content", turn.get("value"))
    calls = [said] if speaker in CALLS else turn.get("tool_calls") or []
    further = call.get("content", call.get("value"))
    merged = {k: v for k, v in turn.items() if k not in ("from", "value", "role", "content", "tool_calls")}
    text = "" if speaker in CALLS else said
    return {**merged, "role": "assistant", "content": text, "tool_calls": [*_each(calls), *_each(further)]}


def _each(calls: Any) -> list[Any]:
    """Calls as a list: each may be JSON text of one or of several."""
    found: list[Any] = []
    for call in calls if isinstance(calls, list) else [calls]:
        read = _json(call) if isinstance(call, str) else call
        found += read if isinstance(read, list) else [call if read is None else read]
    return found


def _without_blocks(turn: Row) -> list[Row]:
    """A turn whose content is a list of blocks. Results of tools become turns of their own before it, calls
    and thoughts fields of it. Other blocks stay, so that what is not text is refused by name.
    """
    rest, calls, thoughts, results = list[Any](), list[Any](), list[str](), list[Row]()
    for block in turn["content"]:
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "tool_use":
            calls.append({"name": block.get("name"), "arguments": block.get("input"), "id": block.get("id")})
        elif kind == "tool_result":
            results.append(_result(block.get("content"), block.get("tool_use_id"), None))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking") or ""))
        elif kind in ("input_text", "output_text"):
            rest.append({"type": "text", "text": block.get("text")})
        elif kind != "redacted_thinking":
            rest.append(block)
    if len(rest) == len(turn["content"]) and rest == turn["content"]:
        return [turn]
    own: dict[str, Any] = {**turn, "content": rest}
    own |= {"tool_calls": calls} if calls and not turn.get("tool_calls") else {}
    own |= {"reasoning_content": "".join(thoughts)} if any(thoughts) else {}
    return [*results, *([own] if rest or calls or not results else [])]


def openai_tool(tool: Any) -> Any:
    """A tool in OpenAI's form, if it has that of Anthropic or of Responses. Others are returned as is."""
    if not isinstance(tool, Mapping) or "function" in tool or not isinstance(tool.get("name"), str):
        return tool
    if "input_schema" in tool:
        own = {"name": tool["name"], "description": tool.get("description") or ""}
        return {"type": "function", "function": {**own, "parameters": tool["input_schema"]}}
    if tool.get("type") == "function":
        return {
            "type": "function",
            "function": {k: v for k, v in tool.items() if k not in ("type", "strict")},
        }
    return tool


def declared(tools: Sequence[Any]) -> list[Any]:
    """Tools, with those that Gemini declares in groups one by one."""
    found: list[Any] = []
    for tool in tools:
        group = _first(tool, "functionDeclarations", "function_declarations")
        found += [{"type": "function", "function": one} for one in group] if group else [openai_tool(tool)]
    return found
