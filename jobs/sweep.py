"""`tutelage sweep`: Ray Tune over any keys of an experiment, on one shared pool and one shared table of
statistics.

The settings are known before anything starts: Tune's own generator expands grids and draws random values.
What they share (answers, verdicts, costs of the students as they are) is made once; then every setting and
seed is a Tune trial, a light driver that selects, launches the Ray Train run, evaluates and reports. All of
it goes through the store, so a trial that is started again, by Tune or by a second sweep, goes on where it
was.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from cluster.errors import BadInput, TutelageError
from cluster.placement import Node
from cluster.storage import Place, local_copy
from jobs.experiment.placement import Placement
from jobs.experiment.reading import load_experiment, parse_experiment, resolved, set_key
from jobs.experiment.schema import Experiment
from jobs.experiment.sweep import Draw, Sweep
from jobs.pipeline import SYSTEMS, begin, look
from jobs.results.outcome import Outcome, StudentPath
from jobs.run.progress import Terminal
from jobs.run.run import Run, open_run
from jobs.run.store import Stage, digest
from jobs.stages.score import score_students
from jobs.systems.paths import paths_of
from training.trainer import check_train_room

TRIAL_MEMORY_MIB = 256
TUNE, TRIAL, EVALUATION = "tune", "trial-", "evaluation "
SHARED = (
    "seed",
    "limit",
    "miniature",
    "questions",
    "teachers",
    "students",
    "generate",
    "verify",
    "score",
    "evaluate",
)
# What is where the run lives, and what would give settings other questions or another measure to be compared
# by.
NOT_SWEPT = (
    "name",
    "store",
    "runs",
    "ray",
    "placement",
    "sweep",
    "seeds",
    "arms",
    "limit",
    "questions",
    "miniature",
    "evaluate",
)


@dataclass(frozen=True)
class Setting:
    """One point of a sweep: an arm, and the values of the swept keys; a reference arm has none."""

    arm: str
    values: tuple[tuple[str, Any], ...] = ()

    def __hash__(self) -> int:  # a value may be a whole arm, which has none of its own
        return hash(digest([self.arm, self.values]))

    @property
    def label(self) -> str:
        return (
            " ".join(
                f"{key.removeprefix('arm.').removeprefix('train.')}={_plain(value)}"
                for key, value in self.values
            )
            or self.arm
        )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name") or json.dumps(value, sort_keys=True))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Trial:
    """What came of one setting under one training seed.

    Attributes:
        state: finished, stopped (by the scheduler, before its last round) or failed.
        rounds: how far it came; 2.5 is half of the third round.
        evaluations: student -> directory of its last evaluation.
    """

    setting: Setting
    seed: int
    state: str
    rounds: float
    evaluations: dict[str, str]
    error: str = ""


def swept_arm(e: Experiment) -> str:
    return _sweep(e).arm or e.arms[0].name


def _sweep(e: Experiment) -> Sweep:
    if e.sweep is None:
        raise BadInput(
            "the experiment has no sweep section",
            "",
            "sweep: {parameters: {arm.lambda: [0, 0.5, 1]}}",
            "see docs/sweeps.md",
        )
    return e.sweep


def expand_settings(e: Experiment) -> list[Setting]:
    """The reference arms, then every distinct setting of the swept arm: the whole grid for each draw of the
    random values.

    Raises:
        BadInput: no sweep section, a key that cannot be swept, or a setting that is no valid experiment.
    """
    from ray import tune
    from ray.tune.search.variant_generator import generate_variants

    sweep = _sweep(e)
    for key in sweep.parameters:
        if key.partition(".")[0] in NOT_SWEPT:
            raise BadInput(
                f"{key} cannot be swept",
                key,
                "arm.…, train.… or another section's key",
                "`arm.` stands for the swept arm",
            )
    space: dict[str, Any] = {}
    for number, values in enumerate(sweep.parameters.values()):
        if isinstance(values, Draw):
            ((kind, ends),) = ((k, v) for k, v in values.model_dump().items() if v is not None)
            space[str(number)] = tune.choice(list(ends)) if kind == "choice" else getattr(tune, kind)(*ends)
        else:
            space[str(number)] = tune.grid_search(list(values))
    random = np.random.RandomState(e.seed)
    draws = sweep.samples if any(isinstance(v, Draw) for v in sweep.parameters.values()) else 1
    arm, settings = swept_arm(e), [Setting(a.name) for a in e.arms if a.name != swept_arm(e)]
    for _ in range(draws):
        for _, found in generate_variants(space, constant_grid_search=True, random_state=random):
            point = (found[str(k)] for k in range(len(sweep.parameters)))
            settings.append(Setting(arm, tuple(zip(sweep.parameters, point, strict=True))))
    settings = list({digest([s.arm, s.values]): s for s in settings}.values())
    for setting in settings:
        experiment_of(e, setting)
    return settings


def experiment_of(e: Experiment, setting: Setting) -> Experiment:
    """The experiment of one setting: its one arm, with the swept values.

    Raises:
        BadInput: it is not valid; names the setting.
    """
    tree = resolved(e)
    tree["arms"] = [arm for arm in tree["arms"] if arm["name"] == setting.arm]
    tree["evaluate"]["baseline"], tree["sweep"], tree["seeds"] = None, None, e.sweep.seeds if e.sweep else 1
    try:
        for key, value in setting.values:
            if key == "arm":
                tree["arms"][0] = {"name": setting.arm, **value} if isinstance(value, Mapping) else value
            else:
                set_key(tree, f"arms.0{key.removeprefix('arm')}" if key.startswith("arm.") else key, value)
        return parse_experiment(tree)
    except TutelageError as error:
        raise BadInput(
            f"the setting {setting.label} is no valid experiment", error, "", "change sweep.parameters"
        ) from error


def prepare_shared(run: Run, experiment: Experiment, settings: Sequence[Setting]) -> None:
    """Make once what the settings share: every distinct pool, with the students' first costs
    and evaluations.
    """
    wanted = [experiment_of(experiment, s) for s in settings]
    distinct = {digest({k: v for k, v in resolved(w).items() if k in SHARED}): w for w in wanted}
    for number, one in enumerate(distinct.values(), 1):
        if len(distinct) > 1:
            run.terminal.say(f"pool {number} of {len(distinct)}")
        start = begin(run, look(run, one))
        e, students = start.experiment, list(start.students.values())
        score_students(run, students, start.rows, start.pool.ids, e.score, e.placement)


def count_concurrent(placement: Placement, most: int | None, nodes: Sequence[Node], grows: bool) -> int:
    """How many trials can train at once on these nodes, at least one and at most `most`.

    Raises:
        NoRoom: not even one can.
    """
    if grows:  # the cluster starts nodes as they are asked for: how many at once is the user's to say
        return most or 1
    workers = placement.train_workers * placement.train_lanes
    check_train_room(workers, placement.train_needs, nodes)
    fitting = sum(placement.train_needs.count_on(node) for node in nodes) // workers
    return max(1, min(fitting, most or fitting))


def run_trial(config: dict[str, Any]) -> None:
    """Entry of a Tune trial: run one setting under one seed on the shared pool, and report after every round
    or epoch.

    Reported: `value`, the mean over students and over the held-out questions that choose (see `choosing`),
    `rounds`, and where each student's evaluation is.
    """
    from ray import tune

    trial = config["trial"]
    directory = Place(config["directory"])
    base = load_experiment(local_copy(str(directory / "experiment.yaml")))
    setting = Setting(trial["arm"], tuple((k, v) for k, v in json.loads(trial["values"])))
    experiment = experiment_of(base, setting)
    with (
        _trial_log(directory, trial["name"]) as terminal,
        open_run(experiment, directory, terminal) as run,
    ):
        try:
            start = begin(run, look(run, experiment))
            kept = set(choosing([q.id for q in start.held_out], _sweep(base).choose_share))

            def report(rounds: float, evaluations: Mapping[StudentPath, Stage]) -> None:
                run.host.release()  # Tune may end this trial here, or let another one go first
                value = float(np.mean([_mean(stage.directory, kept) for stage in evaluations.values()]))
                found = {EVALUATION + p.student: str(stage.directory) for p, stage in evaluations.items()}
                tune.report({"value": value, "rounds": rounds, **found})

            paths = [p for p in paths_of(start.experiment) if p.seed == trial["seed"]]
            system = SYSTEMS[paths[0].arm.kind]
            system(run, start, Outcome(start, paths), paths, report, _sweep(base).report_every == "epoch")
        except BadInput as error:  # it would fail again: a row says why, and Tune does not try once more
            tune.report({"value": float("nan"), "rounds": 0.0, "error": str(error)})


@contextmanager
def _trial_log(directory: Place, name: str) -> Iterator[Terminal]:
    """A trial speaks into a log of its own, beside the sweep where that is local, else into Ray's log of its
    worker.
    """
    if not directory.is_local:
        yield Terminal()
        return
    path = (directory / f"logs/trial-{name}.log").path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        yield Terminal(Console(file=file, highlight=False, soft_wrap=True))


def _mean(directory: Place, kept: set[str]) -> float:
    values = read_evaluation(directory)
    return float(values[values.index.isin(kept)].mean())


def read_evaluation(directory: Place) -> "pd.Series[float]":
    """An evaluation's values by question id, from its directory in the store."""
    return Stage("evaluate", directory.name, directory, {}, {}).read().set_index("question_id")["value"]


