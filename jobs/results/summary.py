"""What a finished run says: accuracies with intervals, comparisons and verdicts, who was chosen, where
everything ended.

Plain tables and numbers, computed once; the terminal's verdict and the report are two views of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.reading import resolved
from jobs.results.outcome import Outcome
from jobs.results.quarantine import quarantine, with_commands
from jobs.run.context import Context
from jobs.run.store import write_table
from selection.costs import CostSettings, compute_cost
from training.evaluation import Comparison, Interval, accuracy_interval, compare


@dataclass(frozen=True)
class ArmResult:
    """One arm of one student after one round: its mean value over questions, all and per family."""

    student: str
    arm: str
    round: int
    seeds: int
    value: Interval
    families: dict[str, Interval]
    cut_off: float


@dataclass(frozen=True)
class Results:
    """Everything the report shows."""

    experiment: dict[str, Any]
    metric: str
    baseline: str
    before: list[ArmResult]
    arms: list[ArmResult]
    comparisons: list[tuple[str, str, Comparison]]
    teachers: pd.DataFrame
    ledger: pd.DataFrame
    drop_bias: pd.DataFrame
    quarantine: pd.DataFrame
    chosen: pd.DataFrame
    costs: pd.DataFrame
    scas_lambda: float
    nothing_to_choose: int
    questions: int
    timings: pd.DataFrame
    fallbacks: pd.DataFrame


def summarise(context: Context, outcome: Outcome) -> Results:
    """Compute the results of a run from its finished stages."""
    e = context.experiment
    baseline = e.evaluate.baseline or next((a.name for a in e.arms if a.rule == "strongest"), e.arms[0].name)
    order = [q.id for q in outcome.held_out]
    values = _values(outcome, order)
    families = pd.Series({q.id: q.family for q in outcome.held_out})[order]
    before = [
        _arm_result(s.name, "before training", 0, [values[s.name, 0]], families, 0.0) for s in e.students
    ]
    arms, comparisons = [], []
    for student in e.students:
        for arm in e.arms:
            own = [p for p in outcome.paths if p.student == student.name and p.arm.name == arm.name]
            for number in range(1, e.rounds + 1):
                stacked = [values[p.label, number] for p in own]
                cut = float(
                    np.mean(
                        [
                            outcome.evaluations[p.label, number].manifest()["counts"]["cut_off"] / len(order)
                            for p in own
                        ]
                    )
                )
                arms.append(_arm_result(student.name, arm.name, number, stacked, families, cut))
        for arm in e.arms:
            if arm.name != baseline:
                mine, theirs = (
                    _by_seed(outcome, values, student.name, name, e.rounds) for name in (arm.name, baseline)
                )
                both = np.isfinite(mine).all(axis=0) & np.isfinite(theirs).all(axis=0)
                comparisons.append(
                    (
                        student.name,
                        arm.name,
                        compare(mine[:, both], theirs[:, both], arm.name, baseline, e.evaluate.metric),
                    )
                )
    return Results(
        experiment=resolved(e),
        metric=e.evaluate.metric,
        baseline=baseline,
        before=before,
        arms=arms,
        comparisons=comparisons,
        teachers=_teacher_table(context, outcome),
        ledger=run_ledger(outcome),
        drop_bias=drop_bias(outcome),
        quarantine=with_commands(context, quarantine(outcome)),
        chosen=_chosen_table(context, outcome),
        costs=_cost_table(outcome),
        scas_lambda=scas_settings(outcome).scas_lambda,
        nothing_to_choose=_nothing_to_choose(outcome),
        questions=len(outcome.questions),
        timings=_timings(context),
        fallbacks=_fallbacks(context),
    )


def _values(outcome: Outcome, order: list[str]) -> dict[tuple[str, int], np.ndarray]:
    """Per evaluation the value of each held-out question, joined by id, in one order; NaN where it could not
    be evaluated.
    """
    values = {}
    for key, stage in outcome.evaluations.items():
        table = stage.read().set_index("question_id")["value"]
        if set(table.index) != set(order):
            raise BadInput(
                f"the evaluation {key} is of other questions",
                len(table),
                f"{len(order)} questions",
                "run again with --resume never",
            )
        values[key] = table[order].to_numpy(float)
    return values


def _by_seed(
    outcome: Outcome, values: Mapping[tuple[str, int], np.ndarray], student: str, arm: str, number: int
) -> np.ndarray:
    """Values [S, Q] of one student and arm, a row per training seed."""
    return np.stack(
        [values[p.label, number] for p in outcome.paths if p.student == student and p.arm.name == arm]
    )


def _arm_result(
    student: str, arm: str, number: int, stacked: Sequence[np.ndarray], families: pd.Series, cut: float
) -> ArmResult:
    mean = np.mean(stacked, axis=0)
    known = np.isfinite(mean)
    named = sorted({f for f in families if f})
    per_family = {f: accuracy_interval(mean[known & (families == f).to_numpy()]) for f in named}
    return ArmResult(student, arm, number, len(stacked), accuracy_interval(mean[known]), per_family, cut)


def _teacher_table(context: Context, outcome: Outcome) -> pd.DataFrame:
    """Per teacher: answers, share right, mean answer length, spend,
    and how its answers ended before scoring.
    """
    answers = outcome.pool.answers
    rows = []
    for teacher in context.experiment.teachers:
        own = answers[answers["teacher"] == teacher.name]
        states = own["state"].value_counts()
        rows.append(
            {
                "teacher": teacher.name,
                "family": teacher.family or "",
                "answers": len(own),
                "asked again": int((own["sample"] >= context.experiment.generate.samples).sum()),
                "answer tokens": int(own["answer_tokens"].sum()),
                "right": outcome.pool.accuracy[teacher.name],
                "mean characters": float(own["text"].str.len().mean()) if len(own) else 0.0,
                "cut off": int((own["finish"] == "length").sum()),
                "usd": float(own["usd"].sum()),
                **{
                    s: int(states.get(s, 0))
                    for s in ("verified", "wrong", "unparsed", "timed_out", "failed", "empty", "duplicate")
                },
            }
        )
    return pd.DataFrame(rows)


def run_ledger(outcome: Outcome) -> pd.DataFrame:
    """Counts of final states, per path and round, for questions and answers; each path's counts add up to the
    totals.
    """
    rows = []
    for (label, number), stage in outcome.chosen.items():
        counts = stage.read("ledger").groupby(["kind", "state"]).size().reset_index(name="count")
        rows.append(counts.assign(path=label, round=number))
    ledger = pd.concat(rows, ignore_index=True)
    totals = ledger.groupby(["path", "round", "kind"])["count"].sum().unstack()
    wrong = totals[
        (totals["question"] != len(outcome.questions))
        | (totals.get("answer", 0) != len(outcome.pool.answers))
    ]
    if len(wrong):
        raise RuntimeError(f"the ledger of {wrong.index[0]} does not add up: {dict(wrong.iloc[0])}")
    return ledger


def drop_bias(outcome: Outcome) -> pd.DataFrame:
    """Whether answers that fell out before selection differ from those that stayed: by teacher, by task, and
    in length.
    """
    answers = outcome.pool.answers
    families = answers["question_id"].map({q.id: q.family for q in outcome.questions.values()}).fillna("")
    table = answers.assign(
        stayed=answers["state"] == "verified", characters=answers["text"].str.len(), task=families
    )
    rows = []
    for by in ("teacher", "task"):
        for name, own in table.groupby(by):
            if not name:
                continue
            kept, dropped = own[own["stayed"]], own[~own["stayed"]]
            rows.append(
                {
                    by if by == "task" else "teacher": name,
                    "stayed": len(kept),
                    "fell out": len(dropped),
                    "fell out, share": len(dropped) / len(own),
                    "mean characters, stayed": kept["characters"].mean(),
                    "mean characters, fell out": dropped["characters"].mean(),
                }
            )
    frame = pd.DataFrame(rows)
    first = [c for c in ("teacher", "task") if c in frame.columns]
    return frame[[*first, *[c for c in frame.columns if c not in first]]].fillna(dict.fromkeys(first, ""))


def _chosen_table(context: Context, outcome: Outcome) -> pd.DataFrame:
    """Per student, arm, seed, round: share of each teacher among the chosen, and chosen length against the
    pool's, in tokens.
    """
    families = {t.name: t.family for t in context.experiment.teachers}
    rows = []
    for path in outcome.paths:
        for (label, number), stage in outcome.chosen.items():
            if label != path.label:
                continue
            scored = outcome.scores[label, number].read()
            lengths = scored.set_index("answer_id")["n_answer"]
            pool_mean = float(lengths[scored.set_index("answer_id")["state"] == "scored"].mean())
            chosen = stage.read("chosen")
            for teacher, own in chosen.groupby("teacher"):
                rows.append(
                    {
                        "student": path.student,
                        "arm": path.arm.name,
                        "seed": path.seed,
                        "round": number,
                        "teacher": teacher,
                        "family": families.get(str(teacher)) or "",
                        "share": len(own) / len(chosen),
                        "chosen": len(chosen),
                        "tokens": float(lengths[chosen["answer_id"]].mean()),
                        "pool tokens": pool_mean,
                    }
                )
    return pd.DataFrame(rows)


def _cost_table(outcome: Outcome) -> pd.DataFrame:
    """SCAS cost of every scored answer under every student's first state."""
    settings = scas_settings(outcome)
    tables: list[pd.DataFrame] = []
    for path in outcome.paths:
        stage = outcome.scores[path.label, 1]
        if any(t["student"].iloc[0] == path.student for t in tables):
            continue
        scored = stage.read()
        scored = scored[scored["state"] == "scored"].reset_index(drop=True)
        if len(scored) == 0:
            continue
        table = scored[["answer_id", "teacher"]].assign(student=path.student)
        table["scas"] = compute_cost(scored, settings)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def scas_settings(outcome: Outcome) -> CostSettings:
    """The settings of the first arm that chooses by SCAS; the paper's where there is none."""
    found = (p.arm.cost_settings for p in outcome.paths if p.arm.cost == "scas")
    return next((s for s in found if s is not None), CostSettings())


