"""The gain of every student from every teacher of a study, beside the cost of the teacher's answers. And the
correlation between gains and costs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from jobs.experiment.arms.select import single_teachers
from jobs.experiment.students import Student
from jobs.experiment.teachers import Teacher
from jobs.results.judged import Judged
from jobs.results.outcome import Outcome, StudentPath
from jobs.stages.score import PoolScores
from selection.costs import COSTS, MEASURE_OF, CostSettings, compute_cost, features_of
from selection.teacher_costs import TEACHER_COSTS

MOST_UNKNOWN = 0.05  # the share of draws in which all teachers are equal
CALLED_SO = {"naturalness": "mean loss"}  # other names of costs
# Costs of one forward pass, by the names of their columns. The learned cost is not among them.
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


def lineages_of(members: Iterable[Teacher | Student]) -> dict[str, str]:
    """The lineage of every teacher or student. It is the own name if the experiment gives none."""
    return {member.name: member.lineage or member.name for member in members}


def pairs_table(outcome: Outcome, judged: Judged) -> pd.DataFrame:
    """One row for every student and every teacher from which alone it learned: the gain, and the mean costs
    of the teacher's answers. Empty with fewer than two such teachers.
    """
    lineages = lineages_of(outcome.start.experiment.teachers)
    e = outcome.start.experiment
    single = single_teachers(e.arms)
    if len(single) < 2:
        return pd.DataFrame()
    rows = []
    for student in outcome.start.students:
        means = mean_costs(outcome, student).to_dict("index")
        for arm, teacher in single.items():
            if not judged.came_to(student, arm, e.rounds) or teacher not in means:
                continue
            about = {"student": student, "teacher": teacher, "lineage": lineages[teacher]}
            row: dict[str, object] = {**about, "gain": judged.last.gain(student, arm)}
            row["teacher accuracy"] = outcome.start.pool.accuracy[teacher]
            rows.append({**row, **{str(name): value for name, value in means[teacher].items()}})
    return pd.DataFrame(rows)


def mean_costs(outcome: Outcome, student: str) -> pd.DataFrame:
    """For each teacher, the mean costs and features of its verified answers under the student before
    training.
    """
    own = {p: scores for p, number, scores, _ in outcome.choices() if p.student == student and number == 1}
    wanted = further_costs(own)
    sums, counts = [], []
    first = next(iter(own.values()))
    for number in range(first.pool.count):
        table = _usable(replace(first, further=()), number)
        columns = {name: compute_cost(table, settings) for name, settings in FORWARD.items()}
        found = pd.DataFrame({**columns, **features_of(table)}).set_index(table["answer_id"])
        for name, (path, settings) in wanted.items():  # a measure may have failed for some answers
            measured = _usable(own[path], number)
            costs = pd.Series(compute_cost(measured, settings).to_numpy(), index=measured["answer_id"])
            found[name] = costs.reindex(found.index)
        by = found.groupby(table["teacher"].to_numpy())
        sums.append(by.sum())
        counts.append(by.count().assign(answers=by.size()))
    known = pd.concat(counts).groupby(level=0).sum()
    total = pd.concat(sums).groupby(level=0).sum()
    return (total / known[total.columns]).assign(answers=known["answers"])


def further_costs(paths: Iterable[StudentPath]) -> dict[str, tuple[StudentPath, CostSettings]]:
    """The costs in some arm that need more than one forward pass. Each comes with its settings and with a
    path whose scores hold what it needs.
    """
    found: dict[str, tuple[StudentPath, CostSettings]] = {}
    for path in paths:
        settings = path.choosing.cost_settings
        if settings is not None and MEASURE_OF.get(settings.name) and settings.name not in TEACHER_COSTS:
            found.setdefault(settings.name, (path, settings))
    return found


def _usable(scores: PoolScores, number: int) -> pd.DataFrame:
    table = scores.slice(number)
    return table[table["state"] == "scored"].reset_index(drop=True)


def correlations_table(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """How well each cost predicts which teachers help a student. It is Spearman's rank correlation between
    the gain and minus the cost, over teachers. For the column `teacher accuracy` the sign stays. The 95 %
    interval resamples lineages of teachers.
    """
    if not len(pairs):
        return pairs
    names = [c for c in pairs.columns if c not in ("student", "teacher", "gain", "answers")]
    costs = [c for c in names if c in FORWARD or c in MEASURE_OF or c in ("teacher accuracy", "learned")]
    rows = []
    for student, own in pairs.groupby("student", sort=False):
        for cost in costs:
            sign = 1.0 if cost == "teacher accuracy" else -1.0
            sides = own["gain"].to_numpy(), sign * own[cost].to_numpy()
            rho, low, high = rank_correlation(*sides, seed, lineages=own["lineage"].tolist())
            row = {"student": student, "cost": cost, "rank_correlation": rho, "low": low, "high": high}
            rows.append({**row, "teachers": len(own), "lineages": own["lineage"].nunique()})
    return pd.DataFrame(rows)


def rank_correlation(
    one_N: np.ndarray,
    other_N: np.ndarray,
    seed: int = 0,
    resamples: int = 2000,
    lineages: Sequence[str] | None = None,
) -> tuple[float, float, float]:
    """Spearman's rank correlation with a 95 % interval, which resamples lineages of pairs. With fewer than
    eight lineages the interval is NaN, because it would be too narrow, and also where more than 5 % of the
    resamples have no correlation. If one side is constant, all three
    values are NaN.

    Args:
        lineages: the lineage of each pair. Pairs of one lineage are drawn together. By default each pair has
            its own.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 9.0]))
    (1.0, nan, nan)
    """
    known = np.isfinite(one_N) & np.isfinite(other_N)
    named = np.arange(len(one_N)).astype(str) if lineages is None else np.array(lineages)
    one_N, other_N, named = one_N[known], other_N[known], named[known]
    rho = float(_spearman(one_N[None], other_N[None])[0])
    names = sorted(set(named))
    if len(names) < 8 or not np.isfinite(rho):
        return round(rho, 9), float("nan"), float("nan")
    drawn = _spearman_of_draws(
        one_N, other_N, [np.flatnonzero(named == name) for name in names], seed, resamples
    )
    if np.isnan(drawn).mean() > MOST_UNKNOWN:  # the others are no fair sample of draws
        return rho, float("nan"), float("nan")
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return rho, float(low), float(high)


def _spearman_of_draws(
    one_N: np.ndarray, other_N: np.ndarray, places: Sequence[np.ndarray], seed: int, resamples: int
) -> np.ndarray:
    """Spearman's correlation for each resample of lineages.

    Args:
        places: for each lineage, the indices of its pairs.
    """
    rng, by_length = np.random.default_rng(seed), defaultdict(list)
    for _ in range(resamples):
        own = np.concatenate([places[k] for k in rng.integers(len(places), size=len(places))])
        by_length[len(own)].append(own)
    return np.concatenate([_spearman(one_N[np.stack(d)], other_N[np.stack(d)]) for d in by_length.values()])


def _spearman(one_RN: np.ndarray, other_RN: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row. Equal values share their mean rank."""
    a, b = (rankdata(x, axis=1) for x in (one_RN, other_RN))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        norms = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        return (a * b).sum(axis=1) / norms  # type: ignore[no-any-return]
