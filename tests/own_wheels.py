"""An experiment of kind `training_wheels` on an untrained model, which also is the teacher. For tests of how
the parts work together, not of what is learned.
"""

from typing import Any

WHEELS: dict[str, Any] = {
    "budgets": [0, 20, 40],
    "questions": 6,
    "cloning_questions": 12,
    "steps_per_round": 2,
    "max_new_tokens": 10,
}


def practised(
    world: dict[str, Any], model: object, arms: list[dict[str, Any]], **about: Any
) -> dict[str, Any]:
    """The small world with a hosted teacher, and these arms."""
    return world | {
        "teachers": [{"kind": "model", "name": "tia", "path": str(model)}],
        "arms": [{"kind": "training_wheels", "teacher": "tia", **arm} for arm in arms],
        "wheels": WHEELS | about,
        "rounds": 3,
        "train": {"batch_size": 4, "steps": 2, "learning_rate": 1e-3},
        "verify": {"method": "exact", "pattern": r"(?s)\A(.+)\Z"},
        "evaluate": {"max_new_tokens": 12, "allow_truncation": True},
    }
