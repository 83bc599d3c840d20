"""A study's results as text: for every part which arms were better than which, and how well costs order
teachers."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jobs.experiment.schema import IN_HINDSIGHT
from jobs.study.comparisons import CALLED, CLAIMS, corrected_over_all, corrected_together
from jobs.study.parts import ONLY, told
from jobs.study.running import Found
from jobs.study.tables import Tables
from training.comparison import MODELS_ALONE


def study_lines(found: Found) -> Iterator[str]:
    """The results of a study as lines of plain text."""
    for part, key, value, chosen_by in found.fixed:
        tried = ", ".join(f"{told(v)}: {m:.4f}" for v, m in chosen_by.itertuples(index=False))
        yield f"{part} fixed {key} at {told(value)} ({tried})"
    of_one = [name for name, tables in found.tables.items() if is_of_one_seed(tables.comparisons)]
    if of_one:
        yield f"one training seed in {', '.join(of_one)}: this {MODELS_ALONE}"
    whole = corrected_over_all({name: tables.comparisons for name, tables in found.tables.items()})
    together = corrected_over_all(
        {name: tables.contrasts for name, tables in found.tables.items()}, corrected_together
    )
    for name, tables in found.tables.items():
        yield from part_lines(
            name,
            tables,
            whole.get(name) if len(whole) > 1 else None,
            together.get(name) if len(together) > 1 else None,
        )


def is_of_one_seed(comparisons: pd.DataFrame) -> bool:
    """Whether all comparisons rest on one training seed."""
    return len(comparisons) > 0 and "seeds" in comparisons and bool((comparisons["seeds"] == 1).all())


def part_lines(
    name: str,
    tables: Tables,
    over_all: pd.DataFrame | None = None,
    together: pd.DataFrame | None = None,
) -> Iterator[str]:
    """The lines of one part. For every arm they say for how many students it was better or worse, by
    corrected p-values.

    Args:
        over_all: the part's comparisons, corrected over all parts of the study.
        together: the part's contrasts, corrected over all parts of the study.
    """
    yield from strongest_lines_of(tables)
    table = tables.comparisons
    if not len(table):
        return
    also = "" if over_all is None else "; in brackets over all parts"
    yield f"{name}: {len(table):,} comparisons, p-values corrected over all of them{also}"
    table = table.assign(over_all="" if over_all is None else over_all["called"].to_numpy())
    setting_said = table["setting"].nunique() > 1
    single = table[table["arm"].str.startswith(ONLY)]
    for (setting, arm, against), own in table.drop(index=single.index).groupby(
        ["setting", "arm", "against"], sort=False
    ):
        where = f" [{setting}]" if setting_said else ""
        yield f"  {arm}{where} against {against}: {counted(own, own['student'].nunique(), tables.unit)}"
    for (setting, against), own in single.groupby(["setting", "against"], sort=False):
        where = f" [{setting}]" if setting_said else ""
        yield f"  single teachers{where} against {against}: {counted(own, len(own), tables.unit, 'pairs')}"
    yield from together_lines(tables, together)
    yield from order_lines(tables.correlations, "over students")
    yield from order_lines(tables.judged, "for students and families that the learned cost was not fitted on")
    for note in tables.notes["note"] if len(tables.notes) else ():
        yield f"  {note}"


def strongest_lines_of(tables: Tables) -> Iterator[str]:
    """Lines that name the strongest teacher, the teachers that cannot be told from it, and the next one.
    Settings with the same result share a line.
    """
    if not len(tables.strongest):
        return
    said = set()
    for _, own in tables.strongest.groupby("setting", sort=False):
        shown = own.assign(
            shown=[f"{row['teacher']} ({100 * row['accuracy']:.1f} %)" for row in records(own)]
        )
        best, others = shown[shown["is_strongest"]], shown[~shown["is_strongest"]]
        first, *untold = best["shown"]
        line = f"  the strongest teacher is {first}"
        if untold:
            line += f"; not told from it: {', '.join(untold)}"
        for row in records(others.head(1)):
            line += f"; the next is {row['shown']}, {behind(row)}"
        if len(own) > 1 and line not in said:
            said.add(line)
            yield line


def records(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return table.to_dict("records")


def behind(row: Mapping[Hashable, Any]) -> str:
    """Text: by how much a teacher's accuracy is below the strongest teacher's, with the interval."""
    value, low, high = (100 * float(row[key]) for key in ("behind", "low", "high"))
    return f"behind it by {value:.1f} points ({low:.1f} to {high:.1f})"


def together_lines(tables: Tables, over_all: pd.DataFrame | None = None) -> Iterator[str]:
    """The lines on all students together: one claim about further students of the same kind, and one about
    these students.

    Args:
        over_all: the contrasts, corrected over all parts of the study.
    """
    table = tables.contrasts
    if not len(table):
        return
    if over_all is not None:
        table = table.assign(**{f"{p}_over_all": over_all[f"{p}_corrected"].to_numpy() for p in CLAIMS})
    scale, words = tables.unit
    yield f"  all students together, in {words}, with 95 % intervals (not corrected)"
    several = table["setting"].nunique() > 1
    for row in records(table[~table["arm"].str.startswith(ONLY)]):
        where = f" [{row['setting']}]" if several else ""
        mean, *ends = (
            f"{scale * row[key]:+{'.1f' if scale > 1 else '.4f'}}"
            for key in ("difference", "low_students", "high_students", "low_these", "high_these")
        )
        over = f"students like these ({row['lineages']} lineages) {ends[0]} to {ends[1]}"
        over += chances(row, "p_students")
        if np.isnan(row["low_students"]):
            over = "of other students nothing (one lineage)"
        these = f"these {row['students']} students {ends[2]} to {ends[3]}{chances(row, 'p_these')}"
        yield f"    {row['arm']}{where} against {row['against']}: {mean}; {over}; {these}{counts_of(row)}"


def chances(row: Mapping[Hashable, Any], p: str) -> str:
    """Text: a claim's p-value, also corrected over the part and over the study if those are known."""
    found = [
        f"{words}{'below 0.001' if row[key] < 0.001 else f'{row[key]:.3f}'}"
        for key, words in ((p, "p "), (f"{p}_corrected", "corrected "), (f"{p}_over_all", "over all parts "))
        if key in row and np.isfinite(row[key])
    ]
    return f" [{', '.join(found)}]" if found else ""


