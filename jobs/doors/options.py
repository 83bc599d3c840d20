"""The options that several commands share, and the experiment that they name."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.own_modules import keep_own_modules
from jobs.experiment.reading import load_experiment
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
    """The experiment of a file under these options; a submitted job's store lies outside its own copy, and a
    user's own functions may lie beside the file.
    """
    keep_own_modules([Path.cwd(), file.absolute().parent])
    return keep_outside_job_copy(load_experiment(file, with_options(overrides, limit, seed)), Path.cwd())


def with_options(overrides: list[str] | None, limit: int | None, seed: int | None) -> list[str]:
    """The overrides, and after them the options that stand for one."""
    options = {"limit": limit, "seed": seed}
    return [*(overrides or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]
