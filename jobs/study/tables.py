"""The tables of a study: values of seeds and questions, comparisons, families of questions, and students'
gains beside the costs of teachers' answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product

import pandas as pd

from cluster.errors import BadInput
from jobs.experiment.arms.select import single_teachers
from jobs.experiment.schema import BEFORE
from jobs.results.judged import Judged, baseline_of, cluster_lines
from jobs.results.outcome import Outcome
from jobs.results.strongest import baselines_of, strongest_table
from jobs.results.trained import token_lines
from jobs.results.values import Values, loud_lines, rows_of, unjudged_lines
from jobs.study.comparisons import Design, compared_tables, headed
from jobs.study.pairs import correlations_table, lineages_of, pairs_table
from jobs.study.parts import Cell, told
from jobs.study.published import described


def _no_table() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass
class Tables:
    """The tables of a part. Each becomes a CSV file, and `questions` a Parquet file.

    Attributes:
        values: one row for every student, arm, seed and round, and for the student before training (round 0):
            accuracy (or minus the loss), the number of training examples, their answer tokens, optimizer
            steps.
        questions: the value of every question, for every path and seed after the last round and for the
            students before training. All tables with intervals follow from it.
        families: means over seeds after the last round, for every family of questions.
        comparisons: differences from the baselines with 95 % intervals. `p_corrected` is Holm's over the
            part.
        contrasts: the same over all students together, with two intervals: for further students of the same
            kind, and for these students.
        strongest: the teachers' accuracies, and which cannot be told from the strongest.
        notes: remarks on the intervals, as text.
        pairs: for every student and every teacher from which alone it learned: the gain, and the mean costs
            and features of the teacher's verified answers under the student before training.
        correlations: Spearman's correlation, over teachers, of a student's gain with minus a cost.
        judged: the same for students and families that the learned cost was not fitted on.
        coefficients: those of the learned cost.
    """

    values: pd.DataFrame = field(default_factory=_no_table)
    questions: pd.DataFrame = field(default_factory=_no_table)
    families: pd.DataFrame = field(default_factory=_no_table)
    comparisons: pd.DataFrame = field(default_factory=_no_table)
    contrasts: pd.DataFrame = field(default_factory=_no_table)
    strongest: pd.DataFrame = field(default_factory=_no_table)
    notes: pd.DataFrame = field(default_factory=_no_table)
    pairs: pd.DataFrame = field(default_factory=_no_table)
    correlations: pd.DataFrame = field(default_factory=_no_table)
    judged: pd.DataFrame = field(default_factory=_no_table)
    coefficients: pd.DataFrame = field(default_factory=_no_table)
    metric: str = "accuracy"

    def named(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "metric"}

    @property
    def unit(self) -> tuple[float, str]:
        """The unit in which differences are shown: the factor to multiply by, and the unit's name."""
        return (100.0, "points of accuracy") if self.metric == "accuracy" else (1.0, "nats per answer token")


def joined_tables(every: Iterable[Tables]) -> Tables:
    """Concatenate the tables of several experiments."""
    some = list(every)
    joined = {}
    for name in Tables().named():
        frames = [t.named()[name] for t in some]
        kept = [frame for frame in frames if len(frame)]
        joined[name] = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()
    return Tables(**joined, metric=some[0].metric)


@dataclass(frozen=True)
class CellResult:
    """The result of one experiment of a part.

    Attributes:
        tables: the tables that depend on this experiment alone.
        values: the value of each question after the last round.
        design: what is compared in it.
        notes: lines about paths that ended before the last round, and about what its figures rest on.
    """

    cell: Cell
    tables: Tables
    values: Values
    design: Design
    notes: Sequence[str] = ()


def result_of(cell: Cell, outcome: Outcome, against: Iterable[str]) -> CellResult:
    """Compute the result of one experiment.

    Args:
        against: arms to compare with, besides the baselines.
    """
    judged, e = Judged(outcome), outcome.start.experiment
    strongest = strongest_table(outcome.start)
    pairs = pairs_table(outcome, judged)
    correlations = correlations_table(pairs, e.seed)
    values = values_table(outcome, judged)
    found = Tables(values=values, pairs=pairs, correlations=correlations, strongest=strongest)
    named = {name: with_head(cell, table) for name, table in found.named().items()}
    design = Design(
        tuple(a.name for a in e.arms),
        tuple(dict.fromkeys([*baselines_of(e, baseline_of(e), strongest), *against])),
        tuple(single_teachers(e.arms)),
        lineages_of(e.students),
        e.seed,
    )
    design = replace(design, alike=alike_in(judged, design))
    notes = [*ended_lines(judged), *token_lines(outcome), *cluster_lines(outcome.start.held_out)]
    return CellResult(cell, Tables(**named, metric=e.evaluate.metric), judged.last, design, notes)


def alike_in(judged: Judged, design: Design) -> frozenset[tuple[str, str, str]]:
    """The compared pairs of arms that trained on the same choices, as triples (student, arm, other arm)."""
    return frozenset(
        (student, arm, other)
        for student, (arm, other) in product(design.lineages, design.pairs())
        if {(student, arm), (student, other)} <= set(judged.last.paths)
        and judged.chose_alike(student, arm, other)
    )


