"""Experiment files as a reviewer brought them: numbers that YAML reads otherwise, settings nobody reads,
checks that cannot be called.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import tutelage
from cluster.errors import BadInput
from cluster.metrics import ascii_of
from cluster.own_modules import FOLDERS, source_of
from jobs.experiment.arms.select import SelectArm
from jobs.experiment.parsing import load_experiment
from jobs.experiment.study import Part
from jobs.pipeline import unread_sections
from selection.preferences import is_chance, reliability
from selection.verification import VerifySettings, check_settings, load_function
from training.settings import TrainSettings
from training.settings import check_settings as check_train


def experiment(small_world: dict[str, Any], folder: Path, *overrides: str) -> Any:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(small_world))
    return load_experiment(file, list(overrides))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.steps=010", "odd form"),
        ("train.batch_size=1:30", "odd form"),
        ("train.learning_rate=on", "is a number; got true"),
        ("limit=yes", "is a number; got true"),
        ("verify.tolerance=yes", "is a number; got true"),
        ("seed=-1", "seed"),
        ("train.deepspeed={bf16: yes}", "is no section"),
        ("train.deepspeed={zero_optimization: {stage: 7}}", "stage is out of range"),
        ("train.deepspeed={gradient_clipping: -5}", "gradient_clipping is out of range"),
    ],
)
def test_what_yaml_makes_of_a_word_is_not_taken_for_a_number(
    small_world: dict[str, Any], tmp_path: Path, override: str, told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        check_train(experiment(small_world, tmp_path, override).train)


@pytest.mark.parametrize(
    "arm",
    [
        {"rule": "minimum", "cost": "scas", "k": 3},
        {"rule": "random", "k": 5},
        {"rule": "minimum", "cost": "naturalness", "lambda": 0.9},
        {"rule": "random", "lambda": 0.9},
        {"rule": "minimum", "cost": "naturalness", "length_exponent": 0.5},
        {"rule": "minimum", "cost": "scas", "threshold": float("nan")},
        {"rule": "softmax", "cost": "scas", "temperature": float("inf")},
    ],
)
def test_settings_of_an_arm_that_nothing_reads_are_refused(arm: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"reads no|is for cost|finite"):
        SelectArm.model_validate({"name": "x", **arm})


def test_choosing_in_memory_refuses_the_same() -> None:
    import pandas as pd

    costs = pd.DataFrame({"question_id": ["q", "q"], "teacher": ["ann", "bob"], "cost": [2.0, 1.0]})
    for name, value in (("k", 3), ("group", 2), ("teacher", "ann"), ("temperature", 2.0)):
        with pytest.raises(BadInput, match=f"rule minimum reads no {name}"):
            tutelage.choose(costs, "minimum", **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "part",
    [
        {"cross": {"evaluate.metric": ["accuracy", "loss"]}},
        {"cross": {"verify.method": ["math", "numeric"]}},
        {"cross": {"train.steps": [1, 2]}, "set": {"train.steps": 3}},
        {"set": {"seeds": 3}, "seeds": 2},
        {"set": {"evaluate.baseline": "a"}, "baseline": "b"},
    ],
)
def test_parts_of_a_study_that_cannot_be_compared_or_contradict_themselves_are_refused(
    part: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match=r"cannot be crossed|keep one"):
        Part.model_validate({"arms": [{"name": "a", "rule": "random"}], **part})


CHECKS = """
import functools
from helpers import last

def good(answer, reference):
    return last(answer) == reference

def with_row(answer, reference, row):
    return True

bound = functools.partial(good)
cached = functools.lru_cache(good)

def one(answer):
    return True

async def late(answer, reference):
    return True

class Check:
    def __init__(self, answer, reference):
        pass
