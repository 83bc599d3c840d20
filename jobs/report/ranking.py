"""The page of a ranking of teachers: one file that can be sent to a colleague, and its tables beside it."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.report.csv_tables import as_csv
from jobs.report.page import PALETTE, as_svg, new_figure, render_page
from jobs.results.ranking import CONTROLS, Ranking
from jobs.results.summary import finite

MOST_TEACHERS = 40  # in the chart


def write_ranking(ranking: Ranking, out: Place) -> list[Place]:
    """Write `ranking.html`, `ranking.json` and a CSV file of each table. Returns their places."""
    plain = {
        "student": ranking.student,
        "questions": ranking.questions,
        "settings": asdict(ranking.settings),
        "warnings": ranking.warnings,
        **{name: table.to_dict("records") for name, table in _tables(ranking).items()},
    }
    page = out / "ranking.html"
    page.write_bytes(render_ranking(ranking).encode("utf-8", "replace"))
    found = out / "ranking.json"
    found.write_bytes(json.dumps(finite(plain), indent=1, default=str).encode())
    places = [page, found]
    for name, table in _tables(ranking).items():
        place = out / f"{name}.csv"
        place.write_bytes(as_csv(table))
        places.append(place)
    return places


def _tables(r: Ranking) -> dict[str, pd.DataFrame]:
    return {"order": r.order, "agreement": r.agreement, "stability": r.stability, "teachers": r.teachers}


def render_ranking(ranking: Ranking) -> str:
    """The page as HTML. Names of teachers are escaped."""
    return render_page(
        "ranking.html.j2",
        {"order": order_chart(ranking)},
        r=ranking,
        primary=primary_table(ranking),
        places=places_table(ranking),
        agreement=_agreement_table(ranking),
        stability=_stability_table(ranking),
        controls=[name for name in CONTROLS if name in set(ranking.order["cost"])],
        has_families=has_families(ranking),
    )


def has_families(ranking: Ranking) -> bool:
    """Whether there are enough families of teachers to draw them again."""
    return bool(ranking.agreement["low_teachers"].notna().any())


def order_chart(ranking: Ranking) -> str:
    """How far each teacher is behind the first by the primary cost, with the interval of the paired
    difference.
    """
    own = ranking.primary.head(MOST_TEACHERS)
    figure, axis = new_figure(9, 1.0 + 0.3 * len(own))
    at = np.arange(len(own))
    spread = np.nan_to_num([own["behind"] - own["behind_low"], own["behind_high"] - own["behind"]])
    axis.errorbar(own["behind"], at, xerr=np.maximum(spread, 0), fmt="o", color=PALETTE[0], capsize=2, ms=4)
    axis.set_yticks(at, own["teacher"].tolist())
    axis.invert_yaxis()
    axis.axvline(0, color=PALETTE[1], lw=0.8)
    axis.set_xlabel(f"{ranking.settings.primary} less that of {own['teacher'].iloc[0]}, mean over questions")
    axis.grid(axis="x", color="#e6e9ed")
    axis.set_axisbelow(True)
    return as_svg(figure, "How far teachers are behind the first, with intervals")


def _range(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"{low:.3g} to {high:.3g}"


def _share(share: float) -> str:
    return "" if np.isnan(share) else f"{share:.0%}"


def primary_table(r: Ranking) -> pd.DataFrame:
    """The order of the primary cost, in words."""
    about, rows = r.teachers.set_index("teacher"), []
    for _, own in r.primary.iterrows():
        known = about.loc[own["teacher"]]
        needed = own["questions_to_tell"]
        rows.append(
            {
                "place": int(own["place"]),
                "teacher": own["teacher"],
                "family": f"{known['family']}{' (the student’s)' if known['is_students_family'] else ''}",
                "mean": f"{own['mean']:.4g}",
                "95 %": _range(own["low"], own["high"]),
                "first in": _share(own["is_first"]),
                "behind the first": f"{own['behind']:.3g}",
                "95 % of that": "" if own["place"] == 1 else _range(own["behind_low"], own["behind_high"]),
                "told from it": "" if own["place"] == 1 else "yes" if own["told"] else "no",
                "questions to tell": ""
                if np.isnan(needed)
                else "∞"
                if np.isinf(needed)
                else f"{needed:,.0f}",
                "place at equal length": "" if np.isnan(own["even_place"]) else str(int(own["even_place"])),
                "tokens": f"{known['tokens']:,.0f}",
                "right": "" if np.isnan(known["right"]) else f"{known['right']:.0%}",
            }
        )
    table = pd.DataFrame(rows)
    table = table if (table["right"] != "").any() else table.drop(columns="right")
    return table if r.settings.families else table.drop(columns="family")


def places_table(r: Ranking) -> pd.DataFrame:
    """Each teacher's place by every cost, in the order of the primary one."""
    wide = r.order.pivot(index="teacher", columns="cost", values="place")
    wide = wide.loc[r.primary["teacher"], list(dict.fromkeys(r.order["cost"]))]
    return wide.reset_index().rename_axis(columns=None)


def _agreement_table(r: Ranking) -> pd.DataFrame:
    rows = []
    for _, own in r.agreement.iterrows():
        if r.settings.primary not in (own["cost"], own["with"]):
            continue
        other = own["with"] if own["cost"] == r.settings.primary else own["cost"]
        row = {"with": other, "tau": "" if np.isnan(own["tau"]) else f"{own['tau']:+.2f}"}
        row["95 %, these teachers"] = _range(own["low"], own["high"])
        if has_families(r):
            row["95 %, families drawn too"] = _range(own["low_teachers"], own["high_teachers"])
        rows.append(row)
    return pd.DataFrame(rows)


def _stability_table(r: Ranking) -> pd.DataFrame:
    own = r.stability[r.stability["cost"] == r.settings.primary]
    return pd.DataFrame(
        {
            "questions": own["questions"],
            "order": own["order"],
            "whole order again": [f"{x:.0%}" for x in own["repeats"]],
            "same first": [_share(x) for x in own["first_repeats"]],
            "tau with all questions": [f"{x:+.2f}" for x in own["tau"]],
        }
    )
