"""Chosen answers in the formats that trainers read. What a format cannot hold is refused row by row, with its
reason.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.models.messages import Message, Prompt
from cluster.models.reasoning import with_reasoning
from jobs.files.questions import Question

ASKING = ("human", "observation")
SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}  # as ShareGPT calls them


class CannotHold(Exception):
    """What of a row a format has no place for."""


@dataclass(frozen=True)
class ChosenAnswer:
    """An answer that an arm chose, with what was said of it.

    Attributes:
        about: teacher, cost, rank, candidates and weight.
        worse: another answer to the question, wrong or costlier, and which of these; None where there is
        none.
    """

    question: Question
    answer: Message
    teacher: str
    about: Mapping[str, Any]
    worse: tuple[Message, str, str] | None = None

    @property
    def ids(self) -> dict[str, Any]:
        """What every format tells beside the turns; TRL's multi-teacher trainer routes by `teacher_id`."""
        return {"id": self.question.id, "teacher_id": self.teacher, **self.about}


def as_messages(chosen: ChosenAnswer) -> dict[str, Any]:
    """OpenAI's `messages`, the answer last, its reasoning in a field of its own."""
    turns = [*chosen.question.prompt.turns, chosen.answer]
    row = {"messages": [turn.for_server() | reasoning_of(turn) for turn in turns]}
    return row | tools_of(chosen.question.prompt) | chosen.ids


def as_prompt_completion(chosen: ChosenAnswer) -> dict[str, Any]:
    """TRL's conversational prompt and completion; arguments are objects, as its templates loop over them."""
    row = {"prompt": chosen.question.prompt.for_template(), "completion": [chosen.answer.for_template()]}
    return row | tools_of(chosen.question.prompt) | chosen.ids


def as_llama_factory(chosen: ChosenAnswer) -> dict[str, Any]:
    """LLaMA-Factory's sharegpt layout: calls are turns of their own kind, reasoning stands in think tags.

    Raises:
        CannotHold: a turn that says something and calls a tool.
    """
    turns = [_sharegpt(turn) for turn in (*chosen.question.prompt.turns, chosen.answer)]
    speakers = [turn["from"] for turn in turns if turn["from"] != "system"]
    if any((who in ASKING) != (place % 2 == 0) for place, who in enumerate(speakers)):
        raise CannotHold("turns that do not alternate")
    tools = {"tools": chosen.question.prompt.tools} if chosen.question.prompt.tools else {}
    return {"conversations": turns} | tools | chosen.ids


def as_verl(chosen: ChosenAnswer) -> dict[str, Any]:
    """verl's row for reinforcement learning: the prompt, and the first reference as ground truth.

    Raises:
        CannotHold: turns with calls, or tools; no reference.
    """
    q = chosen.question
    if q.prompt.tools or any(turn.tool_calls or turn.role == "tool" for turn in q.prompt.turns):
        raise CannotHold("tools")
    if not q.references:
        raise CannotHold("a question without a reference answer")
    extra = {"id": q.id, "teacher_id": chosen.teacher, "answer": chosen.answer.content}
    return {
        "data_source": q.family or "tutelage",
        "prompt": [{"role": turn.role, "content": turn.content} for turn in q.prompt.turns],
        "ability": q.family,
        "reward_model": {"style": "rule", "ground_truth": q.reference},
        "extra_info": extra,
    }


def as_preference(chosen: ChosenAnswer) -> dict[str, Any]:
    """TRL's preference pair: the chosen answer before a wrong one, or before the costliest right one.

    Raises:
        CannotHold: a question with nothing to reject.
    """
    if chosen.worse is None:
        raise CannotHold("a question with no other answer to reject")
    turn, teacher, why = chosen.worse
    row = {
        "prompt": chosen.question.prompt.for_template(),
        "chosen": [chosen.answer.for_template()],
        "rejected": [turn.for_template()],
        "rejected_teacher_id": teacher,
        "rejected_because": why,
    }
    return row | tools_of(chosen.question.prompt) | chosen.ids


def reasoning_of(turn: Message) -> dict[str, Any]:
    return {} if turn.reasoning is None else {"reasoning_content": turn.reasoning}


def tools_of(prompt: Prompt) -> dict[str, Any]:
    """The tools as JSON text, which keeps their schemas apart in a column."""
    return {"tools": prompt.tools} if prompt.tools else {}


def _sharegpt(turn: Message) -> dict[str, str]:
    if not turn.tool_calls:
        return {
            "from": SPEAKERS.get(turn.role, turn.role),
            "value": with_reasoning(turn.reasoning, turn.content),
        }
    if turn.content.strip() or turn.reasoning:
        raise CannotHold("a turn that both says something and calls a tool")
    calls = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in turn.tool_calls]
    return {"from": "function_call", "value": json.dumps(calls[0] if len(calls) == 1 else calls)}


FORMATS: dict[str, Callable[[ChosenAnswer], dict[str, Any]]] = {
    "messages": as_messages,
    "trl": as_prompt_completion,
    "llama-factory": as_llama_factory,
    "verl": as_verl,
    "preference": as_preference,
}
