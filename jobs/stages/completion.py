"""Reading a chat completion as servers send it: its text, how it ended, and what it cost. Deviations from the
standard are accepted.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.errors import describe
from cluster.models.messages import Prompt, write_calls
from cluster.models.reasoning import with_reasoning
from cluster.models.repair import begun, repaired_text
from jobs.files.openai_turns import thought_in
from jobs.files.refusals import NotUnderstood
from jobs.files.turn import CUT_OFF, calls_of, reasoning_of, text_of
from jobs.stages.answers import MOST_TOKENS
from jobs.stages.refusal import SAID, NoAnswer, Refused, error_in, words_of_body

# parts of finish reasons that mean there is no answer; with the first group another call may succeed
INTERRUPTED = re.compile(
    "abort|cancel|error|fail|insufficient|interrupt|malformed|network|timeout|timed_out|unexpected"
)
KEPT_BACK = re.compile(
    "black_?list|block|deny|denied|filter|guardrail|moderat|policy|prohibit|recitation|"
    "refus|safety|sensitive|spii|toxic|violat"
)
CHARACTERS_PER_TOKEN = 4  # used if a server reports no usage, so that a budget is still kept
COUNTS = (
    ("prompt_tokens", "input_tokens"),
    ("completion_tokens", "output_tokens"),
    ("total_tokens",),
)


class Malformed(NoAnswer):
    """A reply is no chat completion, or has a part that cannot be stored (`is_final`)."""

    kind = "malformed response: "
    may_cost = True


@dataclass(frozen=True)
class Reply:
    """A server's reply.

    Attributes:
        text: the answer, with its reasoning in think tags.
        finish: stop or length.
        reasoning: the reasoning, if it came in its own field.
        calls: the tool calls as JSON text.
        refusal: why the server withheld its answer. Empty if it did not.
        is_interrupted: whether another call may give an answer.
        tells_finish: whether the server said how the answer ended.
        used: tokens of prompt and answer. None if the server does not report them.
        model: the model that answered, as the server calls it. Empty if it does not say.
    """

    text: str
    finish: str
    reasoning: str
    calls: str
    refusal: str
    used: tuple[int, int] | None
    is_interrupted: bool = False
    tells_finish: bool = True
    model: str = ""


def read_reply(body: str) -> Reply:
    """Read a chat completion.

    Empty content is an answer: everything went into reasoning or tool calls, or the limit came first.

    Raises:
        Malformed: the JSON is cut off, or has no readable message.
        Refused: an error where the answer should be.
    """
    found = _json(body)
    used = _used(found)
    choices = found.get("choices") if isinstance(found, dict) else None
    choice = first_of(choices)
    error = error_in(found) or (error_in({"error": choice.get("error")}) if isinstance(choice, dict) else "")
    if error:
        raise Refused(f"the reply has status 200 and holds an error: {error}", used)
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        kept_back = _kept_back(found, choice)
        if kept_back:
            return Reply("", "stop", "", "", f"it ended with {kept_back}", used)
        raise Malformed("no choice with a message", used)
    try:
        reply = _reply(message, _word(choice.get("finish_reason")), used)
    except NotUnderstood as odd:
        raise Malformed(str(odd), used, is_final=True) from odd
    except Exception as odd:  # any value may stand where a text should be
        raise Malformed(describe(odd), used, is_final=True) from odd
    model = found.get("model")
    return replace(reply, model=model.strip()[:SAID] if isinstance(model, str) else "")


SAME_MODEL = re.compile(r"([-@:._ ](v?\d[\d.:-]*|main|preview|free|beta|exp(erimental)?))*")


def is_same_model(asked: str, told: str) -> bool:
    """Whether a server's name of a model may be of the one that was asked for: without folders and providers,
    and but for a date or a version at its end.

    >>> is_same_model("gpt-4o", "gpt-4o-2024-08-06"), is_same_model("gpt-4o", "gpt-4o-mini-2024-07-18")
    (True, False)
    """
    names = [name.casefold().rstrip("/").split("/")[-1].removesuffix("-latest") for name in (asked, told)]
    short, long = sorted(names, key=len)
    return not told or (long.startswith(short) and SAME_MODEL.fullmatch(long[len(short) :]) is not None)


def first_of(choices: Any) -> Any:
    """The choice with the smallest index. None if there is none. Some servers send them out of order."""
    if not isinstance(choices, list) or not choices:
        return None
    indices = [choice.get("index") if isinstance(choice, dict) else None for choice in choices]
    if all(type(index) is int for index in indices):
        return choices[indices.index(min(indices))]  # type: ignore[type-var]
    return choices[0]


def _kept_back(found: Any, choice: Any) -> str:
    """Why there is no message, if the server keeps the answer back. Empty if it does not say so."""
    finish = _word(choice.get("finish_reason")) if isinstance(choice, dict) else ""
    if KEPT_BACK.search(finish):
        return finish
    if not isinstance(found, dict):
        return ""
    told = found.get("prompt_filter_results") or found.get("promptFeedback") or found.get("prompt_feedback")
    return "content_filter" if choice is None and told else ""


def _json(body: str) -> Any:
    """Parse a body as JSON.

    Raises:
        Malformed: it is no JSON. The message says what it is instead.
    """
    start = body.lstrip()[:16]
    if not start:
        raise Malformed("an empty body")
    if start.startswith(("data:", "event:", "id:", ":")):
        raise Malformed("an event stream, where one whole answer was asked for", is_final=True)
    if start.startswith("<"):
        raise Malformed(f"a page, not JSON: {words_of_body(body)}")
    try:
        return json.loads(body)
    except RecursionError as error:
        raise Malformed("JSON that is nested too deeply") from error
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from error


def _reply(message: Mapping[str, Any], finish: str, used: tuple[int, int] | None) -> Reply:
    """Read a message as a reply.

    Raises:
        NotUnderstood: it has a part that cannot be stored.
    """
    thought, content, refusal = _parts(message.get("content"))
    thought = thought or _parts(message.get("thinking_blocks") or [])[0]
    thought, content = repaired_text(reasoning_of(message, content) or thought), repaired_text(content)
    calls = calls_of(_called(message.get("tool_calls"))) or calls_of(_named(message.get("function_call")))
    written = write_calls(calls)
    json.loads(written or "[]", parse_constant=_refuse_constant)
    is_kept_back = KEPT_BACK.search(finish) is not None
    is_cut = CUT_OFF.search(finish) is not None
    is_interrupted = not is_kept_back and not is_cut and INTERRUPTED.search(finish) is not None
    odd = f"it ended with {finish}" if is_kept_back or is_interrupted else ""
    return Reply(
        _text(thought, content, bool(calls)),
        "length" if is_cut else "stop",
        thought,
        written,
        _refusal(message.get("refusal")) or refusal or odd,
        used,
        is_interrupted,
        bool(finish),
    )


def _named(call: Any) -> Any:
    """A function call, unless it has no name: some servers send an empty one beside every text."""
    return None if isinstance(call, Mapping) and not call.get("name") else call


def _word(finish: Any) -> str:
    """The finish reason in one spelling. Some engines send an object with a type."""
    if isinstance(finish, Mapping):
        return _word(finish.get("type"))
    if isinstance(finish, list):
        return _word(finish[0]) if finish else ""
    return re.sub(r"\W+", "_", finish.strip().lower())[:100] if isinstance(finish, str) else ""


def _called(calls: Any) -> Any:
    """Tool calls without those that are null."""
    return [call for call in calls if call is not None] if isinstance(calls, list) else calls


def _refuse_constant(name: str) -> None:
    raise NotUnderstood(f"a tool call with {name}, which is not JSON")


def _refusal(told: Any) -> str:
    """Why a server withholds its answer, if it says so."""
    return str(told) if told else ""


def estimated(prompt: Prompt, said: str) -> tuple[int, int]:
    """Estimate the tokens of a prompt and of an answer from their characters, for a server that reports
    none.
    """
    return estimated_prompt(prompt), len(said) // CHARACTERS_PER_TOKEN + 1


def estimated_prompt(prompt: Prompt) -> int:
    """Estimate the tokens of a prompt from its characters."""
    asked = sum(len(turn.content) for turn in prompt.turns) + len(prompt.tools)
    return asked // CHARACTERS_PER_TOKEN + 8


def _used(found: Any) -> tuple[int, int] | None:
    """Tokens of prompt and answer. Tokens that a server counts separately (reasoning) belong to the
    answer.
    """
    usage = found.get("usage") if isinstance(found, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, answer, total = (
        next((count for name in names if (count := _count(usage.get(name))) is not None), None)
        for names in COUNTS
    )
    if answer is None and prompt is not None and total is not None and total > prompt:
        answer = total - prompt  # servers that leave out zeros, or what the answer's reasoning took
    if prompt is None or answer is None or prompt + answer == 0:
        return None
    return prompt, max(answer, (total or 0) - prompt)


def _count(told: Any) -> int | None:
    """A number of tokens. None if the value is no number, or no possible one."""
    if isinstance(told, str) and re.fullmatch(r"\s*\d{1,12}(\.0+)?\s*", told, re.ASCII):
        told = float(told)
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    if isinstance(told, float) and not math.isfinite(told):
        return None
    return int(told) if 0 <= told <= MOST_TOKENS else None


def _parts(content: Any) -> tuple[str, str, str]:
    """The reasoning, the text and the server's refusal in a content: a text, one part, or a list of parts."""
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list):
        return "", text_of(parts), ""
    thoughts, texts, refusals = [], [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in ("thinking", "reasoning"):
            thoughts.append(thought_in(part))
        elif kind in ("redacted_thinking", "reference"):
            continue
        elif kind == "refusal":
            refusals.append(_refusal(part.get("refusal")))
        elif kind == "output_text":
            texts.append(text_of(part.get("text")))
        else:
            texts.append(text_of(part if isinstance(part, str) else [part]))
    return "".join(thoughts), "".join(texts), " ".join(refusals)


def _text(reasoning: str, content: str, has_calls: bool) -> str:
    """Join reasoning and content into one text. Reasoning without content becomes a block that never ends,
    because it was cut off. Some servers do not separate the two and send only the closing tag, because the
    prompt held the opening one.
    """
    if not reasoning:
        return begun(content)
    return with_reasoning(reasoning, content) if content or has_calls else f"<think>\n{reasoning}"
