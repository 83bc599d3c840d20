"""A study's files: tables as CSV, pictures of gains or of differences between arms, and a page of both."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cluster.storage import Place
from jobs.experiment.study import Study
from jobs.report.csv_tables import as_csv, read_csv
from jobs.report.page import PALETTE, as_svg, new_figure, render_page
from jobs.results.values import as_parquet
from jobs.run.store import digest
from jobs.study.running import Found
from jobs.study.summary import best_teachers, by_setting, study_lines
from jobs.study.tables import Tables

# Columns of texts; all others hold numbers.
TEXTS = ["part", "setting", "student", "arm", "family", "against", "verdict", "called"]
TEXTS += ["teacher", "cost", "feature", "lineage", "note"]
FLAGS = ["is_strongest"]  # true or false
VALUES, PARQUET = "questions", ".parquet"  # the one table that is too long for CSV
SHOWN_ROWS = 400  # of a table on the page; the files have all


def write_study(found: Found, directory: Place) -> list[Place]:
    """Write a study's tables, pictures and page. Returns the paths, the page first.

    Every part has its own files, `<part>-<table>.csv`. Files of parts that were run earlier are not changed,
    and the page shows them too.
    """
    places = []
    pictures: dict[str, str] = {}
    own = set(found.tables)
    found, others = with_earlier(found, directory)
    for part, tables in found.tables.items():
        for name, table in tables.named().items() if part in own else ():
            place = file_of(directory, part, name)
            if len(table):
                place.write_bytes(as_parquet(table) if name == VALUES else as_csv(table))
                places.append(place)
            elif place.is_file():  # of an earlier run, in which the table was not empty
                place.unlink()
        if part in own:
            about_of(directory, part).write_bytes(definition_of(found.study, part).encode())
        for name, svg in pictures_of(tables).items():
            pictures[f"{part} {name}"] = svg
            place = directory / f"{part}-{name}.svg"
            place.write_bytes(standing_alone(svg).encode())
            places.append(place)
    if len(found.world):
        place = directory / "world.csv"
        place.write_bytes(as_csv(found.world))
        places.append(place)
    page = directory / "study.html"
    page.write_bytes(render_study(found, pictures, others).encode("utf-8", "replace"))
    return [page, *places]


def with_earlier(found: Found, directory: Place) -> tuple[Found, list[str]]:
    """Add the parts that an earlier run left in this directory and that were not run this time. Returns also
    the parts whose files another study left here, or another definition of the part. They are not added.
    """
    tables, others = {}, list[str]()
    for part in found.study.parts:
        if part in found.tables:
            tables[part] = found.tables[part]
            continue
        about = about_of(directory, part)  # earlier versions wrote none
        if about.is_file() and about.read_bytes().decode() != definition_of(found.study, part):
            others.append(part)
            continue
        read = {name: _earlier(file_of(directory, part, name)) for name in Tables().named()}
        if len(read["values"]):
            tables[part] = Tables(**read, metric=metric_of(found.study, part))
    return replace(found, tables=tables), others


def about_of(directory: Place, part: str) -> Place:
    """The file that says by which definition a part's files were made."""
    return directory / f"{part}-made-from.txt"


def definition_of(study: Study, part: str) -> str:
    """A digest of what a part's results follow from: the study's name and experiment, and the part. Where
    work is done and stored is not among it, nor is what the part is said to be about.
    """
    elsewhere = ("store", "runs", "keep", "ray", "placement")
    experiment = {k: v for k, v in study.experiment.items() if k not in elsewhere}
    return digest([study.name, experiment, study.parts[part].model_dump(mode="json", exclude={"about"})])


def metric_of(study: Study, part: str) -> str:
    """The metric that a part's students are evaluated by."""
    shared = (study.experiment.get("evaluate") or {}).get("metric", "accuracy")
    return str(study.parts[part].set.get("evaluate.metric", shared))


def _earlier(place: Place) -> pd.DataFrame:
    if not place.is_file():
        return pd.DataFrame()
    if place.name.endswith(PARQUET):
        return pd.read_parquet(io.BytesIO(place.read_bytes()))
    table = read_csv(place.read_bytes())
    for column in table.columns.difference([*TEXTS, *FLAGS]):  # a name may be `7` or `NA`
        table[column] = pd.to_numeric(table[column])
    return table.assign(**{c: table[c] == "True" for c in FLAGS if c in table})


def file_of(directory: Place, part: str, table: str) -> Place:
    """The file that holds a part's table."""
    return directory / f"{part}-{table}{PARQUET if table == VALUES else '.csv'}"


def standing_alone(svg: str) -> str:
    """A chart as an SVG file of its own. The background is white, because the page around it may be dark."""
    svg = (
        svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
        if "xlink" in svg and ("xmlns:xlink" not in svg)
        else svg
    )
    return svg.replace("<svg ", '<svg style="background:#fff" ', 1)


