"""ARTE from elicitation to evaluation, on an untrained model: every variant, and the ledger."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.own_writing import written
from tests.runs import run, tutelage, write_experiment

VARIANTS = ("original", "question_only", "rationale_only", "arte", "shuffled", "chosen_sft", "best_scored")


def arms(*variants: str, **about: Any) -> list[dict[str, Any]]:
    scored = {"signal": "scas", **about}
    return [
        {"kind": "arte", "name": v, "variant": v}
        | (scored if v not in ("original", "scas", "strongest", "random") else {})
        for v in variants
    ]


def test_every_variant_is_planned_run_and_told(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = written(small_world, tiny_model, arms(*VARIANTS, "scas", "strongest", "random"))
    file = write_experiment(tree, tmp_path)
    assert "align teacher tia" in tutelage("plan", file).stdout
    _, outcome = run(tree, tmp_path)
    assert not outcome.ended
    rounds = {p.arm.name: own for (p, _), own in outcome.rounds.items()}
    assert set(rounds) == {*VARIANTS, "scas", "strongest", "random"}
    for name, own in rounds.items():
        assert own.evaluation is not None, name
        assert own.figures["examples"] > 0
        counts = own.ledger.groupby("kind")["count"].sum()
        assert counts["question"] == 24, name
    done = tutelage("run", file)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "runs" / "small" / "report.html").read_text()
    assert "What teachers wrote" in page
    kinds = ("Questions", "Written questions, first harvest", "Usable questions", "Rationales")
    for kind in kinds:
        assert f"<h3>{kind}</h3>" in page


@pytest.mark.parametrize("given", [{"teachers": []}])
def test_a_teacher_that_is_not_there_is_refused(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    tree = written(small_world, tiny_model, arms("arte")) | given
    done = tutelage("run", write_experiment(tree, tmp_path))
    assert done.returncode == 2
    assert "elicit.teacher" in done.stderr


def refused(tree: dict[str, Any], tmp_path: Path) -> str:
    """What a run says that does not begin, or that ends early."""
    done = tutelage("run", write_experiment(tree, tmp_path))
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_teacher_whose_weights_are_not_here_is_refused_before_anything_is_asked(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = written(small_world, tiny_model, arms("arte"))
    tree["teachers"] = [
        {"kind": "endpoint", "name": "tia", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    ]
    assert "teacher tia cannot be aligned: its weights are not here" in refused(tree, tmp_path)
    assert not list((tmp_path / "store").glob("tables/*"))


def test_texts_without_a_question_end_the_run_with_their_states(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = written(small_world, tiny_model, arms("arte"))
    unusual = {"pattern": "<<(?P<question>.*?)>>", "example": "<<{question}>>"}
    tree["elicit"] = tree["elicit"] | unusual
    told = refused(tree, tmp_path)
    assert "no question could be found in what the teacher wrote" in told
    assert "48 unparsed" in told  # as many calls as are allowed


def test_scores_that_are_all_tied_end_a_path_by_name_and_the_others_go_on(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.systems.arte import algorithm
    from jobs.systems.arte.prefer import Preferred

    def tied(_run: Any, _e: Any, _elicit: Any, drafts: Any, _pool: Any, signals: Any) -> Any:
        return {s: Preferred(drafts.table.assign(score=0.5, error=0.0), None) for s in signals}

    monkeypatch.setattr(algorithm, "prefer", tied)
    tree = written(small_world, tiny_model, arms("arte", "original"))
    _, outcome = run(tree, tmp_path)
    ((path, (number, why)),) = outcome.ended.items()
    assert (path.arm.name, number) == ("arte", 1)
    assert "no pair" in why
    assert "no_preference" in why
    assert [p.arm.name for p, _, _ in outcome.evaluated()] == ["original"]


@pytest.mark.long
def test_scores_that_do_not_repeat_align_nobody_unless_forced(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.systems.arte import algorithm
    from jobs.systems.arte.prefer import Preferred

    def noise(_run: Any, _e: Any, _elicit: Any, drafts: Any, _pool: Any, signals: Any) -> Any:
        scores = np.random.default_rng(0).random((len(drafts.table), 1))
        values = np.where(np.arange(6) % 2 == 0, scores, 1 - scores)  # no half repeats the other, by design
        values = values + scores / 10  # so no two drafts are tied
        table = drafts.table.assign(score=values.mean(axis=1), error=0.1)
        return {s: Preferred(table, values) for s in signals}

    monkeypatch.setattr(algorithm, "prefer", noise)
    tree = written(small_world, tiny_model, arms("arte", "original"))
    tree["elicit"] = tree["elicit"] | {"align": tree["elicit"]["align"] | {"least_reliability": 0.95}}
    _, outcome = run(tree, tmp_path)
    assert "scores of drafts do not repeat" in next(iter(outcome.ended.values()))[1]
    forced = tree | {"elicit": tree["elicit"] | {"align": tree["elicit"]["align"] | {"force": True}}}
    _, outcome = run(forced, tmp_path)
    assert not outcome.ended


def test_one_round_and_a_student_that_is_there(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = written(small_world, tiny_model, arms("arte"))
    without = {name: value for name, value in tree.items() if name != "elicit"}
    for number, (given, told) in enumerate(
        [
            (tree | {"rounds": 2}, "have one round"),
            (
                tree | {"arms": arms("arte", aligned_to="nobody")},
                "a student that the experiment does not have",
            ),
            (without, "need a section elicit"),
            (
                tree | {"verify": {"method": "none"}, "evaluate": {"metric": "loss"}},
                "compare results with one another",
            ),
        ]
    ):
        assert told in refused(given | {"name": f"case-{number}"}, tmp_path)
