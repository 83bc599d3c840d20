"""From trials to results: settings against the baseline, and the best one, judged by other questions."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.experiment.schema import Experiment
from jobs.experiment.sweep import Sweep
from jobs.sweep.evaluations import choosing, read_evaluation
from jobs.sweep.results import SettingResult, SweepResults
from jobs.sweep.settings import Setting
from jobs.sweep.trial import Trial
from training.evaluation import Comparison, Interval, accuracy_interval, compare, holm


@dataclass(frozen=True)
class Finished:
    """The finished trials, by setting and seed.

    Attributes:
        questions: ids of the held-out questions, sorted; every array below has one entry for each.
        values: the mean over students, NaN where a question has none.
        seeds: the seeds of each setting that came to the last round.
        chooses: whether a question is one of those that choose the best setting.
    """

    questions: list[str]
    values: Mapping[tuple[Setting, int], np.ndarray]
    seeds: Mapping[Setting, tuple[int, ...]]
    chooses: np.ndarray

    def mean(self, setting: Setting) -> np.ndarray:
        """A setting's values, the mean over its finished seeds."""
        return np.mean([self.values[setting, seed] for seed in self.seeds[setting]], axis=0)


def summarise_sweep(
    e: Experiment, settings: Sequence[Setting], trials: Sequence[Trial], command: Sequence[str]
) -> SweepResults:
    """Compute a sweep's results from its trials' evaluations in the store."""
    if e.sweep is None:
        raise ValueError("an experiment without a sweep section has no sweep results")
    baseline_arm = e.evaluate.baseline or next(
        (a.name for a in e.arms if a.rule == "strongest"), settings[0].arm
    )
    metric, finished = e.evaluate.metric, _finished(e.sweep, settings, trials)
    seeds = finished.seeds
    baseline = next((s for s in settings if s.arm == baseline_arm and not s.values and seeds[s]), None)
    results = _corrected([_setting_result(s, baseline, finished, trials, metric) for s in settings])
    candidates = [r for r in results if r.setting.values and len(r.seeds) == e.sweep.seeds]
    best = max(candidates, key=lambda r: r.choosing_value, default=None)
    best_value, best_against = (
        (None, None) if best is None else _judged(best.setting, baseline, finished, metric)
    )
    return SweepResults(
        name=e.name,
        metric=metric,
        seeds=e.sweep.seeds,
        students=tuple(s.name for s in e.students),
        questions=len(finished.questions),
        choosing_questions=int(finished.chooses.sum()),
        baseline=baseline_arm if baseline is not None else "",
        baseline_seeds=0 if baseline is None else len(seeds[baseline]),
        settings=results,
        best=best,
        best_value=best_value,
        best_against_baseline=best_against,
        command=command_of(e, best.setting, command) if best is not None else "",
        trials=trial_table(trials, e),
    )


def _finished(sweep: Sweep, settings: Sequence[Setting], trials: Sequence[Trial]) -> Finished:
    tables = {(t.setting, t.seed): _values(t) for t in trials if t.state == "finished"}
    order = sorted(next(iter(tables.values())).index) if tables else []
    values = {key: table[order].to_numpy(float) for key, table in tables.items()}
    chooses = np.isin(order, choosing(order, sweep.choose_share)) if order else np.array([], bool)
    seeds = {s: tuple(seed for seed in range(sweep.seeds) if (s, seed) in values) for s in settings}
    return Finished(order, values, seeds, chooses)


def _setting_result(
    setting: Setting, baseline: Setting | None, finished: Finished, trials: Sequence[Trial], metric: str
) -> SettingResult:
    seeds, state = finished.seeds[setting], _state([t for t in trials if t.setting == setting])
    against = (
        _compare(finished, setting, baseline, metric)
        if baseline is not None and setting != baseline
        else None
    )
    if not seeds:
        return SettingResult(setting, state, seeds, None, float("nan"), against)
    mean = finished.mean(setting)
    chosen_by = float(np.nanmean(mean[finished.chooses]))
    return SettingResult(
        setting, state, seeds, accuracy_interval(mean[np.isfinite(mean)]), chosen_by, against
    )


