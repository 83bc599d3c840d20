"""A third system costs one file and one entry: `toy_system.py` is planned, run, compared and told."""

from pathlib import Path
from typing import Any

import pytest

from jobs.experiment.arms import ARMS
from tests.runs import run, tutelage, write_experiment
from tests.toy_system import ToyArm
from training.metrics import read_metrics


def test_a_system_of_one_file_is_planned_run_compared_and_told(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARMS, "toy", ToyArm)
    tree = small_world | {"arms": [small_world["arms"][1], {"kind": "toy", "name": "toy", "gamma": 2.0}]}
    file = write_experiment(tree, tmp_path)
    assert "repeat in all rounds" in tutelage("plan", file).stdout
    _, outcome = run(tree, tmp_path)
    (own,) = [r for (p, _), r in outcome.rounds.items() if p.arm.name == "toy"]
    assert read_metrics(own.trained.directory)[0]["focal"] > 0
    done = tutelage("run", file)
    assert "toy from strongest" in done.stdout, done.stderr
    page = (tmp_path / "runs" / "small" / "report.html").read_text()
    assert '<section id="toy"><h2>References</h2>' in page
    alone = [file, "arms=[{kind: toy, name: other}]", "teachers=[]", "name=alone"]
    planned = tutelage("plan", *alone).stdout
    assert "repeat kid other seed 0 round 1" in planned
    assert "generate" not in planned
    assert tutelage("run", *alone).returncode == 0
