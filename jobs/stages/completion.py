"""A chat completion as servers send it: what it says, how it ended, and what it cost, whatever else is odd
about it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.models.messages import Prompt, write_calls
from cluster.models.reasoning import with_reasoning
from jobs.files.turn import REASONING, NotUnderstood, calls_of, text_of

CHARACTERS_PER_TOKEN = 4  # where a server tells no usage, so that a budget still ends


class Malformed(Exception):
    """A server's answer that is no chat completion.

    Attributes:
        used: the tokens that it tells all the same, prompt and answer: they are paid for.
    """

    def __init__(self, problem: str, used: tuple[int, int] = (0, 0)) -> None:
        super().__init__(problem)
        self.used = used


@dataclass(frozen=True)
class Reply:
    """What a server said.

    Attributes:
        text: with its reasoning in think tags.
        finish: stop or length.
        reasoning: where it came in a field of its own.
        calls: JSON text of tool calls.
        refusal: why the server kept its answer back; empty where it did not.
        used: tokens of prompt and answer; None where the server does not tell.
    """

    text: str
    finish: str
    reasoning: str
    calls: str
    refusal: str
    used: tuple[int, int] | None


def read_reply(body: str) -> Reply:
    """Read a chat completion.

    Content that is empty is an answer: all of it went into reasoning or tool calls, or the limit came first.

    Raises:
        Malformed: half a JSON, or one without a message that can be read.
    """
    try:
        found = json.loads(body)
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error}") from error
    used = _used(found)
    choices = found.get("choices") if isinstance(found, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Malformed("no choice with a message", used or (0, 0))
    finish = choice.get("finish_reason")
    try:
        content = text_of(message.get("content"))
        calls = calls_of(message.get("tool_calls")) or calls_of(message.get("function_call"))
    except NotUnderstood as error:
        raise Malformed(str(error), used or (0, 0)) from error
    refusal = str(message.get("refusal") or "") or ("content filter" if finish == "content_filter" else "")
    return Reply(
        _text(message, content, bool(calls)),
        "length" if finish == "length" else "stop",
        _reasoning(message),
        write_calls(calls),
        refusal,
        used,
    )


def estimated(prompt: Prompt, reply: Reply) -> tuple[int, int]:
    """Tokens of prompt and answer by their characters, for a server that tells none."""
    asked = sum(len(turn.content) for turn in prompt.turns) + len(prompt.tools)
    return asked // CHARACTERS_PER_TOKEN + 8, (len(reply.text) + len(reply.calls)) // CHARACTERS_PER_TOKEN + 1


def _used(found: Any) -> tuple[int, int] | None:
    usage = found.get("usage") if isinstance(found, dict) else None
    if not isinstance(usage, dict):
        return None
    told = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, answer = (n if isinstance(n, int) else 0 for n in told)
    return prompt, answer


def _reasoning(message: Mapping[str, Any]) -> str:
    return next((message[k] for k in REASONING if isinstance(message.get(k), str)), "")


def _text(message: Mapping[str, Any], content: str, has_calls: bool) -> str:
    """Content with its reasoning before it; reasoning alone was cut off: a block that never ends."""
    reasoning = _reasoning(message)
    if not reasoning or "<think>" in content:
        return content
    return with_reasoning(reasoning, content) if content or has_calls else f"<think>\n{reasoning}"
