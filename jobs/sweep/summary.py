"""From trials to results: settings compared with the baseline, and the best setting, judged by other
questions.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.experiment.arms.select import strongest_arm
from jobs.experiment.schema import Experiment
from jobs.experiment.sweep import Sweep
from jobs.results.values import independent, loud_line
from jobs.sweep.evaluations import NOT_GIVEN, choosing, mean_value, read_evaluation
from jobs.sweep.results import SettingResult, SweepResults
from jobs.sweep.settings import Setting, swept_name
from jobs.sweep.trial import Trial
from training.comparison import Comparison, compare, holm
from training.evaluation import Interval, SeedVariance, arm_interval, louder, pool_seeds
from training.hindsight import best_on_other_seeds


@dataclass(frozen=True)
class Finished:
    """The finished trials, by setting and seed.

    Attributes:
        questions: ids of the held-out questions, sorted. Every array below has one entry for each.
        values: [students, Q] of a trial. NaN if a question could not be judged.
        tokens: [students, Q], the number of tokens of which a loss is the mean. None for accuracies.
        seeds: for each setting, the seeds that finished the last round.
        chooses: whether a question is one of those that choose the best setting.
        clusters: of questions that are not independent. None if all are.
    """

    questions: list[str]
    values: Mapping[tuple[Setting, int], np.ndarray]
    tokens: np.ndarray | None
    seeds: Mapping[Setting, tuple[int, ...]]
    chooses: np.ndarray
    clusters: np.ndarray | None = None

    def known(self, *settings: Setting) -> np.ndarray:
        """[Q], whether a question could be judged for every student under every seed of these settings."""
        every = [self.values[s, seed] for s in settings for seed in self.seeds[s]]
        return np.isfinite(np.concatenate(every)).all(axis=0)

    def table(self, setting: Setting, kept_Q: np.ndarray) -> np.ndarray:
        """[S, Q], a setting's values on some questions or clusters of them, as means over students."""
        clusters = None if self.clusters is None else self.clusters[kept_Q]
        means = []
        for seed in self.seeds[setting]:
            of_students = []
            for k, own in enumerate(self.values[setting, seed][:, kept_Q]):
                tokens = None if self.tokens is None else self.tokens[k, kept_Q]
                of_students.append(independent(own[None], tokens, clusters)[0])
            means.append(np.mean(of_students, axis=0))
        return np.stack(means)

    def picked(self, kept_Q: np.ndarray, chooses_Q: np.ndarray) -> np.ndarray:
        """Whether each column of `table(setting, kept_Q)` is among some questions; clusters are whole."""
        if self.clusters is None:
            return chooses_Q[kept_Q]
        return np.isin(np.unique(self.clusters[kept_Q].astype(str)), self.clusters[chooses_Q].astype(str))

    @property
    def unit(self) -> str:
        return "questions" if self.clusters is None else "clusters of questions"

    @cached_property
    def pool(self) -> SeedVariance:
        """By how much seeds differ, over all settings."""
        return pool_seeds(self.table(s, self.known(s)) for s, seeds in self.seeds.items() if seeds)


def summarise_sweep(
    e: Experiment,
    settings: Sequence[Setting],
    trials: Sequence[Trial],
    command: Sequence[str],
    clusters: Mapping[str, str] = NOT_GIVEN,
) -> SweepResults:
    """Compute a sweep's results from its trials' evaluations in the store.

    Args:
        command: the file and overrides for the command that runs the best setting.
        clusters: of the held-out questions, by id; empty if all are independent.
    """
    if e.sweep is None:
        raise ValueError("an experiment without a sweep section has no sweep results")
    baseline_arm = e.evaluate.baseline or strongest_arm(e.arms) or settings[0].arm
    metric, finished = e.evaluate.metric, _finished(e, e.sweep, settings, trials, clusters)
    seeds = finished.seeds
    baseline = next((s for s in settings if s.arm == baseline_arm and not s.values and seeds[s]), None)
    results = _corrected([_setting_result(s, baseline, finished, trials, metric) for s in settings])
    candidates = [r for r in results if r.setting.values and len(r.seeds) == e.sweep.seeds]
    best = max(candidates, key=lambda r: r.choosing_value, default=None)
    judged = _judged([r.setting for r in candidates], baseline, finished, e)
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
        best_value=judged[0],
        best_against_baseline=judged[1],
        command=command_of(e, best.setting, command) if best is not None else "",
        trials=trial_table(trials, e),
        notes=[*_unjudged(results), *_loud(finished), *judged[2]],
    )


def _finished(
    e: Experiment,
    sweep: Sweep,
    settings: Sequence[Setting],
    trials: Sequence[Trial],
    clusters: Mapping[str, str],
) -> Finished:
    found = {(t.setting, t.seed): _evaluations(t) for t in trials if t.state == "finished"}
    order = sorted(next(iter(found.values()))[0].index) if found else []
    values = {key: np.stack([table.loc[order, "value"] for table in tables]) for key, tables in found.items()}
    first = next(iter(found.values()), [])
    is_loss = e.evaluate.metric == "loss" and first
    tokens = np.stack([table.loc[order, "tokens"] for table in first]) if is_loss else None
    chosen = choosing(order, sweep.choose_share, clusters) if order else []
    chooses = np.isin(order, chosen) if order else np.array([], bool)
    own = np.array([clusters[q] for q in order], dtype=object) if clusters else None
    seeds = {s: tuple(seed for seed in range(sweep.seeds) if (s, seed) in values) for s in settings}
    return Finished(order, values, tokens, seeds, chooses, own)