def _judged(
    best: Setting, baseline: Setting | None, finished: Finished, metric: str
) -> tuple[Interval, Comparison | None]:
    """The best setting's value, and its difference from the baseline, by the questions that did not choose
    it.
    """
    mean = finished.mean(best)[~finished.chooses]
    value = accuracy_interval(mean[np.isfinite(mean)])
    if baseline is None:
        return value, None
    return value, _compare(finished, best, baseline, metric, ~finished.chooses)


def _values(trial: Trial) -> "pd.Series[float]":
    """Values per held-out question, the mean over students."""
    return pd.concat([read_evaluation(Place(place)) for place in trial.evaluations.values()], axis=1).mean(
        axis=1
    )


def _compare(
    finished: Finished, one: Setting, other: Setting, metric: str, kept: np.ndarray | None = None
) -> Comparison | None:
    """Compare two settings over the seeds that both finished and the questions both have a value for."""
    common = [seed for seed in finished.seeds[one] if seed in finished.seeds[other]]
    if not common:
        return None
    mine, theirs = (np.stack([finished.values[s, seed] for seed in common]) for s in (one, other))
    both = np.isfinite(mine).all(axis=0) & np.isfinite(theirs).all(axis=0)
    if kept is not None:
        both &= kept
    return compare(mine[:, both], theirs[:, both], one.label, other.label, metric) if both.any() else None


def _corrected(results: Sequence[SettingResult]) -> list[SettingResult]:
    """Say which differences from the baseline are real: Holm's p below 0.05, and an interval that leaves out
    0.
    """
    compared = [r.against_baseline.p_value for r in results if r.against_baseline is not None]
    adjusted = iter(holm(compared))
    corrected = []
    for r in results:
        c = r.against_baseline
        if c is None:
            corrected.append(r)
            continue
        p = next(adjusted)
        corrected.append(
            replace(r, holm_p=p, real=p < 0.05 and (c.difference.low > 0 or c.difference.high < 0))
        )
    return corrected


def _state(trials: Sequence[Trial]) -> str:
    """One word where all seeds ended alike, else counts; with the first reason of a failure."""
    counts = {s: sum(t.state == s for t in trials) for s in ("finished", "stopped", "failed")}
    named = [f"{n} {s}" for s, n in counts.items() if n]
    text = named[0].partition(" ")[2] if len(named) == 1 else ", ".join(named)
    reason = next((t.error for t in trials if t.error), "")
    return f"{text}: {reason}" if reason else text


def command_of(e: Experiment, setting: Setting, command: Sequence[str]) -> str:
    """The command that runs one setting as an experiment of its own, beside the experiment's other arms: all
    of it is in the store.

    Args:
        command: the sweep's own arguments: its file and overrides.
    """
    index = next(k for k, a in enumerate(e.arms) if a.name == setting.arm)
    parts = [f"name={e.name}-best", f"seeds={e.sweep.seeds if e.sweep else 1}"]
    for key, value in setting.values:
        dotted = f"arms.{index}{key.removeprefix('arm')}" if key == "arm" or key.startswith("arm.") else key
        shown = {"name": setting.arm, **value} if key == "arm" and isinstance(value, dict) else value
        parts.append(f"{dotted}={json.dumps(shown)}")
    return shlex.join(["tutelage", "run", *command, *parts])


def trial_table(trials: Sequence[Trial], e: Experiment) -> pd.DataFrame:
    """A row per setting and seed, also for those that failed or were stopped."""
    rows = []
    for t in trials:
        values = _values(t) if t.evaluations else None
        rows.append(
            {
                "arm": t.setting.arm,
                **{key: (str(v) if isinstance(v, dict) else v) for key, v in t.setting.values},
                "seed": t.seed,
                "state": t.state,
                "rounds": t.rounds,
                "value": float("nan") if values is None else float(values.mean()),
                **{
                    f"value {s}": float(read_evaluation(Place(p)).mean())
                    for s, p in t.evaluations.items()
                    if len(e.students) > 1
                },
                "error": t.error,
            }
        )
    return pd.DataFrame(rows)
