"""The tables of a study: every seed, every comparison, families, and what every teacher gave every student
beside what its answers cost.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pandas as pd

from jobs.results.outcome import Outcome, StudentPath
from jobs.results.summary import IN_HINDSIGHT, Judged, baseline_of
from jobs.stages.score import PoolScores
from jobs.stages.train import EXAMPLES
from jobs.study.parts import Cell, told
from selection.costs import COSTS, MEASURE_OF, CostSettings, compute_cost, features_of
from training.evaluation import Comparison, holm

CALLED_SO = {"naturalness": "mean loss"}  # what else people call a cost
# Costs of one forward pass, by the names of their columns: every one but what is learned here.
FORWARD: Mapping[str, CostSettings] = {
    "scas": CostSettings("scas", 0.5),
    "scas lambda 0": CostSettings("scas", 0.0),
    "scas lambda 1": CostSettings("scas", 1.0),
    **{
        CALLED_SO.get(name, name): CostSettings(name)  # type: ignore[arg-type]
        for name in COSTS
        if name not in MEASURE_OF and name not in ("scas", "learned")
    },
}
CALLED = ("better", "worse", "cannot tell")
BEFORE = "before training"


def _no_table() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass
class Tables:
    """What came of a part, each a CSV file.

    Attributes:
        values: a row for every student, arm, seed and round, before training too (round 0): accuracy (or
            minus loss), how many examples it learned from, their answer tokens, optimizer steps.
        families: means over seeds after the last round, for every family of questions.
        comparisons: differences from a baseline with 95 % intervals; `p_corrected` by Holm over the part.
        pairs: for every student and teacher that it learned from alone: the gain, and the mean costs and
            features of that teacher's verified answers under the student before training.
        correlations: Spearman's, of what teachers gave a student and minus a cost, over teachers.
        judged: the same for the students and families that a learned cost was not fitted on.
        coefficients: of the learned cost.
    """

    values: pd.DataFrame = field(default_factory=_no_table)
    families: pd.DataFrame = field(default_factory=_no_table)
    comparisons: pd.DataFrame = field(default_factory=_no_table)
    pairs: pd.DataFrame = field(default_factory=_no_table)
    correlations: pd.DataFrame = field(default_factory=_no_table)
    judged: pd.DataFrame = field(default_factory=_no_table)
    coefficients: pd.DataFrame = field(default_factory=_no_table)
    metric: str = "accuracy"

    def named(self) -> dict[str, pd.DataFrame]:
        """By name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "metric"}

    @property
    def unit(self) -> tuple[float, str]:
        """What differences are shown in: by how much they are multiplied, and what that is called."""
        return (100.0, "points of accuracy") if self.metric == "accuracy" else (1.0, "nats per answer token")


def joined_tables(every: Iterable[Tables]) -> Tables:
    """Several cells' tables as one."""
    some = list(every)
    joined = {}
    for name in Tables().named():
        frames = [t.named()[name] for t in some]
        kept = [frame for frame in frames if len(frame)]
        joined[name] = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()
    return Tables(**joined, metric=some[0].metric)


def tables_of(cell: Cell, outcome: Outcome, against: Iterable[str]) -> Tables:
    """The tables of one experiment.

    Args:
        against: arms to compare with beside the baseline.
    """
    judged = Judged(outcome)
    head = {"part": cell.part, "setting": cell.label}
    values = values_table(outcome, judged)
    pairs = pairs_table(outcome, judged)
    found = Tables(
        values,
        families_table(outcome, judged),
        comparisons_table(outcome, judged, list(against)),
        pairs,
        correlations_table(pairs, outcome.start.experiment.seed),
    )
    named = {name: _with(head, table) for name, table in found.named().items()}
    return Tables(**named, metric=outcome.start.experiment.evaluate.metric)


def _with(head: Mapping[str, str], table: pd.DataFrame) -> pd.DataFrame:
    if not len(table):
        return table
    return pd.concat([pd.DataFrame([head] * len(table)), table.reset_index(drop=True)], axis=1)


def corrected(tables: Tables) -> Tables:
    """Holm's p-values over all comparisons of a part, and what may be said by them: a difference is called
    where the interval leaves out 0 and the corrected p is below 0.05.
    """
    table = tables.comparisons
    if not len(table):
        return tables
    p = np.array(holm(table["p"].tolist()))
    sure = (p < 0.05) & ((table["low"] > 0) | (table["high"] < 0))
    said = np.where(sure, np.where(table["difference"] > 0, CALLED[0], CALLED[1]), CALLED[2])
    return replace(tables, comparisons=table.assign(p_corrected=p, called=said))


