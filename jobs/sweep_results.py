"""What a sweep says: every setting with its interval, which differences are real, and the best one, judged by
other questions.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.experiment.schema import Experiment
from jobs.results.summary import format_interval
from jobs.sweep import Setting, Trial, choosing, read_evaluation
from training.evaluation import Comparison, Interval, accuracy_interval, compare


@dataclass(frozen=True)
class SettingResult:
    """One setting over its seeds.

    Attributes:
        state: finished where every seed came to the last round; else how many did, and why the others did
            not.
        value: over all held-out questions, of the finished seeds; None without one.
        against_baseline, against_best: None where one side has no common finished seed.
        real: whether the difference from the baseline holds after Holm's correction for the number of
            settings.
    """

    setting: Setting
    state: str
    seeds: tuple[int, ...]
    value: Interval | None
    choosing_value: float
    against_baseline: Comparison | None = None
    real: bool = False
    holm_p: float | None = None


@dataclass(frozen=True)
class SweepResults:
    """Everything the sweep's page shows. `best` was chosen by one part of the questions and is judged by the
    other.
    """

    name: str
    metric: str
    seeds: int
    students: tuple[str, ...]
    questions: int
    choosing_questions: int
    baseline: str
    baseline_seeds: int
    settings: list[SettingResult]
    best: SettingResult | None
    best_value: Interval | None
    best_against_baseline: Comparison | None
    command: str
    trials: pd.DataFrame


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: with all of them below 0.05, the chance of even one false claim is at most
    0.05.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order, adjusted, largest = np.argsort(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def summarise_sweep(
    e: Experiment, settings: Sequence[Setting], trials: Sequence[Trial], command: Sequence[str]
) -> SweepResults:
    """Compute a sweep's results from its trials' evaluations in the store."""
    if e.sweep is None:
        raise ValueError("an experiment without a sweep section has no sweep results")
    baseline_arm = e.evaluate.baseline or next(
        (a.name for a in e.arms if a.rule == "strongest"), settings[0].arm
    )
    values = {(t.setting, t.seed): _values(t) for t in trials if t.state == "finished"}
    order = sorted(next(iter(values.values())).index) if values else []
    arrays = {key: table[order].to_numpy(float) for key, table in values.items()}
    chooses = np.isin(order, choosing(order, e.sweep.choose_share)) if order else np.array([], bool)
    seeds = {s: tuple(seed for seed in range(e.sweep.seeds) if (s, seed) in arrays) for s in settings}
    baseline = next((s for s in settings if s.arm == baseline_arm and not s.values and seeds[s]), None)
    results = []
    for s in settings:
        mine = [arrays[s, seed] for seed in seeds[s]]
        mean = np.mean(mine, axis=0) if mine else np.array([])
        against = (
            _compare(arrays, seeds, s, baseline, e.evaluate.metric)
            if baseline is not None and s != baseline
            else None
        )
        known = mean[np.isfinite(mean)]
        chosen_by = float(np.nanmean(mean[chooses])) if mine else float("nan")
        state = _state([t for t in trials if t.setting == s])
        results.append(
            SettingResult(s, state, seeds[s], accuracy_interval(known) if mine else None, chosen_by, against)
        )
    results = _corrected(results)
    candidates = [r for r in results if r.setting.values and len(r.seeds) == e.sweep.seeds]
    best = max(candidates, key=lambda r: r.choosing_value, default=None)
    best_value = best_against = None
    if best is not None:
        mean = np.mean([arrays[best.setting, seed] for seed in best.seeds], axis=0)[~chooses]
        best_value = accuracy_interval(mean[np.isfinite(mean)])
        if baseline is not None:
            best_against = _compare(arrays, seeds, best.setting, baseline, e.evaluate.metric, ~chooses)
    return SweepResults(
        name=e.name,
        metric=e.evaluate.metric,
        seeds=e.sweep.seeds,
        students=tuple(s.name for s in e.students),
        questions=len(order),
        choosing_questions=int(chooses.sum()),
        baseline=baseline_arm if baseline is not None else "",
        baseline_seeds=0 if baseline is None else len(seeds[baseline]),
        settings=results,
        best=best,
        best_value=best_value,
        best_against_baseline=best_against,
        command=command_of(e, best.setting, command) if best is not None else "",
        trials=trial_table(trials, e),
    )


def _values(trial: Trial) -> "pd.Series[float]":
    """Values per held-out question, the mean over students."""
    return pd.concat([read_evaluation(Place(place)) for place in trial.evaluations.values()], axis=1).mean(
        axis=1
    )


def _compare(
    arrays: Mapping[tuple[Setting, int], np.ndarray],
    seeds: Mapping[Setting, tuple[int, ...]],
    one: Setting,
    other: Setting,
    metric: str,
    kept: np.ndarray | None = None,
) -> Comparison | None:
    """Compare two settings over the seeds that both finished and the questions both have a value for."""
    common = [seed for seed in seeds[one] if seed in seeds[other]]
    if not common:
        return None
    mine, theirs = (np.stack([arrays[s, seed] for seed in common]) for s in (one, other))
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


def sweep_lines(results: SweepResults) -> list[str]:
    """The sweep's outcome as plain text lines."""
    unit = "accuracy" if results.metric == "accuracy" else "minus loss (nats per answer token)"
    over = f", mean over the students {', '.join(results.students)}" if len(results.students) > 1 else ""
    lines = [
        f"{unit} on {results.questions} held-out questions, 95 % intervals, {results.seeds} "
        f"training seeds{over}"
    ]
    for r in results.settings:
        value = format_interval(r.value, results.metric) if r.value is not None else r.state
        note = (
            ""
            if r.against_baseline is None
            else ("   differs from " if r.real else "   cannot be told from ") + results.baseline
        )
        lines.append(f"  {r.setting.label:<44} {value}{note}")
    if results.best is not None and results.best_value is not None:
        judged = results.questions - results.choosing_questions
        lines.append(f"best by {results.choosing_questions} questions: {results.best.setting.label}")
        lines.append(
            f"  on the other {judged}, which did not choose it: "
            f"{format_interval(results.best_value, results.metric)}"
        )
        if results.best_against_baseline is not None:
            lines.append(f"  -> {results.best_against_baseline.verdict}")
        lines.append(f"  {results.command}")
    if results.baseline_seeds == 0:
        lines.append("no trial of the baseline arm was finished: nothing is compared with it")
    if results.baseline_seeds == 1:
        lines.append(
            "with one training seed these are differences of trained models, not of settings: "
            "--seeds 3 tells more"
        )
    return lines


def plain_results(results: SweepResults) -> dict[str, Any]:
    """The results as JSON values."""
    return {
        "metric": results.metric,
        "baseline": results.baseline,
        "seeds": results.seeds,
        "settings": [{**asdict(r), "label": r.setting.label} for r in results.settings],
        "best": None if results.best is None else results.best.setting.label,
        "best_value": None if results.best_value is None else asdict(results.best_value),
        "best_against_baseline": None
        if results.best_against_baseline is None
        else asdict(results.best_against_baseline),
        "command": results.command,
    }
