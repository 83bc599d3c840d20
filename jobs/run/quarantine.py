"""Rows that kill their worker: found by running a shard row by row after it has died twice, and set aside
with their reason.

An exception belongs to a row and is caught where the row is computed. A crash takes the whole process along,
so each attempt leaves a note in the stage's directory before it starts; the first two attempts run the shard
as it is, whose bytes must not change because a machine went away, and later ones row by row, noting which. A
row that its worker died on twice is not tried again.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pandas as pd

from cluster.storage import Place

WHOLE_ATTEMPTS = 2
DEATHS_ALLOWED = 2
# Deaths of one shard that the pool allows: two whole attempts, then two for each of two poisonous rows.
SHARD_DEATHS = WHOLE_ATTEMPTS + 2 * DEATHS_ALLOWED
R = TypeVar("R")


def forget_attempts(directory: Place) -> None:
    """Start the count of an earlier run's attempts anew: that its driver was stopped says nothing. Rows found
    to kill stay known.
    """
    for note in directory.glob(".*.attempts.tmp"):
        known = {row: deaths for row, deaths in _read(note)["deaths"].items() if deaths >= DEATHS_ALLOWED}
        if known:
            note.write_bytes(json.dumps({"attempts": 0, "deaths": known, "at": None}).encode())
        else:
            note.unlink()


def _read(note: Place) -> dict[str, Any]:
    try:
        return dict(json.loads(note.read_text()))
    except (FileNotFoundError, ValueError):
        return {"attempts": 0, "deaths": {}, "at": None}


def run_isolated(
    directory: Place,
    part: str,
    rows: Sequence[R],
    identity: Callable[[R], str],
    run: Callable[[Sequence[R]], pd.DataFrame],
    give_up: Callable[[R, str], pd.DataFrame],
) -> pd.DataFrame:
    """The table of a shard's rows, in their order.

    Args:
        identity: a row's id.
        run: computes some rows; its table has one row for each, in order.
        give_up: the one-row table of a row that is set aside, with the reason.
    """
    note = directory / f".{part}.attempts.tmp"
    record = _read(note)
    if record["at"] is not None:
        record["deaths"][record["at"]] = record["deaths"].get(record["at"], 0) + 1
    record |= {"attempts": record["attempts"] + 1, "at": None}
    note.write_bytes(json.dumps(record).encode())
    deaths = [record["deaths"].get(identity(row), 0) for row in rows]
    good = [row for row, count in zip(rows, deaths, strict=True) if count < DEATHS_ALLOWED]
    tables = [
        give_up(r, f"its worker died on it {n} times")
        for r, n in zip(rows, deaths, strict=True)
        if n >= DEATHS_ALLOWED
    ]
    if record["attempts"] <= WHOLE_ATTEMPTS:
        tables += [run(good)] if good else []
    else:
        for row in good:
            note.write_bytes(json.dumps(record | {"at": identity(row)}).encode())
            tables.append(run([row]))
    places = [k for k, n in enumerate(deaths) if n >= DEATHS_ALLOWED] + [
        k for k, n in enumerate(deaths) if n < DEATHS_ALLOWED
    ]
    table = (
        pd.concat(tables, ignore_index=True).set_index(pd.Index(places)).sort_index()
        if len(tables) > 1
        else tables[0]
    )
    note.unlink()
    return table
