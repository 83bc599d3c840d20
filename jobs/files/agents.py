"""Agents' and providers' layouts, rewritten as OpenAI's `messages` before a row is read: Gemini's `contents`,
the items of OpenAI's Responses, ATIF's `steps`, pairs, and turns under other names (`trajectory`, `traj`,
`history` ...). Nothing is judged here: what a rewritten row holds is read, or refused by name, like any other
row. A row that has its question or its answer in columns is not rewritten.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs.files.columns import ANSWER_NAMES, ANSWER_RANKS, QUESTION_NAMES
from jobs.files.openai_turns import (
    Row,
    are_objects,
    filled,
    is_turn,
    json_in,
    result_turn,
    speaks_as,
    text_in,
)
from jobs.files.refusals import NotUnderstood
from jobs.files.values import is_nothing, whole

OTHER_NAMES = ("trajectory", "traj", "history", "dialog", "dialogue", "chat")  # of a list of turns
TURNS = ("messages", "conversations", "conversation")
HAS_TURNS = frozenset(TURNS)
MAY_DIFFER = frozenset({"steps", "contents", "input", "output", "answers", "prompt", *OTHER_NAMES})
ITEMS = ("message", "function_call", "function_call_output", "reasoning")  # types in OpenAI's Responses
SOURCES = ("user", "agent", "system")  # of ATIF's steps


def in_messages(row: Row) -> tuple[str, Row]:
    """A row with its turns under `messages`, or under `prompt` and `completion` where they are apart, and the
    name of the layout that they had. The name is empty if the row is returned as it is.

    Raises:
        NotUnderstood: the row is in a known layout, and a part of it is not known.
    """
    named = None
    if not HAS_TURNS.isdisjoint(row):
        named = next((name for name in TURNS if not is_nothing(row.get(name))), None)
    if named is not None:
        return _read_text(row, named)
    if MAY_DIFFER.isdisjoint(row):
        return "", row
    row = {**row, **{name: _turns_as_text(row[name]) for name in ("prompt", "completion") if name in row}}
    for layout, convert in LAYOUTS.items():
        try:
            found = convert(row)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise NotUnderstood(f"{layout} in an unknown form") from error
        if found is not None:
            return layout, {**{name: row[name] for name in row if name not in USED}, **found}
    return "", row


USED = ("input", "output")  # columns that are questions or answers elsewhere, once their turns were taken


def _turns_as_text(given: Any) -> Any:
    """Turns that are JSON text, as a list. Anything else is returned as it is."""
    if not isinstance(given, str) or not given.lstrip().startswith("[{"):
        return given
    found = json_in(given)
    return found if are_objects(found) and all(is_turn(turn) for turn in found) else given


def _read_text(row: Row, name: str) -> tuple[str, Row]:
    """A row whose turns are JSON text, or pairs of what a human and an assistant say."""
    given = row[name]
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = whole(json.loads(given))
        except (ValueError, RecursionError) as error:
            raise NotUnderstood(f"{name} that are a text, and no JSON") from error
        row = {**row, name: given}
    if are_objects(given) and all("human" in turn and "assistant" in turn for turn in given):
        return "pairs", {**row, name: None, "messages": [turn for own in given for turn in _of_pair(own)]}
    return "", row


def _of_pair(pair: Row) -> list[Row]:
    marks = {n: v for n, v in pair.items() if n not in ("human", "assistant", "system")}
    if strange := [
        n for n, v in marks.items() if not isinstance(v, bool | int | float) and not is_nothing(v)
    ]:
        raise NotUnderstood(f"a pair with {', '.join(strange)}")
    system = [{"role": "system", "content": pair["system"]}] if not is_nothing(pair.get("system")) else []
    asked = {"role": "user", "content": pair["human"]}
    return [*system, asked, {"role": "assistant", "content": pair["assistant"], **marks}]


def _has(row: Row, names: Sequence[str]) -> bool:
    return any(not is_nothing(row.get(name)) for name in names)


def _other_name(row: Row) -> Row | None:
    """Turns under another name. SWE-agent has them in `history`, and single steps in `trajectory`."""
    if _has(row, (*QUESTION_NAMES, *ANSWER_RANKS[0])):
        return None
    for name in OTHER_NAMES:
        given = _turns_as_text(row.get(name))
        if are_objects(given) and all(is_turn(turn) for turn in given):
            return {"messages": list(given)}
    return None


def _xlam(row: Row) -> Row | None:
    """A query, and the calls that answer it."""
    answers = row.get("answers")
    calls = json_in(answers) if isinstance(answers, str) else answers
    if not isinstance(row.get("query"), str) or not are_objects(calls) or _has(row, ANSWER_NAMES):
        return None
    if not all("name" in call and "arguments" in call for call in calls):
        return None
    asked = {"role": "user", "content": row["query"]}
    return {"messages": [asked, {"role": "assistant", "content": "", "tool_calls": calls}]}


def _gemini(row: Row) -> Row | None:
    """Gemini's `contents`: roles user, model and function, with parts."""
    given = row.get("contents")
    given = json_in(given) if isinstance(given, str) and given.lstrip().startswith("[{") else given
    if not are_objects(given) or not all("parts" in turn for turn in given):
        return None
    if _has(row, QUESTION_NAMES):
        return None
    turns: list[Row] = []
    told = row.get("systemInstruction") or row.get("system_instruction")
    if not is_nothing(told):
        turns.append({"role": "system", "content": _gemini_told(told)})
    for turn in given:
        speaker = str(turn.get("role") or "user")
        role = {"model": "assistant", "function": "tool"}.get(speaker, speaker)
        text, thought, calls, results = list[str](), list[str](), list[Row](), list[Row]()
        for part in [turn["parts"]] if isinstance(turn["parts"], Mapping) else turn["parts"] or ():
            if found := filled(part, "functionCall", "function_call"):
                calls.append(
                    {"name": found["name"], "arguments": found.get("args") or {}, "id": found.get("id")}
                )
            elif found := filled(part, "functionResponse", "function_response"):
                results.append(result_turn(found.get("response"), found.get("id"), found.get("name")))
            elif list(part) not in (["thoughtSignature"], ["thought_signature"]):  # encrypted reasoning
                (thought if part.get("thought") is True else text).append(_gemini_text(part))
        turns += results
        if text or calls or not results:
            own: dict[str, Any] = {"role": role, "content": "".join(text)}
            own |= {"tool_calls": calls} if calls else {}
            own |= {"reasoning_content": "".join(thought)} if thought else {}
            turns.append(own)
    return {"messages": turns}