def ended_lines(judged: Judged) -> list[str]:
    """Lines about paths that ended before the last round, with the reason, and about arms that are not
    compared because of it.
    """
    ended = judged.outcome.ended
    gone = dict.fromkeys((p.student, p.arm.name) for p in ended)
    lines = [f"ended: {why}" for _, why in ended.values()]
    return lines + [
        f"{student} {arm} did not come to the last round under every seed: it is compared with nothing"
        for student, arm in gone
        if (student, arm) not in judged.last.paths
    ]


def part_tables(results: Sequence[CellResult]) -> Tables:
    """Make the tables of a part. The variance between seeds is estimated from all paths of all its
    experiments.
    """
    joined = joined_tables([r.tables for r in results])
    heads = [{"part": r.cell.part, "setting": r.cell.label} for r in results]
    every = [r.values for r in results]
    cells = list(zip(heads, every, [r.design for r in results], strict=True))
    found = compared_tables(cells)
    return replace(
        joined,
        questions=described(
            pd.concat([headed(head, rows_of(v)) for head, v, _ in cells], ignore_index=True),
            joined.metric,
            {r.cell.label: r.design for r in results},
        ),
        notes=pd.DataFrame({"note": [*notes_of(results), *unjudged_lines(every), *loud_lines(every)]}),
        families=found["families"],
        comparisons=found["comparisons"],
        contrasts=found["contrasts"],
    )


def notes_of(results: Sequence[CellResult]) -> list[str]:
    """The notes of experiments, each with its setting if there is one; one that all have stands once."""
    shared = set.intersection(*(set(r.notes) for r in results)) if len(results) > 1 else set()
    told = [
        line if line in shared or not r.cell.label else f"[{r.cell.label}] {line}"
        for r in results
        for line in r.notes
    ]
    return list(dict.fromkeys(told))


def with_head(cell: Cell, table: pd.DataFrame) -> pd.DataFrame:
    """Put the part and the setting in front of a table."""
    return headed({"part": cell.part, "setting": cell.label}, table)


def values_table(outcome: Outcome, judged: Judged) -> pd.DataFrame:
    """A row for every student, arm, seed and round."""
    rows = [
        {"student": name, "arm": BEFORE, "seed": 0, "round": 0, "value": judged.last.mean((name, BEFORE))}
        for name in outcome.start.students
    ]
    for path, number, stage in outcome.evaluated():
        own = outcome.rounds[path, number]
        if own.trained is None or own.examples is None:
            continue
        counts, trained = stage.manifest()["counts"], own.trained.manifest()
        rows.append(
            {
                "student": path.student,
                "arm": path.arm.name,
                "seed": path.seed,
                "round": number,
                "value": judged.value(path, number),
                "cut_off": int(counts["cut_off"]),
                "questions": judged.known(path, number),
                "examples": int(own.examples.manifest()["counts"]["examples"]),
                "answer_tokens": trained["counts"]["answer_tokens"],
                "steps": trained["counts"]["steps"],
            }
        )
    table = pd.DataFrame(rows)
    whole = [c for c in ("cut_off", "questions", "examples", "answer_tokens", "steps") if c in table]
    if "answer_tokens" in table:  # each token counts as much as its example weighs
        table["answer_tokens"] = table["answer_tokens"].round()
    return table.astype(dict.fromkeys(whole, "Int64"))  # missing before training, whole numbers after


def fixed_value(
    cells: Sequence[Cell], tables: Sequence[Tables], key: str, arms: Sequence[str]
) -> tuple[object, pd.DataFrame, int]:
    """Find the best value of a crossed key. It is the one with the greatest mean after the last round, over
    the given arms, students and seeds. Of equal values the first is taken. A path that ended under one value
    counts under none: means over other paths could not be compared.

    Returns:
        The value, the table of means that it was chosen by, and how many paths these are of.

    Raises:
        BadInput: no path came to its end under every value.
    """
    path = ["student", "arm", "seed"]
    each = []
    for cell, found in zip(cells, tables, strict=True):
        last = found.values[found.values["round"] == cell.experiment.rounds]
        known = last[last["arm"].isin(arms)].dropna(subset="value")
        each.append(known.set_index(path)["value"])
    both = set.intersection(*(set(own.index) for own in each))
    if not both:
        raise BadInput(
            f"nothing fixes {key}",
            f"no path of {' and '.join(arms)} came to its end under every value",
            "an arm that comes to the end",
            "look at the arm's notes, or fix the key by another arm",
        )
    by_word = {told(dict(cell.values)[key]): dict(cell.values)[key] for cell in cells}
    rows = []
    for cell, own in zip(cells, each, strict=True):
        of_arms = own[own.index.isin(both)].groupby("arm").mean().to_numpy(float)
        rows.append({key: told(dict(cell.values)[key]), "value": of_arms.mean()})
    means = pd.DataFrame(rows).groupby(key, sort=False)["value"].mean()
    return by_word[str(means.idxmax())], means.reset_index(), len(both)