def choosing(held_out: Sequence[str], share: float) -> list[str]:
    """The held-out questions by which settings are compared while the sweep runs; the others judge the one
    that is taken.

    The largest of many noisy values is too large: a setting's value must be told by questions that did not
    choose it.
    """
    order = sorted(held_out, key=lambda q: digest(["choose", q]))
    return sorted(order[: max(1, min(len(order) - 1, round(share * len(order))))])


def run_sweep(run: Run, experiment: Experiment, settings: Sequence[Setting]) -> list[Trial]:
    """Run all trials with Ray Tune, or go on with those that an interrupted sweep left; returns one row per
    setting and seed.
    """
    from ray import tune

    sweep, cluster = _sweep(experiment), run.host.cluster
    trials = [(setting, seed) for setting in settings for seed in range(sweep.seeds)]
    experiments = {s: experiment_of(experiment, s) for s in settings}
    concurrent = count_concurrent(experiment.placement, sweep.max_concurrent, cluster.nodes, cluster.grows)
    run.terminal.say(
        f"{len(settings)} settings × {sweep.seeds} seeds = {len(trials)} trials, {concurrent} at once"
    )
    run.host.release()
    trainable = tune.with_resources(run_trial, {"memory": TRIAL_MEMORY_MIB * 2**20})
    parameters = {"trial": tune.grid_search(space_of(trials)), "directory": str(run.directory)}
    tuner = _restored(run, trainable, parameters) or tune.Tuner(
        trainable,
        param_space=parameters,
        run_config=run_config(run.directory, sweep, len(trials)),
        tune_config=tune.TuneConfig(
            metric="value",
            mode="max",
            scheduler=scheduler_of(sweep, list(experiments.values())),
            max_concurrent_trials=concurrent,
            trial_dirname_creator=lambda trial: TRIAL + trial.config["trial"]["name"],
        ),
    )
    by_name = {r.path.rpartition("/")[2].removeprefix(TRIAL): r for r in tuner.fit()}
    return [
        _trial(setting, seed, by_name.get(f"{k:04d}"), experiments[setting].rounds)
        for k, (setting, seed) in enumerate(trials)
    ]