"""


def digest_of(path: str) -> str:
    return source_of(path, load_function(path))


# What a check is made of, and one file of it that is changed: each kept the verdicts of the old one.
MADE_OF = {
    "a number of a helper": (
        "from h_number import STRICT\ndef check(a, r): return STRICT", "h_number.py", "STRICT = 1"
    ),
    "a factory": ("from h_factory import make\ncheck = make(0.1)", "", ""),
    "an object that is called": ("from h_class import Checker\ncheck = Checker(0.1)", "", ""),
    "a library's function": ("import functools, operator\ncheck = functools.partial(operator.eq)", "", ""),
    "a package without __init__": (
        "import h_ns.helper\ndef check(a, r): return h_ns.helper.f(a)", "h_ns/helper.py",
        "def f(a): return True"
    ),
    "an import within": ("def check(a, r):\n    import h_late\n    return h_late.F", "h_late.py", "F = 1"),
    "a helper of a helper": ("import h_one\ndef check(a, r): return h_one.x", "h_two.py", "x = 1"),
    "a relative import": ("from h_pack import check", "h_pack/inner.py", "LIMIT = 1"),
}  # fmt: skip
FILES = {
    "h_number.py": "STRICT = 0",
    "h_factory.py": "def make(tol):\n    def compare(a, r): return tol\n    return compare",
    "h_class.py": "class Checker:\n    def __init__(self, tol): self.tol = tol\n"
    "    def __call__(self, answer, reference): return True",
    "h_ns/helper.py": "def f(a): return False",
    "h_late.py": "F = False",
    "h_one.py": "from h_two import x",
    "h_two.py": "x = 0",
    "h_pack/__init__.py": "from .core import check",
    "h_pack/core.py": "from .inner import LIMIT\ndef check(answer, reference): return LIMIT",
    "h_pack/inner.py": "LIMIT = 0",
}


@pytest.mark.parametrize("what", MADE_OF)
def test_whatever_a_check_is_made_of_a_change_of_it_is_another_check(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDERS, f'["{tmp_path}"]')
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    module = "made_" + "".join(c for c in what if c.isalpha())
    text, changed, now = MADE_OF[what]
    (tmp_path / f"{module}.py").write_text(text)
    before = digest_of(f"{module}:check")
    assert before == digest_of(f"{module}:check")
    (tmp_path / (changed or f"{module}.py")).write_text(now or text + "  # another one")
    assert digest_of(f"{module}:check") != before
    (tmp_path / "unused.py").write_text("x = 1")
    again = digest_of(f"{module}:check")
    (tmp_path / "unused.py").write_text("x = 2")
    assert digest_of(f"{module}:check") == again


def test_a_check_and_all_of_the_users_modules_behind_it_are_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed helper kept the verdicts of the old one."""
    monkeypatch.setenv(FOLDERS, f'["{tmp_path}"]')
    (tmp_path / "found_checks.py").write_text(CHECKS.replace("helpers", "found_helpers"))
    helper = tmp_path / "found_helpers.py"
    helper.write_text("def last(text):\n    return text.split()[-1]\n")
    names = ("good", "with_row", "bound", "cached")
    for name in names:
        check_settings(VerifySettings("function", function=f"found_checks:{name}"))
    before = [digest_of(f"found_checks:{name}") for name in names]
    assert len(set(before)) == 1
    assert before[0]
    helper.write_text("def last(text):\n    return text.split()[0]\n")
    assert not set(before) & {digest_of(f"found_checks:{name}") for name in names}
    for name in ("one", "late", "Check"):
        with pytest.raises(BadInput, match="cannot be called as a check"):
            check_settings(VerifySettings("function", function=f"found_checks:{name}"))


def test_a_label_of_a_metric_is_ascii() -> None:
    """Ray's counters end a run with a traceback at any other letter."""
    assert ascii_of("ä ö: *").isascii()
    assert ascii_of("train") == "train"


def test_noise_of_a_few_drafts_is_not_reliable() -> None:
    rng = np.random.default_rng(0)
    passed = 0
    for seed in range(60):
        values = rng.normal(size=(8, 20))
        passed += not is_chance(reliability(values, seed=seed), 7)
    assert passed <= 9
    shared = rng.normal(size=(8, 1)) * 3 + rng.normal(size=(8, 20))
    assert not is_chance(reliability(shared), 7)


def test_defaults_are_accepted() -> None:
    check_train(TrainSettings(deepspeed={"zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}}))


def test_sections_that_nothing_reads_are_told(small_world: dict[str, Any], tmp_path: Path) -> None:
    plain = experiment(small_world, tmp_path)
    assert unread_sections(plain) == []
    read_by_none = experiment(small_world | {"wheels": {"budgets": [0, 5]}, "rollouts": {}}, tmp_path)
    assert [line.split(":")[0] for line in unread_sections(read_by_none)] == [
        "nothing reads the section rollouts",
        "nothing reads the section wheels",
    ]


def test_names_have_no_space_around_them_and_no_value_is_crossed_twice() -> None:
    for name in ("scas ", " ", " scas"):
        with pytest.raises(ValueError, match="space"):
            SelectArm.model_validate({"name": name, "rule": "random"})
    with pytest.raises(ValueError, match="twice"):
        Part.model_validate({"arms": [{"name": "a", "rule": "random"}], "cross": {"train.steps": [1, 1]}})
