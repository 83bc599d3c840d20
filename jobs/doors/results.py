"""What every run ends with: its results, its report, links to its stages, and the verdict on the terminal."""

import json
import os
from typing import TYPE_CHECKING

from jobs.experiment.schema import Experiment
from jobs.run.run import Run

if TYPE_CHECKING:
    from jobs.results.outcome import Outcome


def make_results(run: Run, experiment: Experiment) -> "Outcome":
    """Run, summarise, write the report, print the verdict."""
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
