"""`tutelage run`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.extras import need_for_run
from jobs.doors.interruption import interruptible
from jobs.doors.look import plan
from jobs.doors.options import ExperimentFile, Limit, Overrides, Seed, load_with_options
from jobs.doors.results import check_resume, run_experiment
from jobs.doors.run_directory import claim_run_directory
from jobs.run.progress import Terminal


def run(
    file: ExperimentFile,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = None,
    resume: Annotated[
        str, typer.Option(help="auto goes on from half-done stages; never starts those afresh.")
    ] = "auto",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask endpoints again for the calls that failed for good.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as plan.")] = False,
) -> None:
    """Run an experiment: ask, verify, score, select, train, evaluate, report."""
    check_resume(resume)
    if dry_run:
        plan(file, overrides, limit, seed)
        return
    run_file(file, overrides, limit, seed, resume, retry_failed)


def run_file(
    file: Path,
    overrides: list[str] | None,
    limit: int | None,
    seed: int | None,
    resume: str = "auto",
    retry_failed: bool = False,
) -> None:
    """Run the experiment of a file. If that is interrupted, print how to continue."""
    experiment = load_with_options(file, overrides, limit, seed)
    need_for_run(experiment.ray.address)
    directory, terminal = claim_run_directory(experiment), Terminal()
    with interruptible(terminal, directory):
        run_experiment(experiment, directory, terminal, resume, retry_failed)
