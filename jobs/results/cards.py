"""What a run says of its teachers and selectors beyond totals: what each teacher is good for and to whom,
what would be lost without it, how alike arms choose, and how choices change from round to round.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from jobs.experiment.arms.select import choosing_arms
from jobs.results.outcome import Outcome, StudentPath
from jobs.stages.score import PoolScores
from selection.costs import COSTS, MEASURE_OF, CostSettings, compute_cost

HARDNESS = ("easy", "middle", "hard")
LENGTHS = ("short", "middle", "long")
AUDITED = tuple(name for name in COSTS if name not in MEASURE_OF and name != "learned")


@dataclass(frozen=True)
class Cards:
    """Tables about teachers and selectors.

    Attributes:
        by_task, by_hardness, by_length: of every teacher the share of its answers that are right, over
            families, over how many other teachers are right, and over thirds of the questions' lengths.
        wins: by student and teacher: of how many questions it has the cheapest right answer, and the
            smallest mean cost; `accuracy` beside it.
        without: by student and teacher: what choosing the cheapest would lose without it.
        agreement: by student and pair of arms: of the questions that both chose for, the share for which they
            took the same answer (first seed and round).
        changes: by path and round from the second on: the share of questions whose answer is another one.
        audit: rank correlation of costs with exact gradient norms within questions, where those were taken.
        cost: by which students' wins are told.
    """

    by_task: pd.DataFrame
    by_hardness: pd.DataFrame
    by_length: pd.DataFrame
    wins: pd.DataFrame
    without: pd.DataFrame
    agreement: pd.DataFrame
    changes: pd.DataFrame
    audit: pd.DataFrame
    cost: CostSettings


def cards_of(outcome: Outcome) -> Cards:
    """All of them, from what the store holds: no model is asked."""
    cost = shown_cost(outcome)
    wins, without = wins_of(outcome, cost)
    task, hardness, length = rights_of(outcome)
    return Cards(
        task,
        hardness,
        length,
        wins,
        without,
        agreement_of(outcome),
        changes_of(outcome),
        audit_of(outcome),
        cost,
    )


def shown_cost(outcome: Outcome) -> CostSettings:
    """The cost of the first arm that chooses by one of answers, from one forward pass; SCAS without one."""
    for arm in choosing_arms(outcome.start.experiment.arms):
        settings = arm.cost_settings
        if settings is not None and settings.name in COSTS and settings.name not in MEASURE_OF:
            return settings
    return CostSettings()


def first_scores(outcome: Outcome) -> dict[str, PoolScores]:
    """By student, statistics of the pool under its first state."""
    first = {s.name: outcome.first_scores(s.name) for s in outcome.start.experiment.students}
    return {name: replace(scores, further=()) for name, scores in first.items() if scores is not None}


def rights_of(outcome: Outcome) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Shares of right answers by teacher, over families, hardness and length of questions."""
    start = outcome.start
    families = {q.id: q.family or "all" for q in start.questions.values()}
    lengths = {q.id: len(q.text) for q in start.questions.values()}
    low, high = np.quantile(list(lengths.values()), [1 / 3, 2 / 3]) if lengths else (0, 0)
    sums: list[Counter[tuple[str, str, str, bool]]] = []
    for answers in start.pool.each():
        first = answers[(answers["sample"] == 0) & (answers["question_id"] != "")]
        right = first["state"].isin(["verified", "duplicate"])
        by_question = right.groupby(first["question_id"])
        others = by_question.transform("size") - 1
        share = (by_question.transform("sum") - right) / others.where(others > 0)  # of the other teachers
        hardness = np.select([share > 2 / 3, share > 1 / 3], HARDNESS[:2], HARDNESS[2])
        size = first["question_id"].map(lengths)
        length = np.select([size <= low, size <= high], LENGTHS[:2], LENGTHS[2])
        task = first["question_id"].map(families).fillna("all")
        hardness = np.where(others > 0, hardness, "")  # one teacher alone says nothing of a question
        counts: Counter[tuple[str, str, str, bool]] = Counter()
        for kind, of in (("task", task), ("hardness", hardness), ("length", length)):
            counts.update(
                (kind, str(t), str(o), bool(r)) for t, o, r in zip(first["teacher"], of, right, strict=True)
            )
        sums.append(counts)
    total: Counter[tuple[str, str, str, bool]] = sum(sums, Counter())
    names = start.asked
    tasks = sorted(set(families.values()))
    return (
        _shares(total, "task", names, tasks),
        _shares(total, "hardness", names, HARDNESS),
        _shares(total, "length", names, LENGTHS),
    )


