"""The results of a sweep: every setting with its interval, which differences are real, and the best
setting.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from jobs.results.summary import format_interval
from jobs.sweep.settings import Setting
from training.comparison import Comparison
from training.evaluation import Interval


@dataclass(frozen=True)
class SettingResult:
    """One setting over its seeds.

    Attributes:
        state: `finished` if every seed finished the last round. Otherwise how many did, and why the others
            did not.
        value: over all held-out questions, for the finished seeds. None if there is none.
        against_baseline, against_best: None if the two settings have no finished seed in common.
        real: whether the difference from the baseline is significant after Holm's correction for the number
            of settings.
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
    """Everything that the sweep's page shows. One part of the questions chose `best`, and the other part
    judges it.
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
    notes: list[str] = field(default_factory=list)


def sweep_lines(results: SweepResults) -> list[str]:
    """The results of a sweep as lines of plain text."""
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
        unseen = ", and under seeds that did not either" if results.seeds > 1 else ""
        lines.append(f"best by {results.choosing_questions} questions: {results.best.setting.label}")
        lines.append(
            f"  on the other {judged}, which did not choose it{unseen}: "
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
    return [*lines, *results.notes]


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
        "notes": results.notes,
    }
