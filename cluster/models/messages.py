"""Turns of a conversation, as chat templates take them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by an assistant.

    Attributes:
        arguments: JSON text of an object.
    """

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        content: the text. Empty if the turn is only a tool call or reasoning.
        reasoning: an assistant's reasoning before its answer. None if it is unknown.
        name, tool_call_id: for a tool's turn, the tool and the call that it answers.
    """

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""
    tool_call_id: str = ""

    def for_template(self) -> dict[str, Any]:
        """The turn as a template takes it, with OpenAI's names. Missing fields are left out."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            turn["reasoning_content"] = self.reasoning
        if self.tool_calls:
            turn["tool_calls"] = [_call_for_template(call) for call in self.tool_calls]
        turn |= {key: value for key in ("name", "tool_call_id") if (value := getattr(self, key))}
        return turn

    def for_server(self) -> dict[str, Any]:
        """The turn as an OpenAI-compatible server takes it."""
        turn = self.for_template()
        turn.pop("reasoning_content", None)
        if self.tool_calls:
            turn["content"] = self.content or None
            for call, own in zip(turn["tool_calls"], self.tool_calls, strict=True):
                call["function"]["arguments"] = own.arguments
        return turn


def _answered_by(turn: Mapping[str, Any], calls: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The call that a tool's turn answers: the one with its id, else the first one without an id and with its
    name, else the first one that fits neither worse.
    """
    wanted, name = turn.get("tool_call_id"), turn.get("name")
    if wanted:
        found = next((call for call in calls if call.get("id") == wanted), None)
        if found is not None:
            return found
        calls = [call for call in calls if not call.get("id")]
    named = [call for call in calls if name and call["function"]["name"] == name]
    return next(iter(named or calls), None)


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that is to be answered.

    Attributes:
        turns: the turns up to the one to be answered.
        tools: the tools that the answer may use, as JSON text of a list. Empty for none.
    """

    turns: Conversation
    tools: str = ""

    @property
    def text(self) -> str:
        """The text shown to users: the last turn."""
        return self.turns[-1].content

    @property
    def system(self) -> str | None:
        """The text of the system's turn at the beginning, if there is one."""
        return self.turns[0].content if self.turns[0].role == "system" else None

    @property
    def is_plain(self) -> bool:
        """Whether it is one user turn, possibly after a system turn, without tools."""
        body = self.turns[self.turns[0].role == "system" :]
        return len(body) == 1 and body[0] == Message("user", body[0].content) and not self.tools

    def for_template(self) -> list[dict[str, Any]]:
        """The turns as a template takes them."""
        return [turn.for_template() for turn in self.turns]

    def for_server(self) -> list[dict[str, Any]]:
        """The turns as OpenAI-compatible servers take them. Arguments are text, and every call and the turn
        that answers it have an id. Reasoning of earlier turns is left out, because servers refuse or drop it.
        """
        turns = [turn.for_server() for turn in self.turns]
        taken = {str(call["id"]) for turn in turns for call in turn.get("tool_calls", ()) if call.get("id")}
        taken |= {str(turn["tool_call_id"]) for turn in turns if turn.get("tool_call_id")}
        free = (name for k in count(1) if (name := f"call_{k}") not in taken)
        open_calls: list[dict[str, Any]] = []
        for turn in turns:
            open_calls += turn.get("tool_calls", ())
            if turn["role"] == "tool":
                call = _answered_by(turn, open_calls)
                own = turn.get("tool_call_id") or (call or {}).get("id") or next(free)
                turn["tool_call_id"] = own
                if call is not None:
                    call.setdefault("id", own)
                    open_calls.remove(call)
        for call in (call for turn in turns for call in turn.get("tool_calls", ())):
            if not call.get("id"):
                call["id"] = next(free)
        return turns

    def tools_for_server(self) -> list[dict[str, Any]]:
        """The tools as OpenAI-compatible servers take them. Data sets often omit the outer object, which is
        added.
        """
        tools = self.tools_for_template() or []
        return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]

    def tools_for_template(self) -> list[dict[str, Any]] | None:
        """The tools as a template takes them. None if there are none."""
        return json.loads(self.tools) if self.tools else None

    def told(self, system: str | None) -> "Prompt":
        """The same prompt with a further system text before its own."""
        if system is None:
            return self
        own = self.system
        body = self.turns[own is not None :]
        return Prompt((Message("system", system if own is None else f"{system}\n\n{own}"), *body), self.tools)

    def to_json(self) -> str:
        """The prompt as JSON text, which `read_prompt` reads."""
        return json.dumps({"messages": self.for_template(), **({"tools": self.tools} if self.tools else {})})


def plain(question: str, system: str | None = None) -> Prompt:
    """A question of one turn."""
    head = () if system is None else (Message("system", system),)
    return Prompt((*head, Message("user", question)))


def read_prompt(text: str) -> Prompt:
    """Read a prompt that `Prompt.to_json` wrote."""
    found = json.loads(text)
    return Prompt(tuple(_turn(turn) for turn in found["messages"]), found.get("tools", ""))


def write_calls(calls: Sequence[ToolCall]) -> str:
    """Tool calls as JSON text in OpenAI's form; empty for none."""
    return json.dumps([_call_for_template(c) for c in calls], ensure_ascii=False) if calls else ""


def read_calls(text: str) -> tuple[ToolCall, ...]:
    """Read tool calls that `write_calls` wrote."""
    found = json.loads(text) if text else []
    return tuple(
        ToolCall(
            c["function"]["name"],
            json.dumps(c["function"]["arguments"], ensure_ascii=False),
            c.get("id", ""),
        )
        for c in found
    )


def write_turns(turns: Sequence[Message]) -> str:
    """Turns as JSON text; empty for none."""
    return json.dumps([turn.for_template() for turn in turns], ensure_ascii=False) if turns else ""


def read_turns(text: str) -> Conversation:
    """Read turns that `write_turns` wrote."""
    return tuple(_turn(turn) for turn in json.loads(text)) if text else ()


def _turn(turn: Mapping[str, Any]) -> Message:
    """A turn that `Message.for_template` wrote."""
    calls = read_calls(json.dumps(turn.get("tool_calls", []), ensure_ascii=False))
    reasoning, name, call = (
        turn.get("reasoning_content"),
        turn.get("name", ""),
        turn.get("tool_call_id", ""),
    )
    return Message(turn["role"], turn["content"], reasoning, calls, name, call)


def _call_for_template(call: ToolCall) -> Mapping[str, Any]:
    """A call as a template takes it. Arguments are an object, because templates loop over them."""
    function = {"name": call.name, "arguments": json.loads(call.arguments)}
    return {"type": "function", "function": function, **({"id": call.id} if call.id else {})}
