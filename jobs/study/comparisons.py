"""The comparisons of a study, computed from published values alone: pairs of arms for every student, means
for families of questions, and contrasts over all students of a part."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from jobs.experiment.schema import IN_HINDSIGHT
from jobs.results.values import Values, compared, hindsight, interval_of, pool_of
from training.comparison import Comparison, contrast, holm
from training.evaluation import SeedVariance

CALLED = ("better", "worse", "cannot tell")
CLAIMS = ("p_students", "p_these")  # about further students of the same kind; these alone


@dataclass(frozen=True)
class Design:
    """What is compared in an experiment.

    Attributes:
        arms: the names of all arms, in order.
        against: the arms that every other arm is compared with. The baseline is first.
        single: the arms that learn from one teacher alone. The best of them in hindsight is compared too.
        lineages: each student's lineage. Checkpoints of one training have the same.
        seed: splits the data into the half that hindsight chooses by and the half that it is evaluated on.
        alike: triples (student, arm, other arm) whose two arms trained on the same choices.
    """

    arms: Sequence[str]
    against: Sequence[str]
    single: Sequence[str]
    lineages: Mapping[str, str]
    seed: int
    alike: Collection[tuple[str, str, str]] = ()

    def pairs(self) -> list[tuple[str, str]]:
        """Every arm with every arm that it is compared with. Each pair occurs once."""
        return [
            (arm, other)
            for k, other in enumerate(self.against)
            for arm in self.arms
            if arm not in self.against[: k + 1]
        ]


Cells = Sequence[tuple[Mapping[str, str], Values, Design]]  # with the constant columns of each one's rows


def compared_tables(cells: Cells) -> dict[str, pd.DataFrame]:
    """Compute the tables of a part that follow from its values: `families`, `comparisons` and `contrasts`, by
    name.
    """
    every = [values for _, values, _ in cells]
    named = sorted({family for values in every for family in values.named_families})
    pool, pools = pool_of(every), {family: pool_of(every, family) for family in named}
    found = {
        "families": [headed(head, families_table(v, d, pools)) for head, v, d in cells],
        "comparisons": [headed(head, comparisons_table(v, d, pool)) for head, v, d in cells],
        "contrasts": [headed(head, contrasts_table(v, d, pool)) for head, v, d in cells],
    }
    joined = {name: _joined(tables) for name, tables in found.items()}
    return joined | {"contrasts": corrected_together(joined["contrasts"])}


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    kept = [table for table in tables if len(table)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def headed(head: Mapping[str, str], table: pd.DataFrame) -> pd.DataFrame:
    """Put columns with constant values in front of a table."""
    if not len(table):
        return table
    return pd.concat([pd.DataFrame([head] * len(table)), table.reset_index(drop=True)], axis=1)


def families_table(values: Values, design: Design, pools: Mapping[str, SeedVariance]) -> pd.DataFrame:
    """The mean of every arm for every family of questions after the last round, with its interval."""
    rows = []
    for student, arm in values.paths:
        known = values.known((student, arm))
        for family in values.named_families:
            if (known & (values.families == family)).any():
                found = interval_of(values, (student, arm), pools[family], family)
                about = {"student": student, "arm": arm, "family": family}
                rows.append({**about, "value": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


def comparisons_table(values: Values, design: Design, pool: SeedVariance) -> pd.DataFrame:
    """Compare every arm with the arms in `design.against`, for each student. The single teacher that is best
    in hindsight is compared with the same arms.
    """
    rows = []
    for student, (arm, other) in product(design.lineages, design.pairs()):
        if {(student, arm), (student, other)} <= set(values.paths):
            is_same = (student, arm, other) in design.alike
            found = compared(values, student, arm, other, pool, is_same)
            rows.append(_comparison(student, arm, found))
    for student, other in product(design.lineages, design.against):
        best = hindsight(values, student, design.single, other, design.seed, pool)
        if best is not None and set(best.taken) != {other}:
            rows.append(_comparison(student, IN_HINDSIGHT, best.comparison))
    return pd.DataFrame(rows)


def _comparison(student: str, arm: str, found: Comparison) -> dict[str, object]:
    d = found.difference
    names = {"student": student, "arm": arm, "against": found.against}
    numbers = {"difference": d.value, "low": d.low, "high": d.high, "p": found.p_value}
    return {**names, **numbers, "questions": found.questions, "seeds": found.seeds, "verdict": found.verdict}


def contrasts_table(values: Values, design: Design, pool: SeedVariance) -> pd.DataFrame:
    """Compare arms over all students together: the mean of the students' differences, with two intervals. The
    first is a claim about further students of the same kind. The second is a claim about these students only.

    A question counts if it could be judged for every student. The columns `questions` and `left_out` say how
    many do and how many do not.
    """
    rows = []
    for arm, other in design.pairs():
        students = [s for s in design.lineages if {(s, arm), (s, other)} <= set(values.paths)]
        if len(students) < 2:
            continue
        paths = [(s, name) for s in students for name in (arm, other)]
        both = values.known(*paths)
        if not both.any():
            continue
        tables = {path: values.table(path, both) for path in paths}
        d = np.stack([tables[s, arm].mean(axis=0) - tables[s, other].mean(axis=0) for s in students])
        seeds = [min(len(tables[s, name]) for s in students) for name in (arm, other)]
        is_same = all((s, arm, other) in design.alike for s in students)
        found = contrast(d, [design.lineages[s] for s in students], seeds, pool, values.metric, is_same)
        over = found.over_students
        told = {"arm": arm, "against": other, "students": found.students, "lineages": found.lineages}
        told |= {"questions": int(both.sum()), "left_out": int((~both).sum()), "seeds": min(seeds)}
        told |= {"difference": found.value}
        told |= {"low_students": np.nan if over is None else over.low}
        told |= {"high_students": np.nan if over is None else over.high}
        told |= {"p_students": np.nan if found.p_students is None else found.p_students}
        these = found.these_students
        rows.append({**told, "low_these": these.low, "high_these": these.high, "p_these": found.p_these})
    return pd.DataFrame(rows)


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's p-values over all comparisons of a table, and the conclusion from them. A difference is
    called where the corrected p-value is below 0.05.
    """
    if not len(table):
        return table
    p = np.array(holm(table["p"].tolist()))
    said = np.where(p < 0.05, np.where(table["difference"] > 0, CALLED[0], CALLED[1]), CALLED[2])
    return table.assign(p_corrected=p, called=said)


def corrected_together(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's p-values over all contrasts of a table, separately for each of the two claims."""
    if not len(contrasts):
        return contrasts
    both = {f"{p}_corrected": holm(contrasts[p].tolist()) for p in CLAIMS}
    return contrasts.assign(**both)


def corrected_over_all(
    tables: Mapping[str, pd.DataFrame], correct: Callable[[pd.DataFrame], pd.DataFrame] = corrected
) -> dict[str, pd.DataFrame]:
    """Correct the tables of all parts together, for conclusions about the whole study. Returns them by part.

    Args:
        tables: by part. All of them are comparisons, or all are contrasts.
        correct: `corrected` for comparisons, `corrected_together` for contrasts.
    """
    some = {name: table for name, table in tables.items() if len(table)}
    if not some:
        return {}
    whole = correct(pd.concat(some, names=["of", None]))
    return {name: whole[whole.index.get_level_values(0) == name] for name in some}
