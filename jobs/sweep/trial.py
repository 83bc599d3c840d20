"""One trial of a sweep: a setting under one training seed. It runs as a light driver on the shared pool."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from cluster.errors import BadInput
from cluster.storage import Place, local_copy
from jobs.experiment.parsing import load_experiment
from jobs.experiment.schema import Experiment
from jobs.experiment.sweep import Sweep
from jobs.pipeline import begin, look
from jobs.results.judged import named_clusters
from jobs.results.outcome import Outcome, StudentPath
from jobs.run.progress import Terminal
from jobs.run.run import Run, open_run
from jobs.run.store import Stage
from jobs.sweep.evaluations import choosing, mean_value
from jobs.sweep.settings import Setting, experiment_of, sweep_of
from jobs.systems.paths import paths_of
from jobs.systems.record import system_of

EVALUATION = "evaluation "  # prefix of a metric's name: student -> directory of its evaluation


@dataclass(frozen=True)
class Trial:
    """The result of one setting under one training seed.

    Attributes:
        state: finished, stopped (by the scheduler, before its last round) or failed.
        rounds: how many rounds were done. 2.5 is half of the third round.
        evaluations: student -> directory of its last evaluation.
    """

    setting: Setting
    seed: int
    state: str
    rounds: float
    evaluations: dict[str, str]
    error: str = ""


def run_trial(config: dict[str, Any]) -> None:
    """Entry of a Tune trial. Runs one setting under one seed on the shared pool, and reports after every
    round or epoch.

    Reported are `value`, which is the mean over students and over the held-out questions that choose (see
    `choosing`), `rounds`, and the directory of each student's evaluation.
    """
    from ray import tune

    trial = config["trial"]
    directory = Place(config["directory"])
    base = load_experiment(local_copy(str(directory / "experiment.yaml")))
    setting = Setting(trial["arm"], tuple((k, v) for k, v in json.loads(trial["values"])))
    experiment = experiment_of(base, setting)
    with (
        _trial_log(directory, trial["name"]) as terminal,
        open_run(experiment, directory, terminal, part=trial["name"]) as run,
    ):
        try:
            _teach(run, experiment, sweep_of(base), trial["seed"])
        except BadInput as error:  # it would fail again, so Tune does not try again; the row has the reason
            tune.report({"value": float("nan"), "rounds": 0.0, "error": str(error)})


def _teach(run: Run, experiment: Experiment, sweep: Sweep, seed: int) -> None:
    """Teach the students of one setting under one seed, and report each result to Tune."""
    from ray import tune

    start = begin(run, look(run, experiment))
    held_out = [q.id for q in start.held_out]
    kept = set(choosing(held_out, sweep.choose_share, named_clusters(start.held_out)))

    def report(rounds: float, evaluations: Mapping[StudentPath, Stage]) -> None:
        run.host.release()  # Tune may end this trial here, or let another one go first
        metric = experiment.evaluate.metric
        value = float(np.mean([mean_value(stage.directory, metric, kept) for stage in evaluations.values()]))
        found = {EVALUATION + p.student: str(stage.directory) for p, stage in evaluations.items()}
        tune.report({"value": value, "rounds": rounds, **found})

    paths = [p for p in paths_of(start.experiment) if p.seed == seed]
    outcome = Outcome(start, paths)
    system_of(paths[0].arm).teach(run, start, outcome, paths, report, sweep.report_every == "epoch")
    for number, why in outcome.ended.values():  # a mean over the remaining students would not be comparable
        raise BadInput(f"a student's path ended in round {number}", why, "paths that come to their end", "")


@contextmanager
def _trial_log(directory: Place, name: str) -> Iterator[Terminal]:
    """The log of a trial. It lies beside the sweep if that is local. Otherwise lines go to Ray's log of the
    worker.
    """
    if not directory.is_local:
        yield Terminal()
        return
    path = (directory / f"logs/trial-{name}.log").path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        yield Terminal(Console(file=file, highlight=False, soft_wrap=True))