def values_table(outcome: Outcome, judged: Judged) -> pd.DataFrame:
    """A row for every student, arm, seed and round."""
    rows = [
        {"student": name, "arm": BEFORE, "seed": 0, "round": 0, "value": judged.before(name).value.value}
        for name in outcome.start.students
    ]
    for (path, number), stage in outcome.evaluations.items():
        counts = stage.manifest()["counts"]
        trained = outcome.trained[path, number].manifest()
        rows.append(
            {
                "student": path.student,
                "arm": path.arm.name,
                "seed": path.seed,
                "round": number,
                "value": float(counts["value"]),
                "cut_off": int(counts["cut_off"]),
                "questions": judged.known(path, number),
                "examples": _examples(outcome, path, number),
                "answer_tokens": trained["counts"]["answer_tokens"],
                "steps": trained["counts"]["steps"],
            }
        )
    table = pd.DataFrame(rows)
    whole = [c for c in ("cut_off", "questions", "examples", "answer_tokens", "steps") if c in table]
    return table.astype(dict.fromkeys(whole, "Int64"))  # empty before training, and no fractions after


def _examples(outcome: Outcome, path: StudentPath, number: int) -> int:
    return int(outcome.examples[path, number].count_rows(EXAMPLES))


def families_table(outcome: Outcome, judged: Judged) -> pd.DataFrame:
    """Every arm's mean on every family of questions after the last round."""
    e = outcome.start.experiment
    rows = []
    for student in outcome.start.students:
        arms = [arm.name for arm in e.arms if judged.came_to(student, arm.name, e.rounds)]
        results = [judged.before(student), *(judged.arm(student, arm, e.rounds) for arm in arms)]
        for result in results:
            for family, value in result.families.items():
                rows.append(
                    {
                        "student": student,
                        "arm": result.arm,
                        "family": family,
                        "value": value.value,
                        "low": value.low,
                        "high": value.high,
                    }
                )
    return pd.DataFrame(rows)


def comparisons_table(outcome: Outcome, judged: Judged, against: list[str]) -> pd.DataFrame:
    """Every arm against the baseline and against each of some others, and the best single teacher in
    hindsight against the baseline.
    """
    e = outcome.start.experiment
    arms = [arm.name for arm in e.arms]
    baseline = baseline_of(e)
    rows = []

    others = list(dict.fromkeys([baseline, *against]))
    for student in outcome.start.students:
        there = {arm for arm in arms if judged.came_to(student, arm, e.rounds)}
        for k, other in enumerate(others):
            for arm in arms:
                if arm != other and arm not in others[:k] and {arm, other} <= there:  # each pair once
                    found = judged.compared(student, arm, other)
                    rows.append(_comparison(student, arm, other, found))
    rows += [
        _comparison(result.student, IN_HINDSIGHT, baseline, found)
        for result, found in judged.in_hindsight(baseline)
    ]
    return pd.DataFrame(rows)


def _comparison(student: str, arm: str, against: str, found: Comparison) -> dict[str, object]:
    d = found.difference
    names = {"student": student, "arm": arm, "against": against}
    numbers = {"difference": d.value, "low": d.low, "high": d.high, "p": found.p_value}
    return {**names, **numbers, "questions": found.questions, "verdict": found.verdict}


def pairs_table(outcome: Outcome, judged: Judged) -> pd.DataFrame:
    """What every teacher gave every student that learned from it alone, and what its answers cost."""
    e = outcome.start.experiment
    single = {arm.name: arm.teacher for arm in e.arms if arm.rule == "teacher" and arm.teacher}
    if len(single) < 2:
        return pd.DataFrame()
    rows = []
    for student in outcome.start.students:
        means = mean_costs(outcome, student).to_dict("index")
        for arm, teacher in single.items():
            if not judged.came_to(student, arm, e.rounds) or teacher not in means:
                continue
            gain = judged.gain(student, arm)
            row: dict[str, object] = {"student": student, "teacher": teacher, "gain": gain}
            row["teacher accuracy"] = outcome.start.pool.accuracy[str(teacher)]
            rows.append({**row, **{str(name): value for name, value in means[teacher].items()}})
    return pd.DataFrame(rows)


