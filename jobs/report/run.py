"""The report of a run: one self-contained HTML page with the verdict, the evidence, and the final state of
every question and answer.

`jobs.report.page` holds the parts that it shares with other pages.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup

from cluster.storage import Place
from jobs.report.cards import bars, card_of_teacher, map_of
from jobs.report.charts import (
    arm_chart,
    chosen_chart,
    compatibility_chart,
    cost_chart,
    curves_chart,
    rounds_chart,
)
from jobs.report.claims import claim_lines, corrected_p, p_words
from jobs.report.lineage import SCRIPT, further_pages, in_pages, remove_stale, section_of
from jobs.report.page import render_page
from jobs.report.ranking import places_table, primary_table
from jobs.results.summary import Results, format_interval

MOST_COLOURS = 12  # the most teachers whose colours can be told apart


def render_report(results: Results, pages: Sequence[Sequence[dict[str, Any]]] | None = None) -> str:
    """Render the report as one HTML page.

    Args:
        pages: the pages of lineage. The report holds the first.
    """
    pages = in_pages(results.lineage) if pages is None else pages
    teachers = teachers_of(results)
    charts = {
        "arms": arm_chart(results),
        "chosen": chosen_chart(results) if len(teachers) <= MOST_COLOURS and len(results.chosen) else "",
        "costs": cost_chart(results),
        "compatibility": compatibility_chart(results.cards.wins),
        "rounds": rounds_chart(results),
    }
    return render_page(
        "report.html.j2",
        charts,
        SCRIPT,
        r=results,
        c=results.cards,
        claims=claim_lines(results),
        corrected=corrected_p(results),
        p_words=p_words,
        cards=[card_of_teacher(results.cards, name) for name in teachers],
        costs_map=map_of(results.cards.wins, "teacher", "student", "mean cost", by_column=True, lower=True),
        agreement=agreement_maps(results.cards.agreement),
        **section_of(results.lineage, pages, 0, teachers),
        curves=lambda part: Markup(curves_chart(part.curves, part.title)),
        interval=lambda i: format_interval(i, results.metric),
        short=lambda i: (
            ""
            if i is None
            else (f"{100 * i.value:.0f} %" if results.metric == "accuracy" else f"{i.value:.3f}")
        ),
        families=sorted({f for a in results.arms for f in a.families}),
        lengths=_lengths(results.chosen),
        shares=_shares(results.chosen),
        shares_map=shares_map(results.chosen),
        rankings={s: (primary_table(r), places_table(r), r) for s, r in results.rankings.items()},
        quartiles=_quartiles(results.costs),
        bars=bars,
        by_family=_family_shares(results.chosen),
        ledger={
            _plural(kind): _ledger_table(results.ledger, kind) for kind in results.ledger["kind"].unique()
        },
        resolved=yaml.safe_dump(results.experiment, sort_keys=False, allow_unicode=True),
    )


def write_report(results: Results, directory: Place) -> Place:
    """Write `report.html` into a run's directory. If it would be too large, pages of lineage are written
    beside it. Returns the path of `report.html`.
    """
    place, pages = directory / "report.html", in_pages(results.lineage)
    place.write_bytes(render_report(results, pages).encode("utf-8", "replace"))
    name = str(results.experiment["name"])
    for file, html in further_pages(name, results.lineage, pages, teachers_of(results)):
        (directory / file).write_bytes(html.encode("utf-8", "replace"))
    remove_stale(directory, len(pages))
    return place


def teachers_of(results: Results) -> list[str]:
    """The names of the teachers with answers in the run, in the experiment's order."""
    return [str(name) for name in results.teachers["teacher"]] if len(results.teachers) else []


def agreement_maps(agreement: pd.DataFrame) -> dict[str, str]:
    """For each student, a table of the agreement between arms."""
    found = {}
    for student, own in agreement.groupby("student", sort=False) if len(agreement) else ():
        turned = own.rename(columns={"arm": "other arm", "other arm": "arm"})
        both = pd.concat([own, turned], ignore_index=True)
        found[str(student)] = map_of(both, "arm", "other arm", "same answer", percent=True)
    return found


