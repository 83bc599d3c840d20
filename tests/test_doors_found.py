"""Doors as a reviewer tried them: a check that is edited, a file that is corrected, odd values, threads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tutelage as front
from cluster.errors import BadInput, NoRoom
from cluster.own_modules import FOLDERS
from cluster.placement import Node
from cluster.session import Cluster
from cluster.storage import Place
from jobs.experiment.parsing import parse_experiment
from jobs.pipeline import check_placement
from jobs.run import host as host_module
from jobs.run.progress import Terminal
from jobs.run.run import open_run
from jobs.systems.arte.rationales import known_truth, load_truth
from tests.runs import tutelage, write_experiment

CHECK = "def check(answer, reference):\n    return answer.split(':')[-1].strip() == reference\n"


def test_a_finished_run_can_be_read_when_its_check_has_been_edited_and_from_elsewhere(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """A comment in the check made a finished run unreadable."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "own_check.py").write_text(CHECK)
    arms = [{"name": "random", "rule": "random"}]
    tree = small_world | {"verify": {"method": "function", "function": "own_check:check"}, "arms": arms}
    tree["train"] = {"steps": 1, "batch_size": 4}
    file = write_experiment(tree, home)
    done = tutelage("run", file, cwd=home)
    assert done.returncode == 0, done.stderr
    runs = tree["runs"]
    (home / "own_check.py").write_text(CHECK + "# a comment\n")
    again = tutelage("report", f"{runs}/small", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "own_check:check has changed since this run" in again.stdout
    verdict = [line for line in done.stdout.splitlines() if "before training" in line]
    assert verdict
    assert set(verdict) <= set(again.stdout.splitlines())
    (home / "own_check.py").write_text(CHECK)
    assert "has changed since" not in tutelage("report", f"{runs}/small", cwd=tmp_path).stdout


def test_a_run_that_was_refused_at_once_leaves_its_name_free(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    wrong = small_world | {"verify": {"method": "function", "function": "nope:check"}}
    done = tutelage("run", write_experiment(wrong, tmp_path))
    assert done.returncode == 2
    assert "nope" in done.stderr
    typo = small_world | {"questions": small_world["questions"] | {"train": str(tmp_path / "no.jsonl")}}
    done = tutelage("run", write_experiment(typo, tmp_path))
    assert done.returncode == 2
    assert "made by a different experiment" not in done.stderr
    assert not list(Path(small_world["runs"]).glob("small/*"))


def costs() -> pd.DataFrame:
    return pd.DataFrame({"question_id": ["q", "q"], "teacher": ["ann", "bob"], "cost": [2.0, 1.0]})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rule": "strongest", "accuracy": {"ann": float("nan"), "bob": 0.9}}, "accuracy of ann"),
        ({"rule": "strongest", "accuracy": {"ann": 90, "bob": 0.9}}, "accuracy of ann"),
        ({"rule": "strongest", "accuracy": ["ann"]}, "accuracy"),
        ({"rule": "top_k", "k": 1.5}, "k is no whole number"),
        ({"rule": "top_k", "k": "1"}, "k is no whole number"),
        ({"rule": "top_k", "k": True}, "k is no whole number"),
        ({"rule": "random", "seed": None}, "seed is no whole number"),
        ({"rule": "random", "seed": -1}, "seed; got -1"),
        ({"rule": "minimum", "threshold": "0.5"}, "threshold is no number"),
    ],
)
def test_numbers_that_are_none_are_told_and_choose_nothing(options: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        front.choose(costs(), **options)


def test_numbers_are_taken_as_numpy_and_pandas_write_them() -> None:
    accuracy = pd.Series({"ann": np.float32(0.5), "bob": np.float64(0.9)})
    assert front.choose(costs(), "strongest", accuracy=accuracy)["teacher"].tolist() == ["bob"]
    many = pd.concat([costs().assign(question_id=f"q{k}") for k in range(40)], ignore_index=True)
    drawn = [front.choose(many, "random", seed=seed)["teacher"].tolist() for seed in (3, 3.0, np.int64(3))]
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_table_that_is_none_and_verdicts_in_other_words_are_told() -> None:
    with pytest.raises(BadInput, match="costs are no table"):
        front.choose([{"question_id": "q", "cost": 1.0}])  # type: ignore[arg-type]
    for verdict in (True, "Correct"):
        with pytest.raises(BadInput, match="no verdict is correct"):
            front.choose(costs().assign(verdict=verdict))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda student: front.score(student, ["1?"], {"ann": ["1"]}, max_length=0), "max_length"),
        (lambda student: front.score(student, ["1?"], {"ann": ["1"]}, max_length="9"), "max_length"),
        (lambda student: front.score(student, ["1?"], {"ann": ["1"]}, scas_lambda="0.5"), "lambda"),
        (lambda student: front.rank(student, ["1?"], {"ann": ["1"], "bob": ["2"]}, seed=None), "seed"),
        (
            lambda student: front.rank(student, ["1?"], {"ann": ["1"], "bob": ["2"]}, families=["x"]),
            "families",
        ),
        (lambda student: front.verify(["1"], ["1"], timeout_s=None), "timeout_s is no number"),
        (lambda student: front.verify(["1"], ["1"], timeout_s="3"), "timeout_s is no number"),
        (lambda student: front.verify(["1"], ["1"], tolerance=True), "tolerance is no number"),
        (lambda student: front.run(None), "no experiment"),
    ],
)
def test_the_python_interface_refuses_what_is_no_number_in_one_line(
    tiny_model: Path, call: Any, told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        call(str(tiny_model))


def test_options_out_of_range_are_told_without_a_traceback(tmp_path: Path, tiny_model: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"question": "1 + 1?", "output": "2", "reference": "2"}\n')
    verify = ("verify", "--answers", answers, "--out", tmp_path / "v.jsonl", "--method", "function")
    score = ("score", "--student", tiny_model, "--answers", answers, "--out", tmp_path / "o")
    for arguments, told in (
        (("miniature", "--train-questions", "0", "--out", tmp_path), "train-questions"),
        (verify, "--function"),
        ((*score, "--max-length", "0"), "max-length"),
    ):
        done = tutelage(*arguments)
        assert done.returncode == 2, done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr


TRUTHS = """
import numpy as np, pandas as pd
def nan(text): return float("nan")
def missing(text): return pd.NA
def whole(text): return np.float64(12)
def yes(text): return True
def many(text): return (12, "why")
def lazily(text): yield 12
def raises(text): raise RuntimeError("no")
def sometimes(text): return {"a": 1}["a"] if "1" in text else [][0]
def two(text, more): return 1
not_one = 3
"""


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("nan", {}),
        ("missing", {}),
        ("whole", {"a": "12", "b": "12"}),
        ("sometimes", {"a": "1"}),
        ("yes", "type bool"),
        ("many", "type tuple"),
        ("lazily", "type generator"),
        ("raises", "RuntimeError: no"),
        ("two", "cannot be called"),
        ("not_one", "names no function"),
    ],
)
def test_what_a_users_truth_gives_is_a_result_or_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, known: Any
) -> None:
    """NaN was the right result "nan", True was "True", and a function that always raised left the vote."""
    monkeypatch.setenv(FOLDERS, f'["{tmp_path}"]')
    (tmp_path / "own_truths.py").write_text(TRUTHS)
    asked = {k: SimpleNamespace(text=text) for k, text in (("a", "1 and 1"), ("b", "2 and 2"))}
    given = SimpleNamespace(truth=f"own_truths:{name}"), SimpleNamespace(questions=asked, tagged={})
    if isinstance(known, dict):
        assert known_truth(*given) == known  # type: ignore[arg-type]
        return
    with pytest.raises(BadInput, match=known):
        known_truth(*given)  # type: ignore[arg-type]