def space_of(trials: Sequence[tuple[Setting, int]]) -> list[dict[str, Any]]:
    """Each trial as Tune is given it, and shows it in its tables: its name, arm, seed and values."""
    return [
        {
            "name": f"{k:04d}",
            "arm": s.arm,
            "seed": seed,
            "values": json.dumps(s.values),
            **{key: _plain(v) for key, v in s.values},
        }
        for k, (s, seed) in enumerate(trials)
    ]


def run_config(directory: Place, sweep: Sweep, trials: int) -> Any:
    """Where Tune keeps its state, how often it starts a trial again, and who tells of trials."""
    from ray import tune

    system, path = directory.opened()
    return tune.RunConfig(
        name=TUNE,
        storage_path=path,
        storage_filesystem=None if directory.is_local else system,
        failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
        callbacks=[_tell(trials)],
        verbose=0,
    )


def scheduler_of(sweep: Sweep, experiments: Sequence[Experiment]) -> Any:
    """Who decides which trials go on: all of them, or with `stop_early` those that ASHA lets."""
    from ray.tune.schedulers import FIFOScheduler

    if not sweep.stop_early:
        return FIFOScheduler()
    by_epoch = sweep.report_every == "epoch"
    most = max(
        x.rounds * (math.ceil(x.train.epochs) if by_epoch and x.train.steps is None else 1)
        for x in experiments
    )
    return _sparing_references(
        max_t=most, grace_period=min(sweep.grace, most), reduction_factor=sweep.reduction_factor
    )


