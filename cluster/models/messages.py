"""Turns of a conversation, as chat templates take them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
        content: empty where a turn is a tool call or reasoning alone.
        reasoning: what an assistant thought before it answered; None where nothing is known of it.
        name, tool_call_id: of a tool's turn: which tool, and which call it answers.
    """

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""
    tool_call_id: str = ""

    def for_template(self) -> dict[str, Any]:
        """As a template takes it, in OpenAI's names; nothing is named that is not there."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            turn["reasoning_content"] = self.reasoning
        if self.tool_calls:
            turn["tool_calls"] = [_call_for_template(call) for call in self.tool_calls]
        turn |= {key: value for key in ("name", "tool_call_id") if (value := getattr(self, key))}
        return turn


Conversation = tuple[Message, ...]


def single_turn(question: str, system: str | None = None) -> Conversation:
    """A question of one turn."""
    head = () if system is None else (Message("system", system),)
    return (*head, Message("user", question))


def _call_for_template(call: ToolCall) -> Mapping[str, Any]:
    """Templates loop over arguments, so they get them as an object."""
    function = {"name": call.name, "arguments": json.loads(call.arguments)}
    return {"type": "function", "function": function, **({"id": call.id} if call.id else {})}
