"""`tutelage sweep`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import BadInput
from jobs.doors.interruption import interruptible
from jobs.doors.options import ExperimentFile, Limit, Overrides, load_with_options, with_options
from jobs.doors.run_directory import claim_run_directory, given_back_if_refused
from jobs.experiment.schema import Experiment
from jobs.run.progress import Terminal
from jobs.run.run import open_run

if TYPE_CHECKING:
    from jobs.sweep.settings import Setting


def sweep(
    file: ExperimentFile,
    overrides: Overrides = None,
    seeds: Annotated[
        int | None, typer.Option(help="Training seeds of every setting; the same as sweep.seeds=K.")
    ] = None,
    limit: Limit = None,
    resume: Annotated[
        str, typer.Option(help="auto goes on with an interrupted sweep; never starts it afresh.")
    ] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the settings.")] = False,
) -> None:
    """Try settings of an experiment with Ray Tune on one shared pool: a table, TensorBoard logs
    and a page.
    """
    from cluster.session import set_environment
    from jobs.sweep.settings import expand_settings

    if resume not in ("auto", "never"):
        raise BadInput("--resume", resume, "auto or never", "")
    seeds_too = [] if seeds is None else [f"sweep.seeds={seeds}"]
    experiment = load_with_options(file, [*(overrides or []), *seeds_too], limit, None)
    set_environment(experiment.ray)
    settings = expand_settings(experiment)
    if dry_run:
        terminal = Terminal()
        for setting in settings:
            terminal.say(setting.label)
        return
    kept = [o for o in overrides or [] if not o.startswith(("sweep.", "name="))]
    _try_settings(experiment, settings, resume, [str(file), *with_options(kept, limit, None)])


def _try_settings(
    experiment: Experiment, settings: "Sequence[Setting]", resume: str, arguments: Sequence[str]
) -> None:
    """Run all trials, write the page and print the outcome.

    Args:
        arguments: the file and the overrides for the printed command that runs the best setting alone.
    """
    from jobs.pipeline import load_questions
    from jobs.report.sweep import write_sweep
    from jobs.results.judged import named_clusters
    from jobs.sweep.results import sweep_lines
    from jobs.sweep.shared import prepare_shared
    from jobs.sweep.summary import summarise_sweep
    from jobs.sweep.tune import run_sweep

    # Ray frees the train workers of a dead trial only if its dashboard can report the death.
    experiment = experiment.model_copy(update={"ray": replace(experiment.ray, dashboard=True)})
    directory, terminal = claim_run_directory(experiment, "-sweep"), Terminal()
    with (
        interruptible(terminal, directory),
        given_back_if_refused(directory),
        open_run(experiment, directory, terminal, "make", resume) as run,
    ):
        prepare_shared(run, experiment, settings)
        trials = run_sweep(run, experiment, settings)
    clusters = named_clusters(load_questions(experiment)[1])
    results = summarise_sweep(experiment, settings, trials, arguments, clusters)
    page = write_sweep(results, directory)
    for line in sweep_lines(results):
        terminal.say(line)
    terminal.say(
        f"report: {page}; curves: pip install tensorboard; tensorboard --logdir {directory / 'tune'}"
    )
    if not results.questions:  # every trial failed
        raise typer.Exit(1)
