"""Results of a run, computed once; the terminal's verdict and the report are two views of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.reading import resolved
from jobs.experiment.schema import Experiment
from jobs.results.cards import Cards, cards_of
from jobs.results.data import told_of_data
from jobs.results.ledger import drop_bias, nothing_to_choose, run_ledger
from jobs.results.lineage import Lineage, lineage_of
from jobs.results.outcome import Outcome, StudentPath
from jobs.results.quarantine import quarantine, with_commands
from jobs.results.rollouts import rollouts_table, rows_apart
from jobs.results.spent import spent_table
from jobs.results.tables import (
    chosen_table,
    cost_table,
    fallbacks,
    scas_settings,
    teacher_table,
    timings,
)
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.store import Stage, write_table
from training.evaluation import Comparison, Interval, accuracy_interval, compare
from training.hindsight import best_in_hindsight

IN_HINDSIGHT = "in hindsight"  # the best single teacher, as if it were an arm


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
    data: list[str]
    refused: pd.DataFrame
    timings: pd.DataFrame
    spent: pd.DataFrame
    fallbacks: pd.DataFrame
    cards: Cards
    lineage: Lineage
    rollouts: pd.DataFrame
    ended: list[str]
    rows_apart: list[str]


def summarise(run: Run, outcome: Outcome) -> Results:
    """Compute the results of a run from its finished stages."""
    start = outcome.start
    e = start.experiment
    judged = Judged(outcome)
    baseline = baseline_of(e)
    best = judged.in_hindsight(baseline)
    last = {s.name: {a.name for a in e.arms if judged.came_to(s.name, a.name, e.rounds)} for s in e.students}
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
        + [arm for arm, _ in best],
        comparisons=[
            (s.name, a.name, judged.compared(s.name, a.name, baseline))
            for s in e.students
            for a in e.arms
            if a.name != baseline and {a.name, baseline} <= last[s.name]
        ]
        + [(arm.student, arm.arm, comparison) for arm, comparison in best],
        teachers=teacher_table(start),
        ledger=run_ledger(outcome),
        drop_bias=drop_bias(start),
        quarantine=with_commands(e, run.directory, quarantine(outcome)),
        chosen=chosen_table(e, outcome),
        costs=cost_table(outcome),
        scas_lambda=scas_settings(outcome).scas_lambda,
        nothing_to_choose=nothing_to_choose(start),
        questions=len(start.questions),
        data=told_of_data(start),
        refused=pd.DataFrame([asdict(r) for r in start.pool.refused], columns=["id", "reason"]),
        timings=timings(run),
        spent=spent_table(run),
        fallbacks=fallbacks(run),
        cards=cards_of(outcome),
        lineage=lineage_of(outcome),
        rollouts=rollouts_table(outcome),
        rows_apart=rows_apart(outcome),
        ended=[f"ended: {why}" for _, why in outcome.ended.values()],
    )


def baseline_of(experiment: Experiment) -> str:
    """The arm that the others are compared with: the one that is named, else the strongest teacher's, else
    the first.
    """
    e = experiment
    strongest = (a.name for a in e.arms if a.rule == "strongest")
    return e.evaluate.baseline or next(strongest, e.arms[0].name)


class Judged:
    """What a run's evaluations say, question by question, in one order."""

    def __init__(self, outcome: Outcome) -> None:
        """Read every evaluation.

        Raises:
            BadInput: one is of other questions.
        """
        start = outcome.start
        self.outcome, self.experiment = outcome, start.experiment
        order = [q.id for q in start.held_out]
        self._names = [question_key(q.prompt).hex() for q in start.held_out]
        self.families = pd.Series({q.id: q.family for q in start.held_out})[order]
        self._first = {name: _values(name, stage, order) for name, stage in start.before.items()}
        self._after = {
            (path, number): _values(f"{path.label} round {number}", stage, order)
            for (path, number), stage in outcome.evaluations.items()
        }

    def came_to(self, student: str, arm: str, number: int) -> bool:
        """Whether an arm of a student was judged after a round under every seed."""
        return all((path, number) in self._after for path in self._own(student, arm))

    def before(self, student: str) -> ArmResult:
        """A student as it was."""
        cut = self.outcome.start.before[student].manifest()["counts"]["cut_off"] / len(self.families)
        return self._result(student, "before training", 0, [self._first[student]], cut)

    def arm(self, student: str, arm: str, number: int) -> ArmResult:
        """One arm of a student after one round."""
        own = self._own(student, arm)
        counts = [self.outcome.evaluations[p, number].manifest()["counts"]["cut_off"] for p in own]
        cut = float(np.mean([count / len(self.families) for count in counts]))
        return self._result(student, arm, number, [self._after[p, number] for p in own], cut)

    def compared(self, student: str, arm: str, baseline: str) -> Comparison:
        """An arm against the baseline after the last round, on the questions that both were judged on."""
        e = self.experiment
        mine, theirs = (
            np.stack([self._after[p, e.rounds] for p in self._own(student, name)]) for name in (arm, baseline)
        )
        both = np.isfinite(mine).all(axis=0) & np.isfinite(theirs).all(axis=0)
        if not both.any():
            raise BadInput(
                f"no question could be judged under both {arm} and {baseline} of {student}",
                f"{len(both):,} questions",
                "one at least",
                "look at the evaluations' rows; --retry-failed asks a judge again",
            )
        found = compare(mine[:, both], theirs[:, both], arm, baseline, e.evaluate.metric)
        is_equal = not (mine[:, both] != theirs[:, both]).any()
        if is_equal and self._chose_alike(student, arm, baseline):
            verdict = f"{arm} chose the same answers as {baseline} in every round, and came to the same"
            return replace(found, verdict=verdict)
        return found

    def known(self, path: StudentPath, number: int) -> int:
        """On how many questions a path could be judged after a round."""
        return int(np.isfinite(self._after[path, number]).sum())

    def gain(self, student: str, arm: str) -> float:
        """What an arm gave a student after the last round, a mean over seeds and the questions that could be
        judged before and after; NaN where there is none.
        """
        after = np.stack([self._after[p, self.experiment.rounds] for p in self._own(student, arm)])
        both = np.isfinite(after).all(axis=0) & np.isfinite(self._first[student])
        return float((after[:, both] - self._first[student][both]).mean()) if both.any() else float("nan")

    def in_hindsight(self, baseline: str) -> list[tuple[ArmResult, Comparison]]:
        """For every student the best of the arms that learn from one teacher alone, where there are several:
        each half of the questions under the arm that is best on the other half.
        """
        e, found = self.experiment, []
        for student in (s.name for s in e.students):
            there = [arm.name for arm in e.arms if self.came_to(student, arm.name, e.rounds)]
            single = [arm.name for arm in e.arms if arm.rule == "teacher" and arm.name in there]
            if len(single) < 2 or baseline not in there:
                continue
            every = {
                name: np.stack([self._after[p, e.rounds] for p in self._own(student, name)])
                for name in (*single, baseline)
            }
            known = np.logical_and.reduce([np.isfinite(v).all(axis=0) for v in every.values()])
            if known.sum() < 2:
                continue
            choices = {name: every[name][:, known] for name in single}
            names = [name for name, is_known in zip(self._names, known, strict=True) if is_known]
            values, taken = best_in_hindsight(choices, e.seed, names)
            whole = np.full(every[baseline].shape, np.nan)
            whole[:, known] = values
            cut = float(np.mean([self.arm(student, name, e.rounds).cut_off for name in taken]))
            arm = self._result(student, IN_HINDSIGHT, e.rounds, list(whole), cut)
            compared = compare(values, every[baseline][:, known], IN_HINDSIGHT, baseline, e.evaluate.metric)
            told = f"{compared.verdict} (taken: {' and '.join(dict.fromkeys(taken))})"
            found.append((arm, replace(compared, verdict=told)))
        return found

    def _chose_alike(self, student: str, arm: str, baseline: str) -> bool:
        """Whether two arms trained on the same answers, with the same weights, in every round and seed."""
        what = ["answer_id", "weight"]
        for mine, theirs in zip(self._own(student, arm), self._own(student, baseline), strict=True):
            for number in range(1, self.experiment.rounds + 1):
                pair = [self.outcome.chosen.get((path, number)) for path in (mine, theirs)]
                if pair[0] is None or pair[1] is None:
                    return False
                both = zip(pair[0].each("chosen", what), pair[1].each("chosen", what), strict=True)
                if not all(one.equals(other) for one, other in both):
                    return False
        return True

    def _own(self, student: str, arm: str) -> list[StudentPath]:
        return [p for p in self.outcome.paths if p.student == student and p.arm.name == arm]

    def _result(
        self, student: str, arm: str, number: int, stacked: Sequence[np.ndarray], cut: float
    ) -> ArmResult:
        mean = np.mean(stacked, axis=0)
        known = np.isfinite(mean)
        if not known.any():
            raise BadInput(
                f"no question could be judged of {student}, {arm}",
                f"{len(known):,} held-out questions",
                "one at least",
                "look at the evaluation's rows: references too long for score.max_length, or a judge that "
                "failed, which --retry-failed asks again",
            )
        named = sorted({f for f in self.families[known] if f})
        per_family = {f: accuracy_interval(mean[known & (self.families == f).to_numpy()]) for f in named}
        return ArmResult(student, arm, number, len(stacked), accuracy_interval(mean[known]), per_family, cut)


def _values(name: str, stage: Stage, order: list[str]) -> np.ndarray:
    """The value of each held-out question, joined by id; NaN where it could not be evaluated."""
    table = stage.read().set_index("question_id")["value"]
    if set(table.index) != set(order):
        raise BadInput(
            f"the evaluation {name} is of other questions",
            len(table),
            f"{len(order)} questions",
            "run again with --resume never",
        )
    return table[order].to_numpy(float)


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
    lines += results.ended
    if len(results.quarantine):
        first = results.quarantine.iloc[0]
        told = [command for command in results.quarantine["replay"] if command]  # rollouts have none
        look = f"look closer with: {told[0]}" if told else f"the report says why: {first['reason']}"
        lines.append(f"{len(results.quarantine)} answers in quarantine, the first: {first['state']}; {look}")
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
        "ended": results.ended,
    }
    (directory / "results.json").write_bytes(json.dumps(plain, indent=1).encode())
    write_table(directory / "ledger.parquet", results.ledger)
