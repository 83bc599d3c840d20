"""The end of every run: results, report, links to its stages, and the verdict on the terminal."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import BadInput
from cluster.own_modules import FOLDERS, SOURCES, keep_own_modules, own_folders, source_of
from cluster.storage import Place
from jobs.doors.run_directory import given_back_if_refused
from jobs.experiment.schema import Experiment
from jobs.run.progress import Terminal
from jobs.run.run import Run, open_run
from selection.verification import load_function

if TYPE_CHECKING:
    from jobs.results.outcome import Outcome

SOURCES_FILE = "sources.json"


def run_experiment(
    experiment: Experiment,
    directory: Place,
    terminal: Terminal,
    resume: str = "auto",
    retry_failed: bool = False,
) -> None:
    """Run a whole experiment in its directory, which has been claimed already."""
    with (
        given_back_if_refused(directory),
        open_run(experiment, directory, terminal, "make", resume, retry_failed) as run,
    ):
        make_results(run, experiment)


def check_resume(resume: str) -> None:
    """Refuse a value of `resume` other than `auto` and `never`."""
    if resume not in ("auto", "never"):
        raise BadInput("--resume", resume, "auto or never", "")


def make_results(run: Run, experiment: Experiment) -> "Outcome":
    """Run the experiment, summarise it, write the report and print the verdict."""
    from jobs.pipeline import run_pipeline
    from jobs.report.claims import claim_lines
    from jobs.report.run import write_report
    from jobs.results.summary import summarise, verdict_lines, write_results
    from jobs.study.published import published

    outcome = run_pipeline(run, experiment)
    results = published(summarise(run, outcome))
    write_results(results, run.directory)
    _link_stages(run)
    if run.mode == "make":
        record_sources(run.directory, experiment)
    page = write_report(results, run.directory)
    run.terminal.say(f"{len(run.stages) - run.cached} stages made, {run.cached} found in the store")
    for line in [*verdict_lines(results), *claim_lines(results)]:
        run.terminal.say(line)
    run.terminal.say(f"report: {page}")
    return outcome


def record_sources(directory: Place, experiment: Experiment) -> None:
    """Record the digest of the user's check, and where it was found, so that the run can be read when the
    check has changed.
    """
    function = experiment.verify.function
    if function is not None:
        told = {"functions": {function: source_of(function, load_function(function))}}
        told |= {"folders": [str(folder) for folder in own_folders()]}  # type: ignore[dict-item]
        (directory / SOURCES_FILE).write_bytes(json.dumps(told, indent=1).encode())


@contextmanager
def as_it_was(directory: Place, terminal: Terminal) -> Iterator[None]:
    """Read a finished run with the digest of its check that it recorded. Says so if the check has changed
    since.
    """
    with environment_kept(SOURCES, FOLDERS):
        _take_sources(directory, terminal)
        yield


@contextmanager
def environment_kept(*names: str) -> Iterator[None]:
    """Restore environment variables that a run sets for its workers when the block ends."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _take_sources(directory: Place, terminal: Terminal) -> None:
    try:
        told = json.loads((directory / SOURCES_FILE).read_text())
    except FileNotFoundError:  # no check of the user's own, or an earlier version
        return
    keep_own_modules([*own_folders(), *(Path(folder) for folder in told["folders"])])
    os.environ.pop(SOURCES, None)
    for function, digest in told["functions"].items():
        with suppress(BadInput):
            if source_of(function, load_function(function)) != digest:
                terminal.say(
                    f"{function} has changed since this run: its verdicts are those of the code before"
                )
    os.environ[SOURCES] = json.dumps(told["functions"])


def _link_stages(run: Run) -> None:
    """Link the run to its stages. `stages.json` names all of them. If run and store are local,
    `stages/<kind>/<label>` are symbolic links into the store.
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
