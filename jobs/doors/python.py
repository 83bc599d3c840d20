"""Running whole experiments from Python: `tutelage.run` and `tutelage.read_results`."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from cluster.extras import need_for_run
from cluster.own_modules import FOLDERS, SAFE_PATH, keep_own_modules
from cluster.storage import Place, is_uri
from jobs.doors.results import check_resume, environment_kept, run_experiment
from jobs.doors.run_directory import claim_run_directory
from jobs.experiment.parsing import apply, load_experiment, parse_experiment
from jobs.experiment.schema import Experiment
from jobs.run.progress import Terminal


@dataclass(frozen=True, eq=False)
class RunResults:
    """The results of a finished run. Accuracies and their differences are shares, 0 to 1. With `metric` loss
    they are minus nats per answer token. All intervals are 95 % intervals.

    Attributes:
        directory: the run's directory. `report` is the path of its page.
        metric: `accuracy` or `loss`, on held-out questions.
        baseline: the arm that the others are compared with.
        before: one row for each student before training: student, arm, round, seeds, value, low, high.
        arms: the same columns, one row for each student, arm and round.
        comparisons: one row for each student, arm and baseline (`against`): difference, low, high, p_value,
            questions, seeds, and the verdict in words.
        questions: one row for each student, arm, seed and held-out question, with its value.
        ledger: how many questions and answers ended in each state.
        notes: further remarks on the results.
    """

    directory: str
    metric: str
    baseline: str
    before: pd.DataFrame
    arms: pd.DataFrame
    comparisons: pd.DataFrame
    questions: pd.DataFrame
    ledger: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def report(self) -> str:
        return str(Place(self.directory) / "report.html")

    def __str__(self) -> str:
        lines = [f"{c.student}: {c.verdict}" for c in self.comparisons.itertuples()]
        return "\n".join([f"{self.directory}: {self.metric} against {self.baseline}", *lines, *self.notes])


def run(
    experiment: str | Path | Mapping[str, Any] | Experiment,
    *overrides: str,
    resume: str = "auto",
    retry_failed: bool = False,
    verbose: bool = True,
) -> RunResults:
    """Run a whole experiment, as `tutelage run` does: ask, verify, score, choose, train, evaluate, report.
    Call it again after an interruption to continue. Finished work is found in the store.

    Args:
        experiment: a YAML file, its content as a dictionary, or an `Experiment`. Relative paths in it start
            from the current folder.
        overrides: `key.sub=value`, applied to the file or dictionary.
        resume: `never` starts unfinished stages again from the beginning.
        retry_failed: ask endpoints again where calls failed for good.
        verbose: show progress and the verdict.

    Returns:
        What `read_results` reads of the run.

    Raises:
        BadInput: a defect of the experiment, or a package that is not installed.
        TutelageError: any other error that the user can correct.

    Example:
        >>> import tutelage
        >>> results = tutelage.run("mine.yaml", "train.epochs=2")  # doctest: +SKIP
        >>> results.comparisons[["student", "arm", "difference", "verdict"]]  # doctest: +SKIP
    """
    check_resume(resume)
    odd = next((one for one in overrides if not isinstance(one, str)), None)
    if odd is not None:
        raise BadInput(
            "an override is no text", type(odd).__name__, '"train.steps=3"', "one text for each key"
        )
    found = _experiment_of(experiment, overrides)
    need_for_run(found.ray.address)
    folders = [Path.cwd()]
    if isinstance(experiment, str | Path):
        folders.append(Path(experiment).absolute().parent)
    directory = claim_run_directory(found)
    with environment_kept(FOLDERS, SAFE_PATH):
        keep_own_modules(folders)
        os.environ[SAFE_PATH] = "1"  # no worker searches the current folder first
        run_experiment(found, directory, Terminal(quiet=not verbose), resume, retry_failed)
    return read_results(str(directory))


def _experiment_of(
    given: str | Path | Mapping[str, Any] | Experiment, overrides: tuple[str, ...]
) -> Experiment:
    if isinstance(given, str | Path):
        return load_experiment(Path(given), list(overrides))
    if isinstance(given, Experiment):
        if overrides:
            raise BadInput("overrides of an Experiment", ", ".join(overrides), "none", "use model_copy")
        return given
    if not isinstance(given, Mapping):
        expected = "a file, a dictionary or an Experiment"
        raise BadInput("no experiment", type(given).__name__, expected, "")
    tree = json.loads(json.dumps(dict(given), default=str))
    for override in overrides:
        apply(tree, override)
    return parse_experiment(tree)


def read_results(run: str | Path, runs: str = "runs") -> RunResults:
    """Read the results of a finished run from its own files.

    Args:
        run: the run's directory or URI, or its name in the folder `runs`.

    Raises:
        BadInput: there is no finished run.
    """
    text = str(run)
    directory = Place(text) if is_uri(text) or Path(text).is_dir() else Place(runs) / text
    if not (directory / "results.json").is_file():
        remedy = f"look in {runs}/, or run it to its end"
        raise BadInput("no finished run there", directory, "a directory with results.json", remedy)
    told = json.loads((directory / "results.json").read_bytes())
    return RunResults(
        directory=str(directory),
        metric=told["metric"],
        baseline=told["baseline"],
        before=_values(told["before"]),
        arms=_values(told["arms"]),
        comparisons=_flat(told["comparisons"], "difference").drop(columns="uncertainty", errors="ignore"),
        questions=_table(directory / "questions.parquet"),
        ledger=_table(directory / "ledger.parquet"),
        notes=(*told["notes"], *told["ended"]),
    )


def _table(place: Place) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(place.read_bytes()))


def _values(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return _flat(rows, "value").drop(columns="families", errors="ignore")


def _flat(rows: list[dict[str, Any]], name: str) -> pd.DataFrame:
    """Make a table of rows whose field `name` is an interval. The interval becomes the columns `name`, `low`
    and `high`.
    """
    plain = []
    for row in rows:
        interval = row[name]
        ends = {name: interval["value"], "low": interval["low"], "high": interval["high"]}
        plain.append({**row, **ends})
    return pd.DataFrame(plain)
