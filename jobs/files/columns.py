"""Columns where a row usually keeps its question, reference, answer and id. Dotted paths reach into nested
rows; whole conversations are read by `turns`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

QUESTION_NAMES = ("question", "problem", "instruction", "prompt", "input")
REFERENCE_NAMES = (
    "reference_answer",
    "reference",
    "ground_truth",
    "reward_model.ground_truth",
    "gold",
    "target",
    "answer",
    "output",
)
ANSWER_NAMES = ("teacher_output", "completion", "response", "solution", "answer", "output")
ID_NAMES = ("id", "question_id", "problem_id")
TEACHER_NAMES = ("teacher", "teacher_name")


def value_at(row: Mapping[str, Any], dotted: str) -> Any:
    """What lies at a dotted path; None where the path ends early."""
    if "." not in dotted:
        return row.get(dotted)
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
    for name in usual:
        if (value := value_at(row, name)) is not None:
            return value
    return None


def first_filled(row: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> Any:
    """The same, passing over empty texts and lists."""
    names = usual if named is None else (named,)
    values = (value_at(row, name) for name in names)
    return next((value for value in values if value not in (None, "", [])), None)


def as_text(value: Any) -> str | None:
    """A plain value as text; None for nested ones, which hold turns."""
    return None if value is None or isinstance(value, list | dict) else str(value)
