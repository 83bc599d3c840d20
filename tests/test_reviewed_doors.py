"""What a reviewer broke in sweeps, studies and odd environments, beside the tests of these parts."""

import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from cluster.errors import BadInput
from cluster.session import LONGEST_FOLDER, short_folder
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.schema import BEFORE, IN_HINDSIGHT
from jobs.study.tables import Tables, fixed_value


def cell_and_values(rate: float, rows: list[tuple[str, int, float]]) -> tuple[Any, Tables]:
    """A cell of a crossed learning rate, and the values of (arm, seed, value) of one student."""
    cell = SimpleNamespace(values=[("train.learning_rate", rate)], experiment=SimpleNamespace(rounds=1))
    values = [("kid", arm, seed, 1, value) for arm, seed, value in rows]
    return cell, Tables(values=pd.DataFrame(values, columns=["student", "arm", "seed", "round", "value"]))


def test_a_value_is_fixed_by_the_paths_that_came_to_their_end_under_every_value() -> None:
    """An arm that ended under one value left the mean there, and that value won."""
    small, both_arms = cell_and_values(0.1, [("all", 0, 0.5), ("late", 0, 0.1)])
    large, one_arm = cell_and_values(0.2, [("all", 0, 0.4)])
    value, table, paths = fixed_value(
        [small, large], [both_arms, one_arm], "train.learning_rate", ["late", "all"]
    )
    assert value == 0.1
    assert table["value"].tolist() == pytest.approx([0.5, 0.4])
    assert paths == 1
    _, other = cell_and_values(0.2, [("late", 0, 0.4)])
    _, alone = cell_and_values(0.1, [("all", 0, 0.5)])
    with pytest.raises(BadInput, match="no path of late and all came to its end under every value"):
        fixed_value([small, large], [alone, other], "train.learning_rate", ["late", "all"])


def test_arms_have_no_name_that_tables_have_rows_of(small_world: dict[str, Any]) -> None:
    for name in (BEFORE, IN_HINDSIGHT):
        first, *others = small_world["arms"]
        with pytest.raises(BadInput, match="no arm can be called"):
            parse_experiment(small_world | {"arms": [{**first, "name": name}, *others]})


def test_ray_keeps_its_sessions_in_a_short_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/jobs/1234")
    assert short_folder() == {}
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * LONGEST_FOLDER)
    assert short_folder() == {"_temp_dir": "/tmp/ray"}


def test_a_removed_current_folder_is_told_in_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {sys.executable} -P -m jobs --help"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the current folder does not exist any more" in done.stderr
