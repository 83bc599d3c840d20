"""The options that several commands share, and loading the experiment under them."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.own_modules import keep_own_modules
from jobs.experiment.parsing import load_experiment
from jobs.experiment.schema import Experiment
from jobs.submission import keep_outside_job_copy

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides, for example train.epochs=2 arms.0.lambda=0.3")
]
ExperimentFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="An experiment file, for example experiments/quickstart.yaml")
]
Limit = Annotated[int | None, typer.Option(help="Use only the first N questions.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the whole experiment.")]


def load_with_options(
    file: Path, overrides: list[str] | None, limit: int | None, seed: int | None
) -> Experiment:
    """Load an experiment's file under these options. A submitted job's store is placed outside the job's own
    copy of the working directory. The file's folder is searched for the user's own functions.
    """
    keep_own_modules([Path.cwd(), file.absolute().parent])
    return keep_outside_job_copy(load_experiment(file, with_options(overrides, limit, seed)), Path.cwd())


def with_options(overrides: list[str] | None, limit: int | None, seed: int | None) -> list[str]:
    """The overrides, followed by those that `limit` and `seed` stand for."""
    options = {"limit": limit, "seed": seed}
    return [*(overrides or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]