def _lengths(chosen: pd.DataFrame) -> pd.DataFrame:
    """The mean length of the chosen answers for each student and arm in the last round, beside the pool's
    mean.
    """
    if not len(chosen):
        return chosen
    last = chosen[chosen["round"] == chosen["round"].max()]
    weighted = last.assign(total=last["tokens"] * last["share"])
    grouped = weighted.groupby(["student", "arm", "seed"]).agg(
        tokens=("total", "sum"), pool=("pool tokens", "first"), chosen=("chosen", "first")
    )
    mean = grouped.groupby(level=["student", "arm"]).mean().reset_index()
    return mean.rename(
        columns={"tokens": "chosen: mean tokens", "pool": "pool: mean tokens", "chosen": "answers chosen"}
    )


def _shares(chosen: pd.DataFrame) -> pd.DataFrame:
    """Each teacher's share of the chosen answers, as a mean over seeds."""
    if not len(chosen):
        return chosen
    names = ["student", "arm", "round"]
    seeds = chosen.groupby(names)["seed"].nunique()
    wide = chosen.groupby([*names, "teacher"], sort=False)["share"].sum().unstack(fill_value=0)
    return wide.div(seeds, axis=0).reset_index()


def shares_map(chosen: pd.DataFrame) -> str:
    """A shaded table of each teacher's share of the chosen answers after the last round. Teachers are in
    rows, and students with arms are in columns.
    """
    if not len(chosen):
        return ""
    last = chosen[chosen["round"] == chosen["round"].max()]
    seeds = last.groupby(["student", "arm"])["seed"].transform("nunique")
    named = last.assign(who=last["student"] + " · " + last["arm"], share=last["share"] / seeds)
    summed = named.groupby(["who", "teacher"], sort=False)["share"].sum().reset_index()
    return map_of(summed, "teacher", "who", "share", by_column=True, percent=True)


def _quartiles(costs: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of SCAS by student and teacher."""
    if not len(costs):
        return costs
    by = costs.groupby(["student", "teacher"], sort=False)["scas"]
    quantiles = by.quantile(np.array([0.05, 0.25, 0.5, 0.75, 0.95]))
    wide = quantiles.unstack()
    wide.columns = [f"{round(100 * float(q))} %" for q in wide.columns]
    return wide.reset_index()


def _family_shares(chosen: pd.DataFrame) -> pd.DataFrame:
    """Each family of teachers' share of the chosen answers in the last round. Empty if no teacher names a
    family.
    """
    if not len(chosen):
        return chosen
    last = chosen[(chosen["round"] == chosen["round"].max()) & (chosen["family"] != "")]
    if len(last) == 0:
        return pd.DataFrame()
    seeds = chosen["seed"].nunique()
    wide = last.groupby(["student", "arm", "family"])["share"].sum().div(seeds).unstack(fill_value=0)
    return wide.reset_index()


def _plural(kind: str) -> str:
    """The heading of a kind of things in the ledger.

    >>> _plural("question"), _plural("written question, first harvest")
    ('Questions', 'Written questions, first harvest')
    """
    what, comma, which = kind.partition(",")
    return f"{what.capitalize()}s{comma}{which}"


def _ledger_table(ledger: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The ledger's counts: states in rows, students and arms in columns (first seed, last round), with the
    total.
    """
    own = ledger[(ledger["kind"] == kind) & (ledger["round"] == ledger["round"].max())]
    own = own[own["path"].str.endswith("seed 0")]
    if not len(own):
        return pd.DataFrame()
    wide = own.pivot_table(index="state", columns="path", values="count", aggfunc="sum", fill_value=0)
    wide.columns = [str(c).removesuffix(" seed 0") for c in wide.columns]
    wide.loc["total"] = wide.sum()
    return wide.astype(int).reset_index()
