"""The command line: verb first, an experiment file, dotted overrides; each stage also alone, on the user's
own files.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import yaml
from rich.table import Table

from cluster.errors import BadInput, TutelageError
from cluster.storage import Place, is_uri, local_copy
from jobs import __version__, submission
from jobs.doors.options import Limit
from jobs.doors.standalone import audit, score, select, verify
from jobs.experiment.reading import load_experiment, resolved
from jobs.experiment.schema import Experiment
from jobs.run.progress import Terminal, printable
from jobs.run.run import Run, open_run
from jobs.submission import keep_outside_job_copy

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
DISK_PROBLEMS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides, for example train.epochs=2 arms.0.lambda=0.3")
]
ExperimentFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="An experiment file, for example experiments/quickstart.yaml")
]


Seed = Annotated[int | None, typer.Option(help="Seed of the whole experiment.")]


class _Options:
    """Options of the whole program."""

    debug = False


@app.callback(invoke_without_command=True)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Choose, for every question, the verified teacher answer that suits this student now; train on it; say
    whether it helped.
    """
    _Options.debug = debug
    if version:
        print(__version__)
        raise typer.Exit


def _load(file: Path, overrides: list[str] | None, limit: int | None, seed: int | None) -> Experiment:
    return keep_outside_job_copy(load_experiment(file, _given(overrides, limit, seed)), Path.cwd())