def render_study(found: Found, pictures: dict[str, str], others: Sequence[str] = ()) -> str:
    """Render the study as one HTML page.

    Args:
        others: parts that are left out, because other definitions made their files.
    """
    left_out = [f"part {name} is left out: its files here were made by another definition" for name in others]
    return render_page(
        "study.html.j2",
        pictures,
        name=found.study.name,
        parts=found.study.parts,
        tables=found.tables,
        best={n: best_teachers(t) for n, t in found.tables.items() if len(t.pairs)},
        pictures=pictures,
        lines=[*study_lines(found), *left_out],
        world=found.world,
        most=SHOWN_ROWS,
        resolved=yaml.safe_dump(found.study.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def pictures_of(tables: Tables) -> dict[str, str]:
    """The pictures of one part, by name."""
    found = {}
    if len(tables.pairs):
        found["gains"] = gains_picture(by_setting(tables.pairs), *tables.unit)
    arms = (
        tables.comparisons[~tables.comparisons["arm"].str.startswith("only ")]
        if len(tables.comparisons)
        else pd.DataFrame()
    )
    if len(arms) > 1:
        found["differences"] = differences_picture(arms, *tables.unit)
    return found


def gains_picture(pairs: pd.DataFrame, scale: float, unit: str) -> str:
    """A chart of each student's gain from each teacher, with teachers from the weakest to the strongest. A
    ring marks the strongest teacher. A filled mark shows the greatest gain.
    """
    import matplotlib

    accuracy = pairs.groupby("teacher")["teacher accuracy"].mean()
    # of equally strong ones the first by name is the strongest, as for the rule `strongest`
    order = sorted(sorted(accuracy.index, reverse=True), key=lambda t: accuracy[t])
    students = list(dict.fromkeys(pairs["student"]))
    gain = scale * pairs.pivot_table(index="student", columns="teacher", values="gain").loc[students, order]
    figure, axis = new_figure(10.5, 2.6 + 0.42 * len(students))
    most = float(np.nanmax(np.abs(gain.to_numpy()))) or 1.0
    colours = matplotlib.colormaps["RdBu"]
    axis.imshow(gain, cmap=colours, vmin=-most, vmax=most, aspect="auto")
    for y, student in enumerate(students):
        best = int(np.nanargmax(gain.loc[student].to_numpy()))
        for x, value in enumerate(gain.loc[student]):
            if np.isfinite(value):
                dark = abs(value) > 0.6 * most
                weight = "bold" if x == best else "normal"
                colour = "white" if dark else "#1d2430"
                axis.text(
                    x,
                    y,
                    f"{value:+.0f}" if scale > 1 else f"{value:+.2f}",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=7.5,
                    weight=weight,
                )
        axis.add_patch(_box(best, y, "#1d2430", "-"))
        axis.add_patch(_box(int(np.flatnonzero(np.isfinite(gain.loc[student]))[-1]), y, "#1d2430", ":"))
    labels = [f"{t} ({100 * accuracy[t]:.0f} %)" for t in order]
    axis.set_xticks(range(len(order)), labels, rotation=90, fontsize=8)
    axis.set_yticks(range(len(students)), students, fontsize=9)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_title(
        f"{unit} that each teacher gave each student; teachers by their own accuracy\n"
        "boxed: who gave most; dotted: the strongest teacher",
        fontsize=9,
        loc="left",
    )
    return as_svg(figure, f"What every teacher gave every student, in {unit}")


def _box(x: int, y: int, colour: str, style: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=colour, lw=1.4, linestyle=style)


def differences_picture(comparisons: pd.DataFrame, scale: float, unit: str) -> str:
    """A chart of the differences between each arm and the arms that it is compared with. Each student is a
    point with its interval, filled if the difference is called.
    """
    settings = comparisons["setting"].nunique() > 1
    names = ["arm", "against", *(["setting"] if settings else [])]
    groups = list(comparisons.groupby(names, sort=False))
    students = list(dict.fromkeys(comparisons["student"]))
    step = 0.8 / max(1, len(students))
    figure, axis = new_figure(9.5, 1.0 + len(groups) * max(0.34, 0.11 * len(students)))
    labels = []
    for row, (key, own) in enumerate(groups):
        arm, against, *setting = key
        labels.append(f"{arm} − {against}" + (f" [{setting[0]}]" if setting else ""))
        for _, c in own.iterrows():
            place = students.index(c["student"])
            y = row + step * (place - (len(students) - 1) / 2)
            spread = [[scale * (c["difference"] - c["low"])], [scale * (c["high"] - c["difference"])]]
            filled = PALETTE[place % len(PALETTE)] if c["called"] != "cannot tell" else "white"
            axis.errorbar(
                scale * c["difference"],
                y,
                xerr=spread,
                fmt="o",
                ms=3.5,
                lw=0.8,
                color=PALETTE[place % len(PALETTE)],
                markerfacecolor=filled,
                label=c["student"] if row == 0 and len(students) <= 10 else None,
            )
    axis.axvline(0, color="#5d6878", lw=1)
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"difference in {unit}, 95 % interval; filled: called after correction")
    axis.grid(axis="x", color="#e6e9ed")
    axis.set_axisbelow(True)
    if len(students) <= 10:
        axis.legend(ncols=3, fontsize=7.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return as_svg(figure, "Differences of arms, by student, with 95 % intervals")
