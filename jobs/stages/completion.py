"""A chat completion as servers send it: what it says, how it ended, and what it cost, whatever else is odd
about it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.models.messages import Prompt, write_calls
from cluster.models.reasoning import with_reasoning
from jobs.files.turn import NotUnderstood, calls_of, reasoning_of, text_of

ENDED = ("stop", "tool_calls", "function_call", "eos_token", "stop_sequence", "end_turn", None)
CUT_OFF = ("length", "max_tokens")
CHARACTERS_PER_TOKEN = 4  # where a server tells no usage, so that a budget still ends


class Malformed(Exception):
    """A server's answer that is no chat completion.

    Attributes:
        used: the tokens that it tells all the same, prompt and answer: they are paid for; None where it tells
            none.
        is_understood: it is a completion, of which a part has no place here; another call would be no better.
    """

    def __init__(
        self, problem: str, used: tuple[int, int] | None = None, is_understood: bool = False
    ) -> None:
        super().__init__(problem)
        self.used, self.is_understood = used, is_understood


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
        raise Malformed("no choice with a message", used)
    finish = choice.get("finish_reason")
    try:
        thought, content = _parts(message.get("content"))
        thought = reasoning_of(message, content) or thought
        calls = calls_of(message.get("tool_calls")) or calls_of(message.get("function_call"))
    except NotUnderstood as error:
        raise Malformed(str(error), used, is_understood=True) from error
    odd = "" if finish in (*ENDED, *CUT_OFF) else f"it ended with {finish}"
    return Reply(
        _text(thought, content, bool(calls)),
        "length" if finish in CUT_OFF else "stop",
        thought,
        write_calls(calls),
        str(message.get("refusal") or "") or odd,
        used,
    )


def estimated(prompt: Prompt, said: str) -> tuple[int, int]:
    """Tokens of a prompt and of what was said, by their characters, for a server that tells none."""
    return estimated_prompt(prompt), len(said) // CHARACTERS_PER_TOKEN + 1


def estimated_prompt(prompt: Prompt) -> int:
    """Tokens of a prompt by its characters."""
    asked = sum(len(turn.content) for turn in prompt.turns) + len(prompt.tools)
    return asked // CHARACTERS_PER_TOKEN + 8


def _used(found: Any) -> tuple[int, int] | None:
    """Tokens of prompt and answer; what a server counts beside those two (reasoning) is answer too."""
    usage = found.get("usage") if isinstance(found, dict) else None
    if not isinstance(usage, dict):
        return None
    told = [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    prompt, answer, total = (int(n) if isinstance(n, int | float) else None for n in told)
    if prompt is None or answer is None or prompt + answer == 0:
        return None
    return prompt, max(answer, (total or 0) - prompt)


def _parts(content: Any) -> tuple[str, str]:
    """The reasoning and the text of content that may be a list of parts."""
    if not isinstance(content, list):
        return "", text_of(content)
    thoughts = [p for p in content if isinstance(p, Mapping) and p.get("type") == "thinking"]
    rest = [part for part in content if part not in thoughts]
    return "".join(text_of(part.get("thinking")) for part in thoughts), text_of(rest)


def _text(reasoning: str, content: str, has_calls: bool) -> str:
    """Content with its reasoning before it; reasoning alone was cut off: a block that never ends. A server
    that does not part them sends what its prompt had opened with the closing tag alone.
    """
    if not reasoning:
        is_opened = content.count("</think>") == 1 and "<think>" not in content
        return f"<think>{content}" if is_opened else content
    return with_reasoning(reasoning, content) if content or has_calls else f"<think>\n{reasoning}"