def _nothing_to_choose(outcome: Outcome) -> int:
    """Questions whose verified answers are one text: every selector takes the same."""
    verified = outcome.pool.answers[outcome.pool.answers["state"] == "verified"]
    return int((verified.groupby("question_id")["text"].nunique() == 1).sum())


def _timings(context: Context) -> pd.DataFrame:
    """Seconds and counts of each stage when it was made, from the manifests."""
    rows = []
    for label, stage in context.stages.items():
        manifest = stage.manifest()
        rows.append(
            {"stage": label, "id": stage.id, "seconds": manifest["seconds"], "counts": manifest["counts"]}
        )
    return pd.DataFrame(rows)


def _fallbacks(context: Context) -> pd.DataFrame:
    """Shortcuts that a model did not allow, from the manifests: one row for each reason, with the stages it
    was seen in.
    """
    rows = [
        {"shortcut": shortcut, "what was done instead, and why": line, "stage": stage.name}
        for stage in context.every.values()
        for shortcut, line in stage.manifest().get("fallbacks", {}).items()
    ]
    table = pd.DataFrame(rows, columns=["shortcut", "what was done instead, and why", "stage"])
    counts = table.groupby(["shortcut", "what was done instead, and why"])["stage"]
    return counts.agg(
        lambda names: ", ".join(f"{n} {name}" for name, n in names.value_counts().items())
    ).reset_index(name="stages")


