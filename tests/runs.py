"""Ways for tests to run the product: whole runs, runs up to a choice, and the command line, in this process
unless told otherwise.
"""

import io
import os
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from cluster.storage import Place
from jobs.commands import main
from jobs.experiment.parsing import parse_experiment
from jobs.pipeline import harvest_of, look, run_pipeline
from jobs.results.outcome import Outcome
from jobs.run.progress import Terminal
from jobs.run.run import Mode, Run, open_run
from jobs.run.slices import Sliced
from jobs.run.store import Store
from jobs.stages.score import PoolScores, score_pool
from jobs.stages.select import Choice, select_answers
from jobs.stages.teachers import build_pool
from tests.in_process import InProcess

ROOT = Path(__file__).resolve().parents[1]


def open_here(
    tree: dict[str, Any],
    tmp_path: Path,
    on_ray: bool = False,
    mode: Mode = "make",
    terminal: Terminal | None = None,
) -> Run:
    """A run of this experiment, in this process or on Ray."""
    directory, terminal = Place(str(tmp_path / "run")), terminal or Terminal()
    if on_ray:
        return open_run(parse_experiment(tree), directory, terminal, mode)
    return Run(Store(tree["store"]), directory, terminal, InProcess(), mode)


def run(tree: dict[str, Any], tmp_path: Path, on_ray: bool = False, **changes: Any) -> tuple[Run, Outcome]:
    """A whole run."""
    with open_here(tree | changes, tmp_path, on_ray) as done:
        return done, run_pipeline(done, parse_experiment(tree | changes))


def choose(
    tree: dict[str, Any], tmp_path: Path, on_ray: bool = False, **changes: Any
) -> tuple[dict[str, Sliced], PoolScores]:
    """Run up to the choice of the first round, without training: arm -> select stage; and the scores."""
    e = parse_experiment(tree | changes)
    with open_here(tree | changes, tmp_path, on_ray) as here:
        looked = look(here, e)
        questions, student = looked.questions, next(iter(looked.students.values()))
        pool = build_pool(here, harvest_of(e), looked.hosted, questions)
        scores = score_pool(here, [student], pool, e.score, e.placement)[student.id]
        chosen = {arm.name: select_answers(here, arm.name, Choice(arm, 1), pool, scores) for arm in e.arms}
    return chosen, scores


def write_experiment(tree: dict[str, Any], tmp_path: Path) -> Path:
    """The experiment as a user's file."""
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@dataclass(frozen=True)
class Done:
    """How a command ended, named as subprocess does."""

    returncode: int
    stdout: str
    stderr: str


def tutelage(*arguments: object, cwd: Path = ROOT) -> Done:
    """The command line in this process, from the repository's root unless said otherwise;
    a run that has work to do works here too.
    """
    out, err = io.StringIO(), io.StringIO()
    code = 0
    before = os.getcwd()
    os.chdir(cwd)
    try:
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            mock.patch.object(sys, "argv", ["tutelage", *map(str, arguments)]),
            mock.patch.object(sys, "path", list(sys.path)),
            mock.patch(
                "jobs.run.run.RayHost",
                lambda ray, *rest: InProcess({"CPU": float(ray.num_cpus or 2), "GPU": 0.0}),
            ),
        ):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # as an interpreter would end on it
        err.write(traceback.format_exc())
        code = 1
    finally:
        os.chdir(before)
    return Done(code, out.getvalue(), err.getvalue())


def tutelage_alone(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """The command line as a process of its own."""
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