def _shares(
    counts: Mapping[tuple[str, str, str, bool], int], kind: str, names: list[str], columns: object
) -> pd.DataFrame:
    rows = []
    for name in names:
        row: dict[str, object] = {"teacher": name}
        for column in columns:  # type: ignore[attr-defined]
            right, wrong = (counts.get((kind, name, column, x), 0) for x in (True, False))
            row[column] = right / (right + wrong) if right + wrong else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def wins_of(outcome: Outcome, cost: CostSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Who has the cheapest right answer, and what would be lost without each teacher: questions that nobody
    else answers, and how much dearer the cheapest answers would be.
    """
    names = outcome.start.asked
    wins, without = [], []
    for student, scores in first_scores(outcome).items() if names else ():
        each = [cheapest_by_teacher(scores.slice(k), cost, names) for k in range(scores.pool.count)]
        table = np.concatenate([t for t, _ in each]) if each else np.zeros((0, len(names)))
        sums = np.sum([s for _, s in each], axis=0)
        if not len(table):
            continue
        order = np.argsort(table, axis=1, kind="stable")
        best = table[np.arange(len(table)), order[:, 0]]
        second = table[np.arange(len(table)), order[:, 1]] if len(names) > 1 else np.full(len(table), np.inf)
        for k, name in enumerate(names):
            own = order[:, 0] == k
            rivals = second[own]
            kept = np.isfinite(rivals)
            mean = sums[k, 0] / sums[k, 1] if sums[k, 1] else np.nan
            head = {"student": student, "teacher": name}
            wins.append(
                {
                    **head,
                    "accuracy": outcome.start.pool.accuracy[name],
                    "right answers": int(sums[k, 1]),
                    "mean cost": mean,
                    "cheapest of": float(own.mean()),
                }
            )
            without.append(
                {
                    **head,
                    "questions where it is cheapest": int(own.sum()),
                    "nobody else is right": int((~kept).sum()),
                    "dearer on average by": float((rivals[kept] - best[own][kept]).mean())
                    if kept.any()
                    else np.nan,
                }
            )
    return pd.DataFrame(wins), pd.DataFrame(without)


def cheapest_by_teacher(
    scored: pd.DataFrame, cost: CostSettings, names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest answer of every teacher to every question [Q, teachers], infinite where it has none; and
    by teacher the sum of its costs and how many they are.
    """
    usable = scored[scored["state"] == "scored"].reset_index(drop=True)
    if not len(usable):
        return np.zeros((0, len(names))), np.zeros((len(names), 2))
    usable = usable.assign(cost=compute_cost(usable, cost))
    wide = usable.pivot_table(index="question_id", columns="teacher", values="cost", aggfunc="min")
    by = usable.groupby("teacher")["cost"].agg(["sum", "count"]).reindex(names).fillna(0)
    return wide.reindex(columns=names).fillna(np.inf).to_numpy(), by.to_numpy(float)


def agreement_of(outcome: Outcome) -> pd.DataFrame:
    """How often two arms take the same answer."""
    firsts: dict[str, list[tuple[StudentPath, dict[str, frozenset[str]]]]] = {}
    for path, number, _, chosen in outcome.choices():
        if number == 1 and path.seed == 0:
            taken: dict[str, set[str]] = {}
            for own in chosen.each("chosen", ["question_id", "answer_id"]):
                for q, a in own.itertuples(index=False, name=None):
                    taken.setdefault(str(q), set()).add(str(a))
            firsts.setdefault(path.student, []).append((path, {q: frozenset(a) for q, a in taken.items()}))
    rows = []
    for student, choices in firsts.items():
        for k, (one, mine) in enumerate(choices):
            for other, theirs in choices[k + 1 :]:
                both = mine.keys() & theirs.keys()
                same = sum(mine[q] == theirs[q] for q in both)
                share = same / len(both) if both else np.nan
                names = {"student": student, "arm": one.arm.name, "other arm": other.arm.name}
                rows.append({**names, "questions": len(both), "same answer": share})
    return pd.DataFrame(rows)


def changes_of(outcome: Outcome) -> pd.DataFrame:
    """From round to round, how many choices change, and what they cost the student of the moment."""
    rows = []
    for path, number, _, chosen in outcome.choices():
        before = outcome.chosen(path, number - 1)
        if before is None:
            continue
        total = changed = 0
        columns = ["question_id", "answer_id"]
        for pair in zip(chosen.each("chosen", columns), before.each("chosen", columns), strict=True):
            mine, theirs = (own.groupby("question_id")["answer_id"].agg(frozenset) for own in pair)
            both = mine.index.intersection(theirs.index)
            total += len(both)
            changed += int((mine[both] != theirs[both]).sum())
        named = {"student": path.student, "arm": path.arm.name, "seed": path.seed, "round": number}
        rows.append({**named, "questions": total, "another answer": changed / total if total else np.nan})
    return pd.DataFrame(rows)


def audit_of(outcome: Outcome) -> pd.DataFrame:
    """How costs of one forward pass order the answers of a question, beside their exact gradient norms, where
    an arm had those taken: mean rank correlation over questions with three right answers or more.
    """
    rows = []
    seen: set[str] = set()
    for path, number, scores, _ in outcome.choices():
        if number != 1 or path.choosing.cost != "gradient_norm" or path.student in seen:
            continue
        seen.add(path.student)
        found: dict[str, list[float]] = {name: [] for name in AUDITED}
        for table in scores.each():
            usable = table[table["state"] == "scored"].reset_index(drop=True)
            if not len(usable):
                continue
            costs = {n: compute_cost(usable, CostSettings(n)) for n in AUDITED}  # type: ignore[arg-type]
            ranks = pd.DataFrame({**costs, "norm": usable["gradient_norm"]}).groupby(usable["question_id"])
            for _, own in ranks:
                if len(own) > 2 and own["norm"].nunique() > 1:
                    with np.errstate(invalid="ignore"):
                        against = own.rank().corr()["norm"]
                    for name in AUDITED:
                        found[name].append(float(against[name]))
        for name, values in found.items():
            known = [v for v in values if np.isfinite(v)]
            if known:
                mean = {"mean rank correlation": float(np.mean(known)), "questions": len(known)}
                rows.append({"student": path.student, "cost": name, **mean})
    return pd.DataFrame(rows)