def mean_costs(outcome: Outcome, student: str) -> pd.DataFrame:
    """Of every teacher's verified answers the mean costs and features under a student before training."""
    own = [path for path in outcome.paths if path.student == student and (path, 1) in outcome.scores]
    wanted = further_costs(own)
    sums, counts = [], []
    first = outcome.scores[own[0], 1]
    for number in range(first.pool.count):
        table = _usable(replace(first, further=()), number)
        columns = {name: compute_cost(table, settings) for name, settings in FORWARD.items()}
        found = pd.DataFrame({**columns, **features_of(table)}).set_index(table["answer_id"])
        for name, (path, settings) in wanted.items():  # a measure may have failed for some answers
            measured = _usable(outcome.scores[path, 1], number)
            costs = pd.Series(compute_cost(measured, settings).to_numpy(), index=measured["answer_id"])
            found[name] = costs.reindex(found.index)
        by = found.groupby(table["teacher"].to_numpy())
        sums.append(by.sum())
        counts.append(by.count().assign(answers=by.size()))
    known = pd.concat(counts).groupby(level=0).sum()
    total = pd.concat(sums).groupby(level=0).sum()
    return (total / known[total.columns]).assign(answers=known["answers"])


def further_costs(paths: Iterable[StudentPath]) -> dict[str, tuple[StudentPath, CostSettings]]:
    """Costs of answers beyond one forward pass that some arm has, and an arm whose scores hold each."""
    found: dict[str, tuple[StudentPath, CostSettings]] = {}
    for path in paths:
        settings = path.arm.cost_settings
        if settings is not None and MEASURE_OF.get(settings.name) and settings.name != "grace":
            found.setdefault(settings.name, (path, settings))
    return found


def _usable(scores: PoolScores, number: int) -> pd.DataFrame:
    table = scores.slice(number)
    return table[table["state"] == "scored"].reset_index(drop=True)


def correlations_table(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """How well every cost orders a student's teachers by what they gave it: Spearman's rank correlation of
    the gain with minus the cost (with the teacher's accuracy as it is), with a 95 % interval by resampling
    teachers.
    """
    if not len(pairs):
        return pairs
    names = [c for c in pairs.columns if c not in ("student", "teacher", "gain", "answers")]
    costs = [c for c in names if c in FORWARD or c in MEASURE_OF or c in ("teacher accuracy", "learned")]
    rows = []
    for student, own in pairs.groupby("student", sort=False):
        for cost in costs:
            sign = 1.0 if cost == "teacher accuracy" else -1.0
            rho, low, high = rank_correlation(own["gain"].to_numpy(), sign * own[cost].to_numpy(), seed)
            row = {"student": student, "cost": cost, "rank_correlation": rho, "low": low, "high": high}
            rows.append({**row, "teachers": len(own)})
    return pd.DataFrame(rows)


def rank_correlation(
    one_N: np.ndarray, other_N: np.ndarray, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Spearman's rank correlation with a 95 % interval by resampling its pairs; the interval is NaN where
    fewer than eight pairs would feign certainty, and all are NaN where either side never changes.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 9.0]))
    (1.0, nan, nan)
    """
    known = np.isfinite(one_N) & np.isfinite(other_N)
    one_N, other_N = one_N[known], other_N[known]
    rho = _spearman(one_N[None], other_N[None])[0]
    if len(one_N) < 8 or not np.isfinite(rho):
        return round(float(rho), 9), float("nan"), float("nan")
    places = np.random.default_rng(seed).integers(len(one_N), size=(resamples, len(one_N)))
    drawn = _spearman(one_N[places], other_N[places])
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(rho), float(low), float(high)


def _spearman(one_RN: np.ndarray, other_RN: np.ndarray) -> np.ndarray:
    """Spearman's correlation of every row; equal values share their mean rank."""
    from scipy.stats import rankdata

    a, b = (rankdata(x, axis=1) for x in (one_RN, other_RN))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        norms = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        return (a * b).sum(axis=1) / norms  # type: ignore[no-any-return]


def fixed_value(cells: list[Cell], tables: list[Tables], key: str, arm: str) -> tuple[object, pd.DataFrame]:
    """The value of a crossed key under which an arm does best after the last round, as a mean over students
    and seeds; of equals the first. And what it was chosen by.
    """
    rows = []
    for cell, found in zip(cells, tables, strict=True):
        own = found.values[(found.values["arm"] == arm) & (found.values["round"] == cell.experiment.rounds)]
        rows.append({key: told(dict(cell.values)[key]), "value": float(own["value"].mean())})
    table = pd.DataFrame(rows)
    means = table.groupby(key, sort=False)["value"].mean()
    by_word = {told(dict(cell.values)[key]): dict(cell.values)[key] for cell in cells}
    return by_word[str(means.idxmax())], means.reset_index()