def _gemini_told(told: Any) -> str:
    if isinstance(told, str):
        return told
    parts = told.get("parts") if isinstance(told, Mapping) else None
    return "".join(_gemini_text(part) for part in ([parts] if isinstance(parts, Mapping) else parts or ()))


def _gemini_text(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    names = ", ".join(part) if isinstance(part, Mapping) else type(part).__name__
    raise NotUnderstood(f"a part of the content with {names}")


def _responses(row: Row) -> Row | None:
    """The items of OpenAI's Responses: in `input`, which may be a text, and what was answered in `output`.
    Chat turns in `input` are items too.
    """
    given: Any = row.get("input")
    answered: Any = row.get("output")
    asked, said = _are_items(given), are_objects(answered) and _are_items(answered)
    if not (asked or (isinstance(given, str) and said)):
        return None
    if _has(row, [name for name in QUESTION_NAMES if name != "input"]):
        return None
    told = row.get("instructions")
    turns: list[Row] = [{"role": "system", "content": told}] if isinstance(told, str) and told else []
    turns += _items(given) if asked else [{"role": "user", "content": given}]
    if said:
        return {"prompt": turns, "completion": _items(answered)}
    if isinstance(answered, str) and answered.strip():
        return {"prompt": turns, "completion": answered}
    if not is_nothing(answered):
        raise NotUnderstood(f"an output that is neither text nor items but a {type(answered).__name__}")
    return {"messages": turns}


def _are_items(given: Any) -> bool:
    return are_objects(given) and all(is_turn(one) or str(one.get("type")) in ITEMS for one in given[:1])


def _items(given: Sequence[Any]) -> list[Row]:
    """Items as turns: reasoning, text and calls that follow each other are one turn of the assistant."""
    turns: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for item in given:
        kind = item.get("type") or "message"
        if kind == "reasoning":
            thoughts += [text_in(part) for part in item.get("content") or item.get("summary") or ()]
            continue
        if kind == "function_call_output":
            turns.append(result_turn(item.get("output"), item.get("call_id"), item.get("name")))
            continue
        if kind not in ("function_call", "message"):
            raise NotUnderstood(f"an item of type {kind}")
        role = "assistant" if kind == "function_call" else speaks_as(item.get("role"))
        if thoughts and role != "assistant":
            raise NotUnderstood("reasoning before a turn of the " + str(role))
        before = turns[-1] if turns and turns[-1]["role"] == role == "assistant" else None
        if kind == "message":
            own = {name: value for name, value in item.items() if name not in ("type", "id", "status")}
            if before is not None and (not is_nothing(before.get("content")) or before.get("tool_calls")):
                raise NotUnderstood("two turns of the assistant in a row")
            if before is not None:
                own = {**before, **own}
                turns.pop()
            own["role"] = role
            turns.append(own)
        else:
            call = {"name": item.get("name"), "arguments": item.get("arguments"), "id": item.get("call_id")}
            if before is None:
                before = {"role": role, "content": ""}
                turns.append(before)
            before["tool_calls"] = [*before.get("tool_calls", ()), call]
        if thoughts:
            turns[-1]["reasoning_content"] = "".join([turns[-1].get("reasoning_content") or "", *thoughts])
            thoughts = []
    if thoughts:
        raise NotUnderstood("reasoning without an answer after it")
    return list(turns)


def _atif(row: Row) -> Row | None:
    """The steps of ATIF: the agent's message and calls are one step, with their results in it."""
    steps = row.get("steps")
    steps = json_in(steps) if isinstance(steps, str) and steps.lstrip().startswith("[{") else steps
    if not are_objects(steps) or not all(
        step.get("source") in SOURCES and "message" in step for step in steps
    ):
        return None
    if _has(row, QUESTION_NAMES):
        return None
    turns: list[Row] = []
    for step in steps:
        own: dict[str, Any] = {
            "role": speaks_as(step["source"]),
            "content": step.get("message"),
            "reasoning_content": step.get("reasoning_content"),
        }
        calls: Any = step.get("tool_calls")
        if not is_nothing(calls):
            given = json_in(calls) if isinstance(calls, str) else calls
            own["tool_calls"] = [_atif_call(call) for call in (given if isinstance(given, list) else [given])]
        if step.get("is_copied_context"):  # said in an earlier trajectory, and not to be learnt again
            own["train"] = False
        turns.append(own)
        observed: Any = step.get("observation")
        if isinstance(observed, str) and observed.strip():
            turns.append(result_turn(observed, None, None))
        elif not is_nothing(observed):
            for one in observed.get("results") or ():
                text = one if isinstance(one, str) else one.get("content")
                turns.append(result_turn(text, None if text is one else one.get("source_call_id"), None))
    agent = row.get("agent")
    tools = agent.get("tool_definitions") if isinstance(agent, Mapping) else None
    return {"messages": turns} | ({} if is_nothing(tools) or row.get("tools") else {"tools": tools})


def _atif_call(call: Row) -> Row:
    return {
        "name": call.get("function_name"),
        "arguments": call.get("arguments"),
        "id": call.get("tool_call_id"),
    }


LAYOUTS: Mapping[str, Callable[[Row], Row | None]] = {
    "ATIF steps": _atif,
    "Gemini contents": _gemini,
    "Responses items": _responses,
    "messages": _other_name,
    "query and calls": _xlam,
}


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
        group = filled(tool, "functionDeclarations", "function_declarations")
        group = [group] if isinstance(group, Mapping) else group
        found += [{"type": "function", "function": one} for one in group] if group else [openai_tool(tool)]
    return found