def counts_of(row: Mapping[Hashable, Any]) -> str:
    """Text: the number of questions and seeds behind a contrast. Empty for tables of an earlier version,
    which lack them.
    """
    if "questions" not in row:
        return ""
    left_out = row.get("left_out", 0)
    rest = f", {left_out:,} left out that could not be judged of all" if left_out else ""
    return f" ({row['questions']:,} questions{rest}; {row['seeds']} seed{'s' if row['seeds'] > 1 else ''})"


def order_lines(correlations: pd.DataFrame, over: str) -> Iterator[str]:
    """Lines on how well each cost orders teachers, the best cost first: the mean, minimum and maximum over
    students.
    """
    if not len(correlations):
        return
    yield f"  rank correlation of what teachers gave with a cost's order, {over}"
    means = correlations.groupby("cost", sort=False)["rank_correlation"].agg(["mean", "min", "max"])
    for cost, row in means.sort_values("mean", ascending=False).iterrows():
        yield f"    {cost:<18} {row['mean']:+.2f} ({row['min']:+.2f} to {row['max']:+.2f})"


def counted(table: pd.DataFrame, of: int, unit: tuple[float, str], what: str = "students") -> str:
    """Text: how often a difference was called better or worse, and the mean difference."""
    n = {word: int((table["called"] == word).sum()) for word in CALLED}
    scale, words = unit
    mean = f"{scale * float(np.mean(table['difference'])):+{'.1f' if scale > 1 else '.4f'}} {words}"
    again = ""
    if "over_all" in table and table["over_all"].any():
        again = f" ({', '.join(str(int((table['over_all'] == word).sum())) for word in CALLED)})"
    return (
        f"better for {n['better']}, worse for {n['worse']}, cannot tell for {n['cannot tell']}{again} "
        f"of {of} {what}; mean difference {mean}"
    )


def by_setting(table: pd.DataFrame, settings: int | None = None) -> pd.DataFrame:
    """Add the setting to the students' names if there are several settings, so that each row's student is
    unique.

    Args:
        settings: the number of settings, if another table has more than this one.
    """
    if not len(table) or max(settings or 0, table["setting"].nunique()) < 2:
        return table
    return table.assign(student=table["student"] + " [" + table["setting"] + "]")


def best_teachers(tables: Tables) -> pd.DataFrame:
    """One row for every student: the strongest teacher, the teacher with the greatest gain, and how the best
    teacher in hindsight compares with the baseline.
    """
    rows = []
    compared = by_setting(tables.comparisons)
    settings = tables.comparisons["setting"].nunique() if len(compared) else 0
    hindsight = compared[compared["arm"] == IN_HINDSIGHT] if len(compared) else pd.DataFrame({"student": []})
    for student, own in by_setting(tables.pairs, settings).groupby("student", sort=False):
        strongest = own.sort_values(["teacher accuracy", "teacher"], ascending=[False, True]).iloc[0]
        best = own.sort_values(["gain", "teacher"], ascending=[False, True]).iloc[0]
        row = {
            "student": student,
            "strongest teacher": strongest["teacher"],
            "its gain": strongest["gain"],
            "gave most": best["teacher"],
            "its gain ": best["gain"],
            "rank of the strongest": int((own["gain"] > strongest["gain"]).sum()) + 1,
        }
        for _, h in hindsight[hindsight["student"] == student].iterrows():
            row |= {"hindsight": h["difference"], "low": h["low"], "high": h["high"], "p": h["p_corrected"]}
        rows.append(row)
    return pd.DataFrame(rows)
