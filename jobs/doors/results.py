"""The end of every run: results, report, links to its stages, and the verdict on the terminal."""

import json
import os
from typing import TYPE_CHECKING

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.schema import Experiment
from jobs.run.progress import Terminal
from jobs.run.run import Run, open_run

if TYPE_CHECKING:
    from jobs.results.outcome import Outcome


def run_experiment(
    experiment: Experiment,
    directory: Place,
    terminal: Terminal,
    resume: str = "auto",
    retry_failed: bool = False,
) -> None:
    """Run a whole experiment in its directory, which has been claimed already."""
    with open_run(experiment, directory, terminal, "make", resume, retry_failed) as run:
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
    page = write_report(results, run.directory)
    run.terminal.say(f"{len(run.stages) - run.cached} stages made, {run.cached} found in the store")
    for line in [*verdict_lines(results), *claim_lines(results)]:
        run.terminal.say(line)
    run.terminal.say(f"report: {page}")
    return outcome


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
