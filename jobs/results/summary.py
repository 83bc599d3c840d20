"""Results of a run, computed once; the terminal's verdict and the report are two views of them."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from cluster.storage import Place
from jobs.experiment.parsing import resolved
from jobs.results.cards import Cards, cards_of
from jobs.results.data import told_of_data
from jobs.results.judged import ArmResult, Judged, baseline_of
from jobs.results.ledger import drop_bias, nothing_to_choose, run_ledger
from jobs.results.lineage import Lineage, lineage_of
from jobs.results.outcome import Outcome, Section
from jobs.results.quarantine import name_in_commands, quarantine
from jobs.results.ranking import Ranking, rank_run
from jobs.results.strongest import baselines_of, strongest_lines, strongest_table
from jobs.results.tables import (
    chosen_table,
    cost_table,
    fallbacks,
    scas_settings,
    teacher_table,
    timings,
)
from jobs.results.trained import token_lines
from jobs.results.usage import usage_table
from jobs.results.values import as_parquet
from jobs.run.run import Run
from jobs.run.store import write_table
from training.comparison import Comparison, holm
from training.evaluation import Interval


@dataclass(frozen=True)
class Results:
    """Everything the report shows."""

    experiment: dict[str, Any]
    metric: str
    baseline: str
    before: list[ArmResult]
    arms: list[ArmResult]
    comparisons: list[tuple[str, str, Comparison]]
    values: pd.DataFrame
    strongest: pd.DataFrame
    notes: list[str]
    teachers: pd.DataFrame
    ledger: pd.DataFrame
    drop_bias: pd.DataFrame
    quarantine: pd.DataFrame
    chosen: pd.DataFrame
    costs: pd.DataFrame
    scas_lambda: float
    nothing_to_choose: int
    questions: int
    data: list[str]
    refused: pd.DataFrame
    timings: pd.DataFrame
    spent: pd.DataFrame
    fallbacks: pd.DataFrame
    cards: Cards
    rankings: dict[str, Ranking]
    lineage: Lineage
    sections: list[Section]
    ended: list[str]


def summarise(run: Run, outcome: Outcome) -> Results:
    """Compute the results of a run from its finished stages."""
    start = outcome.start
    e = start.experiment
    judged = Judged(outcome)
    baseline = baseline_of(e)
    teachers = strongest_table(start)
    against = baselines_of(e, baseline, teachers)
    best = {other: judged.in_hindsight(other) for other in against}
    return Results(
        experiment=resolved(e),
        metric=e.evaluate.metric,
        baseline=baseline,
        before=[judged.before(s.name) for s in e.students],
        arms=[
            judged.arm(s.name, a.name, number)
            for s in e.students
            for a in e.arms
            for number in range(1, e.rounds + 1)
            if judged.came_to(s.name, a.name, number)
        ]
        + [arm for arm, _ in best[baseline]],
        comparisons=[
            *judged.comparisons(against),
            *((arm.student, arm.arm, found) for own in best.values() for arm, found in own if found),
        ],
        values=judged.rows(),
        strongest=teachers,
        notes=[*strongest_lines(e, teachers), *judged.notes(), *token_lines(outcome)],
        teachers=teacher_table(start),
        ledger=run_ledger(outcome),
        drop_bias=drop_bias(start),
        quarantine=quarantine(outcome, name_in_commands(e, run.directory)),
        chosen=chosen_table(e, outcome),
        costs=cost_table(outcome),
        scas_lambda=scas_settings(outcome).scas_lambda,
        nothing_to_choose=nothing_to_choose(start),
        questions=len(start.questions),
        data=told_of_data(start),
        refused=pd.DataFrame([asdict(r) for r in start.pool.refused], columns=["id", "reason"]),
        timings=timings(run),
        spent=usage_table(run),
        fallbacks=fallbacks(run),
        cards=cards_of(outcome),
        rankings=rank_run(outcome),
        lineage=lineage_of(outcome),
        sections=outcome.sections,
        ended=[f"ended: {why}" for _, why in outcome.ended.values()],
    )


def verdict_lines(results: Results) -> list[str]:
    """The verdict table as plain text lines, worst news included."""
    unit = "accuracy" if results.metric == "accuracy" else "minus loss (nats per answer token)"
    last = max((r.round for r in results.arms), default=0)
    lines = [f"{unit} on held-out questions after {last} round{'s' if last > 1 else ''}, with 95 % intervals"]
    for student in dict.fromkeys(r.student for r in results.arms):
        lines.append(f"  {student}")
        for r in [b for b in results.before if b.student == student] + [
            a for a in results.arms if a.student == student and a.round == last
        ]:
            lines.append(
                f"    {r.arm:<18} {format_interval(r.value, results.metric)}"
                + (f"   {r.seeds} seeds" if r.seeds > 1 else "")
            )
        lines += [f"    -> {c.verdict}" for s, _, c in results.comparisons if s == student]
    lines += [*results.notes, *results.ended]
    if len(results.quarantine):
        first = results.quarantine.iloc[0]
        told = [command for command in results.quarantine["replay"] if command]  # rollouts have none
        look = f"look closer with: {told[0]}" if told else f"the report says why: {first['reason']}"
        lines.append(f"{len(results.quarantine)} answers in quarantine, the first: {first['state']}; {look}")
    return lines


def format_interval(interval: Interval, metric: str) -> str:
    if math.isnan(interval.value):
        return "not known: no question could be judged"
    if metric == "accuracy":
        return f"{100 * interval.value:5.1f} %  ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    return f"{interval.value:.4f}  ({interval.low:.4f} to {interval.high:.4f})"


def write_results(results: Results, directory: Place) -> None:
    """Save the numbers beside the report: `results.json`, `ledger.parquet` and, question by question, what
    they follow from: `questions.parquet`. `p_corrected` is Holm's, over all comparisons of the run.
    """
    corrected = holm([c.p_value for _, _, c in results.comparisons])
    plain = {
        "metric": results.metric,
        "baseline": results.baseline,
        "before": [asdict(r) for r in results.before],
        "arms": [asdict(r) for r in results.arms],
        "comparisons": [
            {"student": s, "arm": a, "against": c.against, **asdict(c), "p_corrected": p}
            for (s, a, c), p in zip(results.comparisons, corrected, strict=True)
        ],
        "strongest": results.strongest.to_dict("records"),
        "ranking": {s: r.order.to_dict("records") for s, r in results.rankings.items()},
        "notes": results.notes,
        "questions": results.questions,
        "nothing_to_choose": results.nothing_to_choose,
        "ended": results.ended,
    }
    (directory / "results.json").write_bytes(json.dumps(finite(plain), indent=1).encode())
    write_table(directory / "ledger.parquet", results.ledger)
    (directory / "questions.parquet").write_bytes(as_parquet(results.values))


def finite(value: Any) -> Any:
    """Plain values for JSON, which knows no infinity: an interval without an end has None there."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
