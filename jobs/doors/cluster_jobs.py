"""Runs as Ray jobs on a cluster: `tutelage submit`, `status` and `stop`."""

from pathlib import Path
from typing import Annotated

import typer

from jobs import submission
from jobs.doors.options import ExperimentFile, Limit, Overrides, Seed, with_options
from jobs.experiment.parsing import load_experiment

Address = Annotated[str, typer.Option(help="The head node's job server, for example http://127.0.0.1:8265.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id that submit printed.")]


def submit(
    file: ExperimentFile,
    address: Address,
    overrides: Overrides = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Stream the log and return the job's exit status.")
    ] = True,
    limit: Limit = None,
    seed: Seed = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Submit `tutelage sweep` instead of `run`.")] = False,
) -> None:
    """Run an experiment as a Ray job on a cluster. The working directory is sent along. Submit it again to
    continue.
    """
    arguments = with_options(overrides, limit, seed)
    experiment = load_experiment(file, arguments)  # a mistake shows here, not minutes later on the cluster
    if sweep:
        from jobs.sweep.settings import expand_settings

        expand_settings(experiment)
    client = submission.connect_to_jobs(address)
    job = submission.submit_job(client, "sweep" if sweep else "run", file, arguments, Path.cwd())
    print(f"submitted {job} to {address}", flush=True)
    if wait:
        try:
            raise typer.Exit(submission.follow(client, job))
        except KeyboardInterrupt:
            print(f"the job goes on; end it with: tutelage stop {job} --address {address}")
            raise typer.Exit(130) from None


def status(job: JobId, address: Address) -> None:
    """Print the state of a submitted job."""
    print(submission.describe(submission.connect_to_jobs(address), job))


def stop(job: JobId, address: Address) -> None:
    """Stop a submitted job. Its finished work is kept."""
    print(submission.stop(submission.connect_to_jobs(address), job))
