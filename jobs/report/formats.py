"""Chosen answers in the formats of training programs. A row that a format cannot hold is refused with a
reason."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.models.messages import Conversation, Message, Prompt
from cluster.models.reasoning import with_reasoning
from jobs.files.questions import Question

ASKING = ("human", "observation")
SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}  # as ShareGPT calls them


class CannotHold(Exception):
    """A format cannot hold a row. The message names the part that does not fit."""


@dataclass(frozen=True)
class ChosenAnswer:
    """An answer that an arm chose, with facts about it.

    Attributes:
        said: the turns after the question, of which the last one is the assistant's.
        about: teacher, cost, rank, candidates and weight.
        worse: the turns of another answer to the question, its teacher, and whether it is `wrong` or
            `costlier`. None if there is none.
    """

    question: Question
    said: Conversation
    teacher: str
    about: Mapping[str, Any]
    worse: tuple[Conversation, str, str] | None = None

    @property
    def ids(self) -> dict[str, Any]:
        """The fields that every format has besides the turns. TRL's multi-teacher trainer selects the teacher
        by `teacher_id`.
        """
        return {"id": self.question.id, "teacher_id": self.teacher, **self.about}


def as_messages(chosen: ChosenAnswer) -> dict[str, Any]:
    """OpenAI's `messages`. The answer is the last one, with its reasoning in a separate field."""
    turns = [*chosen.question.prompt.turns, *chosen.said]
    row = {"messages": [turn.for_server() | reasoning_of(turn) for turn in turns]}
    return row | tools_of(chosen.question.prompt) | chosen.ids


def as_prompt_completion(chosen: ChosenAnswer) -> dict[str, Any]:
    """TRL's conversational prompt and completion. Arguments of tool calls are objects, because TRL's
    templates loop over them.
    """
    said = [turn.for_template() for turn in chosen.said]
    row = {"prompt": chosen.question.prompt.for_template(), "completion": said}
    return row | tools_of(chosen.question.prompt) | chosen.ids


def as_llama_factory(chosen: ChosenAnswer) -> dict[str, Any]:
    """LLaMA-Factory's sharegpt layout. Tool calls are turns of their own kind. Reasoning is in think tags.

    Raises:
        CannotHold: a turn has both text and a tool call, or turns do not alternate.
    """
    turns = [_sharegpt(turn) for turn in (*chosen.question.prompt.turns, *chosen.said)]
    speakers = [turn["from"] for turn in turns if turn["from"] != "system"]
    if any((who in ASKING) != (place % 2 == 0) for place, who in enumerate(speakers)):
        raise CannotHold("turns that do not alternate")
    tools = {"tools": chosen.question.prompt.tools} if chosen.question.prompt.tools else {}
    return {"conversations": turns} | tools | chosen.ids


def as_verl(chosen: ChosenAnswer) -> dict[str, Any]:
    """verl's row for reinforcement learning: the prompt, and the first reference as ground truth.

    Raises:
        CannotHold: a turn has tool calls, there are tools or several turns, or there is no reference.
    """
    q = chosen.question
    if q.prompt.tools or any(turn.tool_calls or turn.role == "tool" for turn in q.prompt.turns):
        raise CannotHold("tools")
    if len(chosen.said) > 1:
        raise CannotHold("an answer of many turns")
    if not q.references:
        raise CannotHold("a question without a reference answer")
    extra = {"id": q.id, "teacher_id": chosen.teacher, "answer": chosen.said[-1].content}
    return {
        "data_source": q.family or "tutelage",
        "prompt": [{"role": turn.role, "content": turn.content} for turn in q.prompt.turns],
        "ability": q.family,
        "reward_model": {"style": "rule", "ground_truth": q.reference},
        "extra_info": extra,
    }


def as_preference(chosen: ChosenAnswer) -> dict[str, Any]:
    """TRL's preference pair. The chosen answer is preferred to a wrong one, or else to the right one with the
    highest cost above its own.

    Raises:
        CannotHold: the question has no answer to reject.
    """
    if chosen.worse is None:
        raise CannotHold("a question with no other answer to reject")
    turns, teacher, why = chosen.worse
    row = {
        "prompt": chosen.question.prompt.for_template(),
        "chosen": [turn.for_template() for turn in chosen.said],
        "rejected": [turn.for_template() for turn in turns],
        "rejected_teacher_id": teacher,
        "rejected_because": why,
    }
    return row | tools_of(chosen.question.prompt) | chosen.ids


def reasoning_of(turn: Message) -> dict[str, Any]:
    return {} if turn.reasoning is None else {"reasoning_content": turn.reasoning}


def tools_of(prompt: Prompt) -> dict[str, Any]:
    """The tools as JSON text. As text, tools with different schemas fit into one column."""
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
