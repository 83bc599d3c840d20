"""Checks that a template's text keeps all parts of a conversation that it has to keep.

A template may leave out the reasoning of earlier turns, as reasoning models expect. It may move a system
text. It may write a tool's turn, arguments and tools as JSON. It must not leave out anything else: a question
without one of its turns is another question.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cluster.errors import Unrenderable
from cluster.models.messages import Message, Prompt, ToolCall
from cluster.models.reasoning import split_reasoning


def refuse_lost(prompt: Prompt, text: str) -> None:
    """Refuse a prompt if the template's text lacks one of its turns, tool calls or tools.

    Raises:
        Unrenderable: a piece is missing. Names the first.
    """
    for turn in prompt.turns:
        if turn.role == "system" and not _is_in(turn.content, text):
            raise _lost("system text", turn.content)
    for piece in pieces_of_tools(prompt):
        if not _is_in(piece, text):
            raise _lost("tools", piece)
    at = 0
    for turn in prompt.turns:
        for piece in () if turn.role == "system" else pieces_of_turn(turn):
            at = _after(piece, text, at)
            if at < 0:
                raise _lost(f"{turn.role}'s turn", piece)


def pieces_in(
    text: str, reasoning: str | None, content: str, calls: Sequence[ToolCall]
) -> Sequence[str] | None:
    """All pieces of an answer in the order in which a text holds them. None if the text lacks one. Some
    templates write tool calls before the text.
    """
    called, said = [piece for call in calls for piece in pieces_of_call(call)], [content.strip()]
    for pieces in ([*said, *called], [*called, *said]):
        if end_of(text, [reasoning or "", *pieces]) >= 0:
            return [reasoning or "", *pieces]
    return None


def end_of(text: str, pieces: Iterable[str]) -> int:
    """The end of the last of the pieces, which follow one another in a text. -1 if one is missing."""
    at = 0
    for piece in pieces:
        at = _after(piece, text, at)
        if at < 0:
            return -1
    return at


def texts_of(prompt: Prompt) -> Iterable[tuple[str, str]]:
    """All texts of a prompt, each with a word for what it is."""
    names = {
        "system": "system text",
        "user": "question",
        "assistant": "earlier answer",
        "tool": "tool's turn",
    }
    for turn in prompt.turns:
        yield turn.content, names[turn.role]
        if turn.reasoning:
            yield turn.reasoning, "earlier reasoning"
        for call in turn.tool_calls:
            yield f"{call.name} {json.loads(call.arguments)}", "tool call"
    if prompt.tools:
        yield json.dumps(json.loads(prompt.tools), ensure_ascii=False), "tools"


def pieces_of_turn(turn: Message) -> list[str]:
    """The pieces of a turn that must be in the text: its content, and its tool calls."""
    said = split_reasoning(turn.content)[1] if turn.role == "assistant" else turn.content
    return [said.strip(), *(piece for call in turn.tool_calls for piece in pieces_of_call(call))]


def pieces_of_call(call: ToolCall) -> list[str]:
    """The name of a called tool, and every value of its arguments."""
    return [call.name, *_leaves(json.loads(call.arguments))]


def pieces_of_tools(prompt: Prompt) -> list[str]:
    """The names and descriptions of the tools that a prompt offers."""
    tools = [tool.get("function", tool) for tool in prompt.tools_for_template() or []]
    return [str(tool[name]) for tool in tools for name in ("name", "description") if tool.get(name)]


def _leaves(value: Any) -> Sequence[str]:
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in (name, *_leaves(inner))]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value if isinstance(value, str) else json.dumps(value)]


def said_until(rest: str, pieces: Sequence[str], specials: "re.Pattern[str]") -> int:
    """The end of an answer's content in the template's text: the last place of its last piece outside special
    tokens, because `a` is in `<|channel|>` too.
    """
    blanked = specials.sub(lambda found: "\0" * len(found[0]), rest)
    last = next((piece for piece in reversed(pieces) if piece), "")
    return max((blanked.rfind(form) + len(form) for form in forms_of(last) if form in blanked), default=0)


def forms_of(piece: str) -> list[str]:
    """The forms in which a template may write a piece: unchanged, or as JSON (in ASCII too). A template may
    also write Python's True for true.
    """
    forms = [piece, json.dumps(piece, ensure_ascii=False)[1:-1], json.dumps(piece)[1:-1]]
    if piece in ("true", "false", "null"):
        forms.append({"true": "True", "false": "False", "null": "None"}[piece])
    return forms


def _after(piece: str, text: str, start: int) -> int:
    """The end of a piece in any form, searched from `start`. -1 if it is missing."""
    ends = [found + len(form) for form in forms_of(piece) if (found := text.find(form, start)) >= 0]
    return min(ends, default=-1)


def _is_in(piece: str, text: str) -> bool:
    return _after(piece.strip(), text, 0) >= 0


def _lost(what: str, piece: str) -> Unrenderable:
    return Unrenderable(
        f"the template does not keep the {what}", repr(piece[:60]), "all of it", "the row is left out"
    )