def _given(overrides: list[str] | None, limit: int | None, seed: int | None) -> list[str]:
    """Overrides, with those that have options of their own."""
    options = {"limit": limit, "seed": seed}
    return [*(overrides or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]


def _claim_run_directory(experiment: Experiment, suffix: str = "") -> Place:
    """Create the run's directory, or take it up again if the same experiment made it.

    Raises:
        BadInput: another experiment made it.
    """
    directory = Place(experiment.runs) / f"{experiment.name}{suffix}"
    saved = directory / "experiment.yaml"
    mine = resolved(experiment)
    if saved.is_file():
        theirs = yaml.safe_load(saved.read_text())
        free = ("ray", "placement", "store", "runs", *(() if suffix else ("sweep",)))
        different = [k for k in mine if k not in free and theirs.get(k) != mine[k]]
        if different:
            raise BadInput(
                f"{directory} was made by a different experiment",
                f"other values under {', '.join(different)}",
                "the same experiment",
                "give this one another name (name=NEW), or remove that directory; the store "
                "keeps all finished work",
            )
    elif directory.glob("*"):
        raise BadInput(
            f"{directory} is not empty and no run made it",
            "",
            "a new or a run's directory",
            "give another name (name=NEW)",
        )
    saved.write_bytes(yaml.safe_dump(mine, sort_keys=False, allow_unicode=True).encode())
    return directory


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _interruptible(terminal: Terminal, directory: Place) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a clean end that says how to go on."""
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        yield
    except KeyboardInterrupt:
        terminal.say(f"interrupted; finished work is kept, run the same command again to go on ({directory})")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


@app.command()
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
    experiment = _load(file, overrides, limit, seed)
    directory = _claim_run_directory(experiment)
    terminal = Terminal()
    with (
        _interruptible(terminal, directory),
        open_run(experiment, directory, terminal, "make", resume, retry_failed) as run,
    ):
        _run(run, experiment)


def _run(run: Run, experiment: Experiment) -> None:
    """Run, summarise, write the report, print the verdict."""
    from jobs.pipeline import run_pipeline
    from jobs.report.run import write_report
    from jobs.results.summary import summarise, verdict_lines, write_results

    results = summarise(run, run_pipeline(run, experiment))
    write_results(results, run.directory)
    _link_stages(run)
    page = write_report(results, run.directory)
    run.terminal.say(f"{len(run.stages) - run.cached} stages made, {run.cached} found in the store")
    for line in verdict_lines(results):
        run.terminal.say(line)
    run.terminal.say(f"report: {page}")


def _link_stages(run: Run) -> None:
    """Link the run to its stages: `stages.json` names them all, and where both are local
    `stages/<kind>/<label>` points into the store.
    """
    places = [{"kind": k, "label": n, "directory": str(s.directory)} for (k, n), s in run.stages.items()]
    (run.directory / "stages.json").write_bytes(json.dumps(places, indent=1).encode())
    if not (run.directory.is_local and run.store.root.is_local):
        return
    for (kind, label), stage in run.stages.items():
        link = run.directory.path / "stages" / kind / label.replace(" ", "-").replace("/", "_")
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(os.path.relpath(str(stage.directory), link.parent))


@app.command()
def plan(
    file: ExperimentFile,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = None,
) -> None:
    """Show what a run would do: cached stages, remaining shards and tokens, placement. Starts no model."""
    from jobs.plan import make_plan

    experiment = _load(file, overrides, limit, seed)
    terminal = Terminal()
    with open_run(experiment, Place(experiment.runs) / experiment.name, terminal, "plan") as run:
        rows = make_plan(run, experiment)
    table = Table(title=f"plan of {experiment.name}", title_justify="left")
    for column in ("stage", "cached", "remaining", "placement"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.stage, row.cached, row.remaining, row.placement)
    terminal.show(table)


def _saved(run_name: str, runs: str) -> tuple[Experiment, Place]:
    """The experiment that a run's directory holds.

    Raises:
        BadInput: no run there.
    """
    named = is_uri(run_name) or Path(run_name).is_dir()
    directory = Place(run_name) if named else Place(runs) / run_name
    saved = directory / "experiment.yaml"
    if not saved.is_file():
        raise BadInput(
            "no run there", directory, "a directory that `tutelage run` made", f"runs are in {runs}/"
        )
    return load_experiment(local_copy(str(saved))), directory


@app.command()
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
    from jobs.report.sweep import write_sweep
    from jobs.sweep import expand_settings, prepare_shared, run_sweep
    from jobs.sweep_results import summarise_sweep, sweep_lines

    if resume not in ("auto", "never"):
        raise BadInput("--resume", resume, "auto or never", "")
    given = _given([o for o in overrides or [] if not o.startswith(("sweep.", "name="))], limit, None)
    experiment = _load(
        file, [*(overrides or []), *([f"sweep.seeds={seeds}"] if seeds is not None else [])], limit, None
    )
    set_environment(experiment.ray)
    settings = expand_settings(experiment)
    terminal = Terminal()
    if dry_run:
        for setting in settings:
            terminal.say(setting.label)
        return
    # Ray frees the train workers of a trial that died only where its dashboard can say that it did.
    experiment = experiment.model_copy(update={"ray": replace(experiment.ray, dashboard=True)})
    directory = _claim_run_directory(experiment, "-sweep")
    with (
        _interruptible(terminal, directory),
        open_run(experiment, directory, terminal, "make", resume) as run,
    ):
        prepare_shared(run, experiment, settings)
        trials = run_sweep(run, experiment, settings)
    results = summarise_sweep(experiment, settings, trials, [str(file), *given])
    page = write_sweep(results, directory)
    for line in sweep_lines(results):
        terminal.say(line)
    terminal.say(
        f"report: {page}; curves: pip install tensorboard; tensorboard --logdir {directory / 'tune'}"
    )


Address = Annotated[str, typer.Option(help="The head node's job server, for example http://127.0.0.1:8265.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id that submit printed.")]


@app.command()
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
    """Run an experiment as a Ray job on a cluster. The working directory is sent along; submit again to go
    on.
    """
    given = _given(overrides, limit, seed)
    experiment = load_experiment(file, given)  # a mistake shows here, not minutes later on the cluster
    if sweep:
        from jobs.sweep import expand_settings

        expand_settings(experiment)
    client = submission.connect_to_jobs(address)
    job = submission.submit_job(client, "sweep" if sweep else "run", file, given, Path.cwd())
    print(f"submitted {job} to {address}", flush=True)
    if wait:
        try:
            raise typer.Exit(submission.follow(client, job))
        except KeyboardInterrupt:
            print(f"the job goes on; end it with: tutelage stop {job} --address {address}")
            raise typer.Exit(130) from None


@app.command()
def status(job: JobId, address: Address) -> None:
    """Say how a submitted job is doing."""
    print(submission.describe(submission.connect_to_jobs(address), job))


@app.command()
def stop(job: JobId, address: Address) -> None:
    """Stop a submitted job; its finished work is kept."""
    print(submission.stop(submission.connect_to_jobs(address), job))


RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.")]


@app.command()
def export(
    run_name: RunName, out: Annotated[Path, typer.Option(help="Folder for the files.")], runs: str = "runs"
) -> None:
    """Write a finished run's verified answers and choices as JSONL files. Starts no model."""
    from jobs.pipeline import run_pipeline
    from jobs.report.export import export_run

    experiment, directory = _saved(run_name, runs)
    with open_run(experiment, directory, Terminal(), "read") as run:
        for path in export_run(run_pipeline(run, experiment), out):
            run.terminal.say(str(path))


@app.command()
def report(run_name: RunName, runs: str = "runs") -> None:
    """Write a finished run's report again, and print its verdict. Starts no model."""
    experiment, directory = _saved(run_name, runs)
    with open_run(experiment, directory, Terminal(), "read") as run:
        _run(run, experiment)


@app.command()
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

    experiment, directory = _saved(run_name, runs)
    with open_run(experiment, directory, Terminal(), "read") as run:
        for line in replay_answer(run_pipeline(run, experiment), answer, number):
            run.terminal.say(line)


@app.command()
def miniature(
    out: Annotated[Path, typer.Option(help="Store to build in.")] = Path("store"),
    seed: int = 0,
    train_questions: int = 400,
    evaluate_questions: int = 300,
) -> None:
    """Build the miniature world alone and print where its models and questions are."""
    from jobs.miniature.world import STUDENTS, TEACHERS, build_world

    experiment = load_experiment(Path(__file__).parent / "miniature" / "world.yaml", [f"store={out}"])
    settings = {"seed": seed, "train_questions": train_questions, "evaluate_questions": evaluate_questions}
    experiment = experiment.model_copy(update={"miniature": type(experiment.miniature)(**settings)})  # type: ignore[call-arg,misc]
    terminal = Terminal()
    with (
        _interruptible(terminal, Place(str(out))),
        open_run(experiment, Place(str(out)) / "logs", terminal) as run,
    ):
        directory = build_world(run, experiment.miniature, experiment.placement)  # type: ignore[arg-type]
    for kind, names in (("teacher", TEACHERS), ("student", STUDENTS)):
        for name in names:
            print(f"{kind:8} {name:10} {directory / f'{name}/model'}")
    print(f"questions           {directory / 'train.jsonl'} {directory / 'evaluate.jsonl'}")


for stage_alone in (score, select, verify, audit):
    app.command()(stage_alone)


def main() -> None:
    """Entry of `tutelage` and `python -m jobs`: one line for a failure the user can mend, the traceback
    behind --debug.
    """
    sys.path.insert(0, str(Path.cwd()))  # a user's own verify.function lies beside the experiment
    try:
        app()
    except TutelageError as error:
        if _Options.debug:
            raise
        print(f"tutelage: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if _Options.debug or error.errno not in DISK_PROBLEMS:
            raise
        print(
            f"tutelage: {error.filename or 'the store'}: {error.strerror}; what is finished is "
            "kept: mend it, run again",
            file=sys.stderr,
        )
        sys.exit(2)