def _sparing_references(**options: Any) -> Any:
    """ASHA that lets the reference arms run to their end: the settings are compared with them."""
    from ray.tune.schedulers import ASHAScheduler

    class SparingReferences(ASHAScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            wanted = super().on_trial_result(tune_controller, trial, result)
            is_reference = trial.config["trial"]["values"] == "[]"
            return self.CONTINUE if is_reference else wanted

    return SparingReferences(**options)


def _trial(setting: Setting, seed: int, result: Any, rounds: int) -> Trial:
    """One row: what a trial reported last, or why it failed."""
    metrics = (result.metrics or {}) if result is not None else {}
    evaluations = {
        key.removeprefix(EVALUATION): str(place)
        for key, place in metrics.items()
        if key.startswith(EVALUATION)
    }
    done, error = float(metrics.get("rounds", 0.0)), str(metrics.get("error", ""))
    if result is None:
        error = "Ray Tune has no record of it"
    elif result.error is not None:
        error = str(result.error).strip().splitlines()[-1]
    state = "failed" if error else "finished" if done >= rounds else "stopped"
    return Trial(setting, seed, state, done, evaluations, error)


def _tell(total: int) -> Any:
    """A Tune callback that says in one line what a trial reports and how it ends; Tune pickles it with the
    sweep's state.
    """
    from ray.tune import Callback

    class Tell(Callback):
        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            given = trial.config["trial"]
            label = (
                " ".join(f"{k}={v}" for k, v in given.items() if k not in ("name", "arm", "values", "seed"))
                or given["arm"]
            )
            said = result.get("error") or f"{result['value']:.4f} after {result['rounds']:.3g} rounds"
            print(f"trial {given['name']} ({label}, seed {given['seed']}): {said}", flush=True)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._count("ended", trials, trial)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._count("failed", trials, trial)

        def _count(self, how: str, trials: list[Any], trial: Any) -> None:
            over = {t.trial_id for t in trials if t.is_finished()} | {trial.trial_id}
            print(f"trial {trial.config['trial']['name']} {how}; {len(over)} of {total}", flush=True)

    return Tell()


def _restored(run: Run, trainable: Any, parameters: dict[str, Any]) -> Any:
    """The tuner of an interrupted sweep, so that finished trials are not started again; None where there is
    none to be read.
    """
    from ray import tune

    system, path = (run.directory / TUNE).opened()
    remote = None if run.directory.is_local else system
    if run.resume == "never":
        (run.directory / TUNE).remove()
    if not tune.Tuner.can_restore(path, storage_filesystem=remote):
        return None
    try:
        tuner = tune.Tuner.restore(
            path,
            trainable,
            param_space=parameters,
            restart_errored=True,
            resume_unfinished=True,
            storage_filesystem=remote,
        )
    except Exception as error:  # whatever Ray makes of a state file whose writer was killed
        run.terminal.say(
            f"the sweep's own state cannot be read ({type(error).__name__}); its trials start "
            "again from the store"
        )
        (run.directory / TUNE).remove()
        return None
    run.terminal.say("going on with the sweep that was begun here")
    return tuner
