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
from jobs.experiment.reading import parse_experiment
from jobs.pipeline import load_questions, run_pipeline
from jobs.results.outcome import Outcome
from jobs.run.context import Context
from jobs.run.progress import Talker
from jobs.run.store import Stage
from jobs.stages.pool import build_pool
from jobs.stages.score import first_state, pool_rows, score_students
from jobs.stages.select import select_answers
from tests.in_process import InProcess

ROOT = Path(__file__).resolve().parents[1]


def context_of(
    tree: dict[str, Any], tmp_path: Path, on_ray: bool = False, talker: Talker | None = None
) -> Context:
    """A run of this experiment, in this process or on Ray."""
    host = {} if on_ray else {"host": InProcess()}
    return Context(parse_experiment(tree), Place(str(tmp_path / "run")), talker or Talker(), **host)


def run(
    tree: dict[str, Any], tmp_path: Path, on_ray: bool = False, **changes: Any
) -> tuple[Context, Outcome]:
    """A whole run."""
    with context_of(tree | changes, tmp_path, on_ray) as context:
        return context, run_pipeline(context)


def choose(tree: dict[str, Any], tmp_path: Path, on_ray: bool = False, **changes: Any) -> dict[str, Stage]:
    """Run up to the choice of the first round, without training: arm -> select stage; and "scores" -> the
    score stage.
    """
    with context_of(tree | changes, tmp_path, on_ray) as context:
        e = context.experiment
        questions, _ = load_questions(e.questions, e.limit, context.on_broken)
        pool = build_pool(context, questions)
        student = first_state(e.students[0])
        scores = score_students(context, [student], pool_rows(pool.answers, questions), pool.ids)[student.id]
        chosen = {
            arm.name: select_answers(context, f"select {arm.name}", arm, 1, pool, list(questions), scores)
            for arm in e.arms
        }
    return chosen | {"scores": scores}


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


def tutelage(*arguments: object) -> Done:
    """The command line in this process, from the repository's root;
    a run that has work to do works here too.
    """
    out, err = io.StringIO(), io.StringIO()
    code = 0
    before = os.getcwd()
    os.chdir(ROOT)
    try:
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            mock.patch.object(sys, "argv", ["tutelage", *map(str, arguments)]),
            mock.patch.object(sys, "path", list(sys.path)),
            mock.patch(
                "jobs.run.context.RayHost",
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
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT, check=False)
