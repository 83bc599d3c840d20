"""An experiment of kind `arte` on an untrained model: any text is a question, and every result can be read.
For tests of how the parts work together, not of what is learned.
"""

from typing import Any

ELICIT: dict[str, Any] = {
    "teacher": "tia",
    "tasks": {"chain": "Write a question of kind chain.", "grid": "Write a question of kind grid."},
    "styles": {"short": "Be short.", "long": "Explain.", "odd": "Be odd."},
    "prompt": "{description}\n{examples}\n{count}",
    "example": "{question}",
    "pattern": r"(?s)\A(?P<question>.{1,8})",  # not to the end, because every text is cut off
    "truth": "tests.own_writing:result_of",
    "shown": 1,
    "count": 1,
    "questions": 8,
    "seeds": 2,
    "validation": 3,
    "items": 2,
    "max_new_tokens": 12,
    "examples": 6,
    "influence": {"warm_steps": 2, "batch_size": 2, "references": 6},
    "align": {"least_reliability": -1.0, "learning_rate": 1e-3, "batch_size": 4, "held_out": 0.2},
}


def result_of(question: str) -> str | None:
    """The result of a question. Some questions have none, so their rationales vote."""
    return None if len(question) % 3 == 0 else str(len(question))


def written(world: dict[str, Any], model: object, arms: list[dict[str, Any]]) -> dict[str, Any]:
    """The small world with a teacher that writes, and these arms."""
    return world | {
        "teachers": [{"kind": "model", "name": "tia", "path": str(model)}],
        "arms": arms,
        "elicit": ELICIT,
        "generate": {"max_new_tokens": 16},
        "verify": {"method": "exact", "pattern": r"(?s)\A(.+)\Z"},
        "evaluate": {"max_new_tokens": 64, "allow_truncation": True},
    }
