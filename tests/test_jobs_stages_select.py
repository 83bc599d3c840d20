"""Choices under names in place of ids: the same rules, other draws."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs.experiment.arms.select import SelectArm
from jobs.stages.select import Names, choose_named, with_costs
from selection.scoring import STATISTIC_NAMES

ACCURACY = {"ann": 0.9, "bob": 0.5, "cat": 0.7, "dan": 0.2}
ARMS: dict[str, dict[str, Any]] = {
    "groups": {"cost": "scas", "groups": 3, "group": 2},
    "minimum": {"cost": "scas"},
    "top_k": {"cost": "naturalness", "k": 2},
    "softmax": {"cost": "scas", "temperature": 0.3},
    "random": {},
    "round_robin": {},
    "strongest": {},
    "teacher": {"teacher": "cat"},
}
# What the program chose of `scored_answers` when it drew by ids, before rows had keys: by rule and seed.
BY_IDS: dict[str, str] = {
    "groups 0": "c3d6b3f21c4b08d7",
    "groups 20260101": "c3d6b3f21c4b08d7",
    "minimum 0": "01e16dbdc569b99a",
    "minimum 20260101": "01e16dbdc569b99a",
    "top_k 0": "55a949af92ac6f0b",
    "top_k 20260101": "55a949af92ac6f0b",
    "softmax 0": "96f33abd1576c845",
    "softmax 20260101": "d73e97de7212d41e",
    "random 0": "2fff3c50dcd6e213",
    "random 20260101": "44c3b806456387fa",
    "round_robin 0": "88de4768e57aafc4",
    "round_robin 20260101": "88de4768e57aafc4",
    "strongest 0": "d407d4156732f806",
    "strongest 20260101": "d407d4156732f806",
    "teacher 0": "07c864ca5850d005",
    "teacher 20260101": "07c864ca5850d005",
}


def scored_answers() -> pd.DataFrame:
    """Statistics of 40 questions' answers by four teachers, some missing, some equal."""
    rng = np.random.default_rng(11)
    rows = []
    for q in range(40):
        for teacher in ACCURACY:
            if rng.random() < 0.2:
                continue
            values = np.round(rng.uniform(0.5, 3.0, len(STATISTIC_NAMES)), 1)  # to a tenth: there are ties
            state = "scored" if rng.random() < 0.95 else "too_long"
            rows.append((f"{teacher}/q{q}/0", f"q{q}", teacher, state, "", 10, *values))
    head = ["answer_id", "question_id", "teacher", "state", "reason", "conversation_tokens"]
    return pd.DataFrame(rows, columns=[*head, *STATISTIC_NAMES])


def told(chosen: pd.DataFrame) -> str:
    """A digest of a choice: its answers in their order, with their weights."""
    rows = zip(chosen["question_id"], chosen["answer_id"], chosen["weight"], strict=True)
    text = "\n".join(f"{q} {a} {w:.6f}" for q, a, w in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("rule", ARMS)
@pytest.mark.parametrize("seed", [0, 20260101])
def test_with_ids_for_names_the_choices_are_those_of_before_rows_had_keys(rule: str, seed: int) -> None:
    scored = scored_answers()
    arm = SelectArm(name="arm", rule=rule, **ARMS[rule])  # type: ignore[arg-type]
    ids = Names({q: q for q in scored["question_id"]}, {a: a for a in scored["answer_id"]})
    usable = with_costs(scored, arm, {})
    chosen = choose_named(usable, arm.rule_settings, seed, ACCURACY, ids)
    assert told(chosen) == BY_IDS[f"{rule} {seed}"]
    # other names: other draws, and still an answer of the same question
    other = Names({q: f"x{q}" for q in ids.questions}, {a: f"y{a}" for a in ids.answers})
    named = choose_named(usable, arm.rule_settings, seed, ACCURACY, other)
    assert set(named["question_id"]) == set(chosen["question_id"])
    assert set(named["answer_id"]) <= set(scored["answer_id"])
