"""Settings and options that once were ignored, gave wrong results silently, or ended in a traceback."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tutelage
from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.parsing import parse_experiment
from jobs.standalone.audit import check_sample
from jobs.standalone.select import says_wrong
from jobs.standalone.student import device_of
from selection.audit import NORMS, agreements
from selection.rules import RuleSettings, check_rule
from selection.rules import choose as choose_by_rule
from selection.verification import VerifySettings, check_settings, is_right
from training.settings import LoraSettings, TrainSettings
from training.settings import check_settings as check_training

TREE: dict[str, Any] = {
    "name": "x",
    "questions": {"train": "a.jsonl", "evaluate": "b.jsonl"},
    "teachers": [{"kind": "file", "name": "ann", "path": "ann.jsonl"}],
    "students": [{"name": "kid", "path": "kid"}],
    "arms": [{"name": "scas", "rule": "minimum", "cost": "scas"}],
}


def odd(answer: str, reference: str) -> tuple[bool, str]:
    return False, "why"


@pytest.mark.parametrize(
    "value", [(False, "why"), {"acc": False}, 0.1, -1, math.nan, "incorrect", None, [], (v for v in ())]
)
def test_a_check_that_returns_something_else_says_nothing(value: object) -> None:
    with pytest.raises(TypeError, match="returns True or False"):
        is_right(value, "mine:check")


@pytest.mark.parametrize("value", [True, 1, 1.0, np.bool_(True), np.float32(1)])
def test_a_check_may_return_a_number_for_true_or_false(value: Any) -> None:
    assert is_right(value, "mine:check")
    assert not is_right(type(value)(0), "mine:check")


def test_a_function_that_is_not_called_or_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="--method function"):
        tutelage.verify(["A: 1"], ["1"], function="operator:eq")
    with pytest.raises(BadInput, match="is no text"):
        check_settings(VerifySettings("function", function=odd))  # type: ignore[arg-type]
    for wrong in ({"timeout_s": 0.0}, {"timeout_s": -1.0}, {"tolerance": -1.0}, {"tolerance": math.nan}):
        with pytest.raises(BadInput, match="out of range"):
            check_settings(VerifySettings("numeric", **wrong))  # type: ignore[arg-type]


def test_unchecked_answers_are_not_called_accurate() -> None:
    with pytest.raises(BadInput, match="would call every answer of a student right"):
        parse_experiment(TREE | {"verify": {"method": "none"}})
    assert parse_experiment(TREE | {"verify": {"method": "none"}, "evaluate": {"metric": "loss"}})
    own = {"train": "a.jsonl", "evaluate": "b.jsonl", "evaluate_fields": {"method": "how"}}
    assert parse_experiment(TREE | {"verify": {"method": "none"}, "questions": own})


def test_messages_name_the_misspelt_key_and_say_what_is_wrong() -> None:
    for wrong, said in (
        ({k: v for k, v in TREE.items() if k != "questions"} | {"question": {}}, "did you mean questions"),
        ({k: v for k, v in TREE.items() if k != "arms"}, "arms is missing"),
        (TREE | {"arms": [{"name": "a", "group": 9}]}, r"arms\.0: .*group"),
        (TREE | {"evaluate": {"baseline": "zed"}}, "^evaluate.baseline zed is no arm"),
        (TREE | {"students": [{"name": "k" * 300, "path": "kid"}]}, "students.0.name"),
    ):
        with pytest.raises(BadInput, match=said) as told:
            parse_experiment(wrong)
        assert "expected evaluate.baseline" not in str(told.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"warmup_ratio": 5.0},
        {"warmup_ratio": -1.0},
        {"weight_decay": math.nan},
        {"gradient_clipping": -1.0},
        {"lora": LoraSettings(alpha=-1)},
        {"lora": LoraSettings(r=0)},
        {"steps": 5, "epochs": 7.0},
        {"tokens": 500, "epochs": 7.0},
    ],
)
def test_training_numbers_are_in_range_and_say_one_length(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="train"):
        check_training(TrainSettings(**wrong))
    check_training(TrainSettings(steps=5))


def test_lists_beside_one_another_are_lists() -> None:
    for given in ({"x": "What is 1 + 2?"}, {"A: 1"}):
        with pytest.raises(BadInput, match="no list"):
            tutelage.verify(["A: 1"], given)  # type: ignore[arg-type]


def test_rows_that_say_they_are_wrong_are_counted() -> None:
    rows = [{"verdict": "wrong"}, {"is_correct": False}, {"verdict": "correct"}, {}, {"is_correct": True}]
    assert [says_wrong(row) for row in rows] == [True, True, False, False, False]


def test_rules_take_no_other_words_and_round_no_share_down() -> None:
    for wrong in ({"compat": "xx"}, {"weights": "xx"}, {"temperature": math.nan}):
        with pytest.raises(BadInput):
            check_rule(RuleSettings("minimum", **wrong), set())  # type: ignore[arg-type]
    pool = pd.DataFrame(
        [
            (f"q{k:03d}", f"{t}{k}", t, float(t == "b"))
            for k in range(100)
            for t in ("a", "b")
        ],
        columns=["question_id", "answer_id", "teacher", "cost"],
    )  # fmt: skip
    for cap, most in ((0.29, 29), (0.57, 57), (0.58, 58)):
        chosen = choose_by_rule(pool, RuleSettings("minimum", cap=cap), 0, {})
        assert (chosen["teacher"] == "a").sum() == most


def test_one_question_gives_no_interval() -> None:
    table = pd.DataFrame({"question_id": ["q"] * 3, "scas": [1.0, 2.0, 3.0]})
    table = table.assign(**{norm: [1.0, 3.0, 2.0] for norm in NORMS})
    found = agreements(table, ["scas"], 0)
    assert found
    assert all(math.isnan(f.low) and math.isnan(f.high) for f in found)


def test_options_out_of_range_are_refused_in_a_line() -> None:
    for wrong in ("gpu", "CPU", "tpu:0"):
        with pytest.raises(BadInput, match="--device"):
            device_of(wrong)
    for questions, seed in ((0, 0), (-1, 0), (5, -1)):
        with pytest.raises(BadInput, match="--questions or --seed"):
            check_sample(questions, seed)


def test_variables_in_places_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    assert str(Place("$SOMEWHERE/x")) == str(tmp_path / "x")
    assert str(Place("$NOTSET/x")) == os.path.abspath("$NOTSET/x")


def test_settings_that_a_rule_does_not_read_are_refused() -> None:
    for arm in (
        {"name": "x", "rule": "random", "teacher": "ann"},
        {"name": "x", "rule": "minimum", "cost": "scas", "group": 2},
        {"name": "x", "rule": "strongest", "temperature": 0.5},
    ):
        with pytest.raises(BadInput, match="reads no"):
            parse_experiment(TREE | {"arms": [arm]})
