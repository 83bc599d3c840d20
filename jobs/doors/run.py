"""`tutelage run`."""

from typing import Annotated

import typer

from cluster.errors import BadInput
from jobs.doors.interruption import interruptible
from jobs.doors.look import plan
from jobs.doors.options import ExperimentFile, Limit, Overrides, Seed, load_with_options
from jobs.doors.results import make_results
from jobs.doors.run_directory import claim_run_directory
from jobs.run.progress import Terminal
from jobs.run.run import open_run


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
    if resume not in ("auto", "never"):
        raise BadInput("--resume", resume, "auto or never", "")
    if dry_run:
        plan(file, overrides, limit, seed)
        return
    experiment = load_with_options(file, overrides, limit, seed)
    directory = claim_run_directory(experiment)
    terminal = Terminal()
    with (
        interruptible(terminal, directory),
        open_run(experiment, directory, terminal, "make", resume, retry_failed) as run,
    ):
        make_results(run, experiment)
