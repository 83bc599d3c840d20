"""The commands that start no model: `tutelage plan`, `report`, `export` and `replay`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cluster.destinations import check_out_folder
from cluster.errors import BadInput
from cluster.storage import Place, is_uri, local_copy
from jobs.doors.options import ExperimentFile, Limit, Overrides, Seed, load_with_options
from jobs.doors.results import as_it_was, make_results
from jobs.experiment.parsing import load_experiment
from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import FileTeacher
from jobs.run.progress import Terminal
from jobs.run.run import open_run

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.")]


def plan(
    file: ExperimentFile,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = None,
) -> None:
    """Show what a run would do: cached stages, remaining shards and tokens, placement. Starts no model."""
    from jobs.plan import make_plan, notes

    experiment = load_with_options(file, overrides, limit, seed)
    terminal = Terminal()
    with open_run(experiment, Place(experiment.runs) / experiment.name, terminal, "plan") as run:
        rows = make_plan(run, experiment)
    table = Table(title=f"plan of {experiment.name}", title_justify="left")
    for column in ("stage", "cached", "remaining", "placement"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.stage, row.cached, row.remaining, row.placement)
    terminal.show(table)
    for line in notes(run):
        terminal.say(line)


def export(
    run_name: RunName,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="Also write choices as messages, trl, llama-factory, verl, preference."
        ),
    ] = None,
    runs: str = "runs",
) -> None:
    """Write a finished run's verified answers and choices as files, with a data set card. Starts no model."""
    from jobs.pipeline import run_pipeline
    from jobs.report.export import export_run
    from jobs.report.formats import FORMATS

    for name in formats or ():
        if name not in FORMATS:
            raise BadInput("--format", name, ", ".join(FORMATS), "")
    experiment, directory = saved_run(run_name, runs)
    check_out_folder(out, [str(directory), experiment.store, *_folders_read(experiment, out)])
    with as_it_was(directory, Terminal()), open_run(experiment, directory, Terminal(), "read") as run:
        for path in export_run(run_pipeline(run, experiment), out, formats or ()):
            run.terminal.say(str(path))


def report(run_name: RunName, runs: str = "runs") -> None:
    """Write a finished run's report again, and print its verdict. Starts no model."""
    experiment, directory = saved_run(run_name, runs)
    with as_it_was(directory, Terminal()), open_run(experiment, directory, Terminal(), "read") as run:
        make_results(run, experiment)


def replay(
    run_name: RunName,
    answer: Annotated[str, typer.Argument(metavar="ANSWER", help="An answer's id: teacher/question/sample.")],
    number: Annotated[int, typer.Option("--round", help="Score as in this round.")] = 1,
    runs: str = "runs",
) -> None:
    """Run one answer of a finished run again through verification and scoring, in this process, and say what
    differs.
    """
    from jobs.pipeline import run_pipeline
    from jobs.report.replay import replay_answer

    experiment, directory = saved_run(run_name, runs)
    with as_it_was(directory, Terminal()), open_run(experiment, directory, Terminal(), "read") as run:
        for line in replay_answer(run_pipeline(run, experiment), answer, number):
            run.terminal.say(line)


def _folders_read(experiment: Experiment, out: Path) -> list[Path]:
    """The folder `out`, if an export into it would overwrite files that the experiment reads. Otherwise
    empty.
    """
    given = [experiment.questions.train, experiment.questions.evaluate]
    given += [teacher.path for teacher in experiment.teachers if isinstance(teacher, FileTeacher)]
    written = [(out / name).resolve() for name in ("answers", "chosen")]
    return [out for path in given if not is_uri(path) and Path(path).resolve().parent in written]


def saved_run(run_name: str, runs: str) -> tuple[Experiment, Place]:
    """Read the experiment that a run's directory holds. Returns it with the directory.

    Raises:
        BadInput: the directory holds no run.
    """
    named = is_uri(run_name) or Path(run_name).is_dir()
    directory = Place(run_name) if named else Place(runs) / run_name
    saved = directory / "experiment.yaml"
    if not saved.is_file():
        raise BadInput(
            "no run there", directory, "a directory that `tutelage run` made", f"runs are in {runs}/"
        )
    return load_experiment(local_copy(str(saved))), directory