def verdict_lines(results: Results) -> list[str]:
    """The verdict table as plain text lines, worst news included."""
    unit = "accuracy" if results.metric == "accuracy" else "minus loss (nats per answer token)"
    last = max(r.round for r in results.arms)
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
    if len(results.quarantine):
        first = results.quarantine.iloc[0]
        lines.append(
            f"{len(results.quarantine)} answers in quarantine, the first: {first['state']}; look "
            f"closer with: {first['replay']}"
        )
    return lines


def format_interval(interval: Interval, metric: str) -> str:
    if metric == "accuracy":
        return f"{100 * interval.value:5.1f} %  ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    return f"{interval.value:.4f}  ({interval.low:.4f} to {interval.high:.4f})"


def write_results(results: Results, directory: Place) -> None:
    """Save the numbers beside the report: `results.json` and `ledger.parquet`."""
    plain = {
        "metric": results.metric,
        "baseline": results.baseline,
        "before": [asdict(r) for r in results.before],
        "arms": [asdict(r) for r in results.arms],
        "comparisons": [{"student": s, "arm": a, **asdict(c)} for s, a, c in results.comparisons],
        "questions": results.questions,
        "nothing_to_choose": results.nothing_to_choose,
    }
    (directory / "results.json").write_bytes(json.dumps(plain, indent=1).encode())
    write_table(directory / "ledger.parquet", results.ledger)
