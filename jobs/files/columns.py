"""Where a row keeps its question, reference, answer and id, in the layouts of the field.

Plain columns (instruction, question, problem, prompt ... / reference_answer, answer ...), `messages` (OpenAI
roles), `conversations` (ShareGPT) or `prompt` and `completion` (TRL). Dotted paths reach into nested rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

QUESTION_NAMES = ("instruction", "question", "problem", "prompt", "input")
REFERENCE_NAMES = ("reference_answer", "reference", "ground_truth", "gold", "target", "answer", "output")
ANSWER_NAMES = ("teacher_output", "completion", "response", "solution", "answer", "output")
ID_NAMES = ("id", "question_id", "problem_id")
TURN_NAMES = ("messages", "conversations", "prompt", "completion")
SPEAKERS = {"user": ("user", "human"), "assistant": ("assistant", "gpt"), "system": ("system",)}


def value_at(row: Mapping[str, Any], dotted: str) -> Any:
    """What lies at a dotted path; None where the path ends early."""
    value: Any = row
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def first_value(row: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> Any:
    """The value of the column that the user named, else of the first usual one that has a value."""
    if named is not None:
        return value_at(row, named)
    return next((row[name] for name in usual if row.get(name) is not None), None)


def first_turn(row: Mapping[str, Any], role: str) -> str | None:
    """The first text of a role in `messages` or `conversations`, or in a conversational `prompt` or
    `completion`.
    """
    found = (row.get(name) for name in TURN_NAMES)
    for turn in (turn for turns in found if isinstance(turns, list) for turn in turns):
        if turn.get("role", turn.get("from")) in SPEAKERS[role]:
            return str(turn.get("content", turn.get("value", "")))
    return None


def as_text(value: Any) -> str | None:
    """A plain value as text; None for nested ones, which hold turns."""
    return None if value is None or isinstance(value, list | dict) else str(value)
