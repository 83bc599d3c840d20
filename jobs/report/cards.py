"""Cards about teachers, and tables whose cells are shaded by value."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from jobs.results.cards import Cards

DARKEST = 60  # percent of the accent colour, behind the largest value


def card_of_teacher(cards: Cards, teacher: str) -> dict[str, Any]:
    """The content of one teacher's card: its shares of right answers, the students that it suits, and what
    would be lost without it.
    """

    def own(table: pd.DataFrame) -> dict[str, float]:
        row = table[table["teacher"] == teacher].drop(columns="teacher")
        return {str(name): float(value) for one in row.to_dict("records") for name, value in one.items()}

    def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
        found = table[table["teacher"] == teacher] if len(table) else table
        return [{str(k): v for k, v in row.items()} for row in found.to_dict("records")]

    return {
        "name": teacher,
        "rights": {
            "task": own(cards.by_task),
            "how many others are right": own(cards.by_hardness),
            "length of the question": own(cards.by_length),
        },
        "wins": rows(cards.wins),
        "without": rows(cards.without),
    }


def map_of(
    table: pd.DataFrame,
    rows: str,
    columns: str,
    value: str,
    by_column: bool = False,
    lower: bool = False,
    percent: bool = False,
) -> str:
    """Arrange one value as a table with one name in rows and another in columns. A cell's shade follows from
    its rank among all cells, or within its column.

    Args:
        lower: whether the lowest value gets the darkest shade.
    """
    if not len(table):
        return Markup("<p class='soft'>nothing</p>")
    names = list(dict.fromkeys(table[rows]))
    across = names if set(table[columns]) == set(names) else list(dict.fromkeys(table[columns]))
    wide = table.groupby([rows, columns], sort=False)[value].mean().unstack()
    wide = wide.reindex(index=names, columns=across)
    numbers = wide.to_numpy(float)
    shades = (
        np.apply_along_axis(_ranks, 0, numbers)
        if by_column
        else _ranks(numbers.ravel()).reshape(numbers.shape)
    )
    shades = 1 - shades if lower else shades
    head = "".join(f"<th class=n>{escape(c)}</th>" for c in wide.columns)
    body = []
    for name, values, own in zip(wide.index, numbers, shades, strict=True):
        cells = "".join(_cell(v, s, percent) for v, s in zip(values, own, strict=True))
        body.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return Markup(f"<div class=wide><table class=map><tr><th></th>{head}</tr>{''.join(body)}</table></div>")


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each finite value, scaled to 0 to 1."""
    known = np.sort(values[np.isfinite(values)])
    if len(known) < 2:
        return np.zeros(len(values))
    return np.clip(np.searchsorted(known, values) / (len(known) - 1), 0, 1)  # type: ignore[no-any-return]


def _cell(value: float, shade: float, percent: bool) -> str:
    if not np.isfinite(value):
        return "<td class=n>–</td>"
    text = f"{100 * value:.0f} %" if percent else f"{value:,.4g}"
    return f'<td class=n style="--shade:{DARKEST * shade:.0f}%">{text}</td>'


def bars(shares: Mapping[str, float]) -> Iterable[tuple[str, str, float]]:
    """For each share its name, its text and the width of its bar. A share that is not known has no bar."""
    for name, share in shares.items():
        known = isinstance(share, float) and np.isfinite(share)
        yield name, f"{100 * share:.0f} %" if known else "–", 100 * share if known else 0.0