def test_a_truth_whose_module_ends_or_breaks_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDERS, f'["{tmp_path}"]')
    for k, text in enumerate(("1 / 0", "def f(:", "import sys\nsys.exit('bye')")):
        (tmp_path / f"own_broken{k}.py").write_text(text)
        with pytest.raises(BadInput, match=r"elicit\.truth cannot be imported"):
            load_truth(f"own_broken{k}:truth")


def test_a_cluster_without_room_for_the_training_is_told_before_anything_is_paid(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions were asked and answers scored, and then the train worker could never be placed."""
    small = {"CPU": 2.0, "GPU": 0.0}

    @contextmanager
    def connected(*_: object) -> Iterator[Cluster]:
        yield Cluster(small, (Node(small),), "")

    monkeypatch.setattr(host_module, "connect", connected)
    placed = {"ray": {"address": "ray.example:6379"}, "placement": {"train": {"num_cpus": 3}}}
    e = parse_experiment(small_world | placed)
    with open_run(e, Place(str(tmp_path / "run")), Terminal(quiet=True)) as run:
        check_placement(run, e)
        with pytest.raises(NoRoom, match="train workers cannot be placed"):
            _ = run.host.pool


def test_scores_of_a_teacher_that_was_left_out_are_told_of(tiny_model: Path, tmp_path: Path) -> None:
    answers, out = tmp_path / "answers", tmp_path / "scores"
    answers.mkdir()
    for name in ("ann", "bob"):
        rows = [{"id": f"q{k}", "question": f"{k} + 1?", "answer": f"A: {k + 1}"} for k in range(2)]
        (answers / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = tutelage("score", "--student", tiny_model, "--answers", answers, "--out", out)
    assert "not scored now" not in first.stdout
    (answers / "bob.jsonl").unlink()
    again = tutelage("score", "--student", tiny_model, "--answers", answers, "--out", out)
    assert again.returncode == 0, again.stderr
    assert "beware: bob" in again.stdout
    assert "not scored now" in again.stdout
    dash = tutelage("verify", "--answers", answers / "ann.jsonl", "--out", "-")
    assert dash.returncode == 2
    assert "--out is no file" in dash.stderr
