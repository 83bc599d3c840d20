"""What a study says at its end, in words: for every part who was better than whom, and how well costs order
teachers.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from jobs.results.values import IN_HINDSIGHT
from jobs.study.comparisons import CALLED, corrected_over_all
from jobs.study.parts import ONLY, told
from jobs.study.running import Found
from jobs.study.tables import Tables


def study_lines(found: Found) -> Iterator[str]:
    """The study as plain text lines."""
    for part, key, value, chosen_by in found.fixed:
        tried = ", ".join(f"{told(v)}: {m:.4f}" for v, m in chosen_by.itertuples(index=False))
        yield f"{part} fixed {key} at {told(value)} ({tried})"
    whole = corrected_over_all({name: tables.comparisons for name, tables in found.tables.items()})
    for name, tables in found.tables.items():
        yield from part_lines(name, tables, whole.get(name) if len(whole) > 1 else None)


def part_lines(name: str, tables: Tables, over_all: pd.DataFrame | None = None) -> Iterator[str]:
    """One part: of every arm for how many students it was better or worse, by corrected p-values.

    Args:
        over_all: its comparisons corrected over all parts of the study.
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
    yield from together_lines(tables)
    yield from order_lines(tables.correlations, "over students")
    yield from order_lines(tables.judged, "for students and families that the learned cost was not fitted on")
    for note in tables.notes["note"] if len(tables.notes) else ():
        yield f"  {note}"


def strongest_lines_of(tables: Tables) -> Iterator[str]:
    """Who cannot be told from the strongest teacher, once for every setting that differs in it."""
    if not len(tables.strongest):
        return
    said = set()
    for _, own in tables.strongest.groupby("setting", sort=False):
        some = own[own["is_strongest"]]
        names = [f"{t} ({100 * a:.1f} %)" for t, a in zip(some["teacher"], some["accuracy"], strict=True)]
        if len(own) > 1 and tuple(names) not in said:
            said.add(tuple(names))
            rest = f"; not told from it: {', '.join(names[1:])}" if names[1:] else ", and no other comes near"
            yield f"  the strongest teacher is {names[0]}{rest}"


def together_lines(tables: Tables) -> Iterator[str]:
    """All students together: a claim about students like these, and one about these students."""
    table = tables.contrasts
    if not len(table):
        return
    scale, words = tables.unit
    yield f"  all students together, in {words}, with 95 % intervals"
    several = table["setting"].nunique() > 1
    for row in table[~table["arm"].str.startswith(ONLY)].to_dict("records"):
        where = f" [{row['setting']}]" if several else ""
        mean, *ends = (
            f"{scale * row[key]:+{'.1f' if scale > 1 else '.4f'}}"
            for key in ("difference", "low_students", "high_students", "low_these", "high_these")
        )
        over = f"students like these ({row['lineages']} lineages) {ends[0]} to {ends[1]}"
        if np.isnan(row["low_students"]):
            over = "of other students nothing (one lineage)"
        these = f"these {row['students']} students {ends[2]} to {ends[3]}"
        if "questions" in row:  # tables of an earlier study have none
            these += f" ({row['questions']:,} questions, {row['seeds']} seeds)"
        yield f"    {row['arm']}{where} against {row['against']}: {mean}; {over}; {these}"


def order_lines(correlations: pd.DataFrame, over: str) -> Iterator[str]:
    """How well costs order teachers, the best first: the mean over students, and the extremes."""
    if not len(correlations):
        return
    yield f"  rank correlation of what teachers gave with a cost's order, {over}"
    means = correlations.groupby("cost", sort=False)["rank_correlation"].agg(["mean", "min", "max"])
    for cost, row in means.sort_values("mean", ascending=False).iterrows():
        yield f"    {cost:<18} {row['mean']:+.2f} ({row['min']:+.2f} to {row['max']:+.2f})"


def counted(table: pd.DataFrame, of: int, unit: tuple[float, str], what: str = "students") -> str:
    """How often a difference was called, and its mean."""
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
    """A table in which a student under each of several settings has a name of its own.

    Args:
        settings: how many there are, should another table have more.
    """
    if not len(table) or max(settings or 0, table["setting"].nunique()) < 2:
        return table
    return table.assign(student=table["student"] + " [" + table["setting"] + "]")


def best_teachers(tables: Tables) -> pd.DataFrame:
    """For every student the strongest teacher, the one that gave most, and the best in hindsight against the
    baseline.
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
