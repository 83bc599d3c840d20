"""ARTE from elicitation to evaluation, on an untrained model: every variant, and the ledger."""

from pathlib import Path
from typing import Any

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
    assert "What teachers wrote" in (tmp_path / "runs" / "small" / "report.html").read_text()


@pytest.mark.parametrize("given", [{"teachers": []}])
def test_a_teacher_that_is_not_there_is_refused(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    tree = written(small_world, tiny_model, arms("arte")) | given
    done = tutelage("run", write_experiment(tree, tmp_path))
    assert done.returncode == 2
    assert "elicit.teacher" in done.stderr