def _evaluations(trial: Trial) -> list[pd.DataFrame]:
    """The evaluations of all students, in the order of their names."""
    return [read_evaluation(Place(trial.evaluations[name])) for name in sorted(trial.evaluations)]


def _setting_result(
    setting: Setting, baseline: Setting | None, finished: Finished, trials: Sequence[Trial], metric: str
) -> SettingResult:
    seeds, state = finished.seeds[setting], _state([t for t in trials if t.setting == setting])
    against = None
    if baseline is not None and setting != baseline and seeds:
        both = finished.known(setting, baseline)
        one, other = (finished.table(s, both) for s in (setting, baseline))
        names = setting.label, baseline.label
        unit = finished.unit
        against = compare(one, other, *names, metric, finished.pool, of_trainings=True, unit=unit)
    known = finished.known(setting) if seeds else np.zeros(len(finished.questions), bool)
    if not known.any():
        return SettingResult(setting, state, seeds, None, float("nan"), against)
    value = arm_interval(finished.table(setting, known), finished.pool, metric)
    by = known & finished.chooses
    chosen_by = float(finished.table(setting, by).mean()) if by.any() else float("nan")
    return SettingResult(setting, state, seeds, value, chosen_by, against)


def _judged(
    settings: Sequence[Setting], baseline: Setting | None, finished: Finished, e: Experiment
) -> tuple[Interval | None, Comparison | None, list[str]]:
    """The value of taking the best of some settings, and its difference from the baseline. Questions and
    trainings that did not choose the best one judge it. Also which other settings were taken on the other
    halves.
    """
    known = finished.known(*settings, *([] if baseline is None else [baseline])) if settings else np.array([])
    judges = known & ~finished.chooses if settings else known
    if not judges.any() or not (known & finished.chooses).any():
        lacking = "judges" if not judges.any() else "chooses"
        return (
            None,
            None,
            [f"no question {lacking} the best setting: nothing is told of it"] if settings else [],
        )
    by_label = {s.label: finished.table(s, known) for s in settings}
    parts = finished.picked(known, finished.chooses), finished.picked(known, judges)
    found, taken = best_on_other_seeds(by_label, *parts, e.seed)
    value = arm_interval(found, finished.pool, e.evaluate.metric)
    notes = []
    if len(taken) > 1:
        notes = [
            f"the best setting is another under each half of the seeds: {' and '.join(taken)}; what is told "
            "of the best is what taking it gave on other seeds"
        ]
    if baseline is None:
        return value, None, notes
    against = finished.table(baseline, judges)
    name = taken[0] if len(taken) == 1 else "the best setting"
    metric, pool, unit = e.evaluate.metric, finished.pool, finished.unit
    return value, compare(found, against, name, baseline.label, metric, pool, unit=unit), notes


def _unjudged(results: Sequence[SettingResult]) -> list[str]:
    """A sentence about comparisons for which there is no question."""
    every = [r.against_baseline for r in results if r.against_baseline is not None]
    return [comparison.verdict for comparison in every if not comparison.questions]


def _loud(finished: Finished) -> list[str]:
    """A sentence about settings whose seeds differ much more than those of the other settings."""
    settings = [s for s, seeds in finished.seeds.items() if seeds]
    lines = []
    for s in settings:
        table = finished.table(s, finished.known(s))
        times = louder(table, finished.pool, len(settings)) if table.shape[1] > 1 else None
        if times is not None:
            lines.append(loud_line(s.label, times))
    return lines


def _corrected(results: Sequence[SettingResult]) -> list[SettingResult]:
    """Set which differences from the baseline are real: Holm's p is below 0.05 and the interval leaves
    out 0.
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
    """One word if all seeds ended in the same way. Otherwise the counts, with the reason of the first
    failure.
    """
    counts = {s: sum(t.state == s for t in trials) for s in ("finished", "stopped", "failed")}
    named = [f"{n} {s}" for s, n in counts.items() if n]
    text = named[0].partition(" ")[2] if len(named) == 1 else ", ".join(named)
    reason = next((t.error for t in trials if t.error), "")
    return f"{text}: {reason}" if reason else text


def command_of(e: Experiment, setting: Setting, command: Sequence[str]) -> str:
    """The command that runs one setting as an experiment of its own, beside the experiment's other arms.
    Everything that it needs is in the store already.

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
    """One row for each setting and seed, also for those that failed or were stopped."""
    rows = []
    for t in trials:
        metric = e.evaluate.metric
        own = {name: mean_value(Place(p), metric) for name, p in sorted(t.evaluations.items())}
        rows.append(
            {
                "arm": t.setting.arm,
                **{swept_name(key): (str(v) if isinstance(v, dict) else v) for key, v in t.setting.values},
                "seed": t.seed,
                "state": t.state,
                "rounds": t.rounds,
                "value": float(np.mean(list(own.values()))) if own else float("nan"),
                **{f"value {name}": value for name, value in own.items() if len(e.students) > 1},
                "error": t.error,
            }
        )
    return pd.DataFrame(rows)
