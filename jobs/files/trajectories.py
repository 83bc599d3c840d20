"""Answers of many turns: a question is followed by turns of the assistant, with results of tools and further
turns of a user between them. The student learns all turns of the assistant.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from cluster.models.messages import Conversation, Message, Prompt
from jobs.files.refusals import NotUnderstood

# which turns of the assistant an answer is: the last one, or all after the question, together or each alone
WhichTurns = Literal["last", "all", "each"]
WHICH_TURNS: tuple[WhichTurns, ...] = ("last", "all", "each")


def question_and_turns(
    prompt: Prompt, answer: Message | None, said: int | None = None
) -> tuple[Prompt, Conversation]:
    """Divide a conversation into the question, up to the first turn of the assistant, and all turns after it.

    Args:
        prompt: the turns up to the last turn of the assistant, if there is one.
        answer: that turn.
        said: how many of the last turns are the answer's, if the row says so: earlier turns of the assistant
            are then part of the question.

    Raises:
        NotUnderstood: the conversation goes on after the assistant's last turn, or its calls and results do
            not fit.
    """
    asked = next((k for k, turn in enumerate(prompt.turns) if turn.role == "user"), 0)  # after a greeting
    said_by = (k for k, turn in enumerate(prompt.turns) if turn.role == "assistant" and k > asked)
    first = next(said_by, len(prompt.turns))
    if said is not None:
        first = max(0, len(prompt.turns) - max(0, said - 1))
    if not any(turn.role == "user" for turn in prompt.turns[:first]):
        raise NotUnderstood("a trajectory that begins with the assistant")
    if answer is None:
        last = prompt.turns[-1].role
        if first < len(prompt.turns):
            raise NotUnderstood(f"a trajectory that ends with a turn of the {last}")
        return prompt, ()
    turns = (*prompt.turns[first:], answer)
    refuse_unmatched(turns)
    refuse_same_tools(prompt)
    return Prompt(prompt.turns[:first], prompt.tools), turns


def refuse_unmatched(turns: Sequence[Message]) -> None:
    """Refuse calls without results, and results without calls. Calls that stand in an assistant's text are
    not looked for: a tool may answer any turn of the assistant that names no call. The last turn's calls have
    no result yet.

    Raises:
        NotUnderstood: names the tool or the call.
    """
    for turn, further in pairwise(turns):
        if turn.role == further.role == "assistant":
            raise NotUnderstood("two turns of the assistant in a row")
    at = 0
    while at < len(turns) - 1:
        turn, at = turns[at], at + 1
        results = []
        while at < len(turns) and turns[at].role == "tool":
            results.append(turns[at])
            at += 1
        if turn.role != "assistant" and results:
            raise NotUnderstood(f"a tool's result after a turn of the {turn.role}, without a call")
        calls, known = list(turn.tool_calls), {call.id for call in turn.tool_calls if call.id}
        if calls and at >= len(turns):
            break
        strange = next(
            (r.tool_call_id for r in results if known and r.tool_call_id not in {"", *known}), None
        )
        if strange is not None:
            raise NotUnderstood(f"a tool's result for the call {strange}, which nobody made")
        named = [r.tool_call_id for r in results if r.tool_call_id]
        if len(set(named)) < len(named):
            raise NotUnderstood("two results of tools for one call")
        if calls and len(results) < len(calls):
            raise NotUnderstood(f"a call of {calls[len(results)].name} without a result")
        if calls and len(results) > len(calls):
            raise NotUnderstood("more results of tools than calls")


def refuse_same_tools(prompt: Prompt) -> None:
    """Refuse two tools of one name: nobody knows which one a call means.

    Raises:
        NotUnderstood: with the name.
    """
    tools = json.loads(prompt.tools) if prompt.tools else []
    declared = [tool.get("function", tool) for tool in tools]
    if not all(isinstance(one, dict) for one in declared):
        raise NotUnderstood("a tool whose function is no object")
    names = [str(one.get("name", "")) for one in declared]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise NotUnderstood(f"two tools of the name {twice}")
