"""Ray Tune over the trials of a sweep: how many run at once, how they start, and how an interrupted sweep
continues.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cluster.placement import Node
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.experiment.schema import Experiment
from jobs.experiment.sweep import Sweep
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.sweep.progress import tell_progress
from jobs.sweep.scheduler import scheduler_of
from jobs.sweep.settings import Setting, experiment_of, plain_value, sweep_of, swept_name
from jobs.sweep.trial import EVALUATION, Trial, run_trial
from training.trainer import check_train_room

TRIAL_MEMORY_MIB = 256
TUNE, TRIAL = "tune", "trial-"
MADE_FROM = "made-from.json"  # beside Tune's state: a digest of the shared stages that its trials stood on


def run_sweep(run: Run, experiment: Experiment, settings: Sequence[Setting]) -> list[Trial]:
    """Run all trials with Ray Tune, or continue an interrupted sweep. Returns one row for each setting and
    seed.
    """
    from ray import tune

    sweep, cluster = sweep_of(experiment), run.host.cluster
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
    by_name = by_trial(tuner.fit())
    return [
        _trial(setting, seed, by_name.get(f"{k:04d}"), experiments[setting].rounds)
        for k, (setting, seed) in enumerate(trials)
    ]


def by_trial(results: Iterable[Any]) -> dict[str, Any]:
    """Tune's results by the trials' names; of two of one trial the one that did not fail. Tune writes a trial
    that it starts again into a folder with a suffix: `trial-0000_1985`.
    """
    ended = sorted(results, key=lambda r: r.error is None)
    return {name[-1]: r for r in ended if (name := re.findall(rf"{TRIAL}(\d+)", r.path))}


def count_concurrent(placement: Placement, most: int | None, nodes: Sequence[Node], grows: bool) -> int:
    """How many trials can train at once on these nodes: at least one, and at most `most`.

    Raises:
        NoRoom: there is not enough room for one.
    """
    if grows:  # such a cluster starts nodes on demand, so only the user knows how many trials fit
        return most or 1
    workers = placement.train_workers * placement.train_lanes
    check_train_room(workers, placement.train_needs, nodes)
    fitting = sum(placement.train_needs.count_on(node) for node in nodes) // workers
    return max(1, min(fitting, most or fitting))


def space_of(trials: Sequence[tuple[Setting, int]]) -> list[dict[str, Any]]:
    """Each trial in the form that Tune takes and shows in its tables: its name, arm, seed and values."""
    return [
        {
            "name": f"{k:04d}",
            "arm": s.arm,
            "seed": seed,
            "values": json.dumps(s.values),
            **{swept_name(key): plain_value(v) for key, v in s.values},
        }
        for k, (s, seed) in enumerate(trials)
    ]


def run_config(directory: Place, sweep: Sweep, trials: int) -> Any:
    """Where Tune keeps its state, how often it starts a trial again, and which callback prints lines."""
    from ray import tune

    system, path = directory.opened()
    return tune.RunConfig(
        name=TUNE,
        storage_path=path,
        storage_filesystem=None if directory.is_local else system,
        failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
        callbacks=[tell_progress(trials)],
        verbose=0,
    )


def _restored(run: Run, trainable: Any, parameters: dict[str, Any]) -> Any:
    """The tuner of an interrupted sweep, so that finished trials are not started again. None if there is none
    that can be read.
    """
    from ray import tune

    system, path = (run.directory / TUNE).opened()
    remote = None if run.directory.is_local else system
    made_from = digest(sorted({stage.path for stage in run.stages.values()})).encode()
    record = run.directory / MADE_FROM
    is_other = record.is_file() and record.read_bytes() != made_from
    if is_other and run.resume != "never" and tune.Tuner.can_restore(path, storage_filesystem=remote):
        run.terminal.say("data, a check or a model has changed since: all trials start again from the store")
    if run.resume == "never" or is_other:
        (run.directory / TUNE).remove()
    record.write_bytes(made_from)
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
    except Exception as error:  # any error that Ray raises for a state file whose writer was killed
        run.terminal.say(
            f"the sweep's state cannot be read ({type(error).__name__}); its trials start "
            "again from the store"
        )
        (run.directory / TUNE).remove()
        return None
    run.terminal.say("continuing the sweep that was started here")
    return tuner


def _trial(setting: Setting, seed: int, result: Any, rounds: int) -> Trial:
    """One row: the last report of a trial, or why it failed."""
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
