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
from jobs.run.records import record_or_nothing

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
    return {"attempts": 0, "deaths": {}, "at": None} | record_or_nothing(note)


def run_isolated(
    directory: Place,
    part: str,
    rows: Sequence[R],
    identity: Callable[[int], str],
    run: Callable[[Sequence[R]], pd.DataFrame],
    give_up: Callable[[R, str], pd.DataFrame],
) -> pd.DataFrame:
    """The table of a shard's rows, in their order.

    Args:
        identity: the id of the row at a place.
        run: computes some rows; its table has one row for each, in order.
        give_up: the one-row table of a row that is set aside, with the reason.
    """
    note = directory / f".{part}.attempts.tmp"
    record = _read(note)
    if record["at"] is not None:
        record["deaths"][record["at"]] = record["deaths"].get(record["at"], 0) + 1
    record |= {"attempts": record["attempts"] + 1, "at": None}
    note.write_bytes(json.dumps(record).encode())
    deadly = {k: n for k, n in _deaths(record, rows, identity).items() if n >= DEATHS_ALLOWED}
    good = [k for k in range(len(rows)) if k not in deadly]
    tables = [give_up(rows[k], f"its worker died on it {n} times") for k, n in deadly.items()]
    if record["attempts"] <= WHOLE_ATTEMPTS:
        tables += [run(rows if not deadly else [rows[k] for k in good])] if good else []
    else:
        for k in good:
            note.write_bytes(json.dumps(record | {"at": identity(k)}).encode())
            tables.append(run([rows[k]]))
    places = [*deadly, *good]
    table = (
        pd.concat(tables, ignore_index=True).set_index(pd.Index(places)).sort_index()
        if len(tables) > 1
        else tables[0]
    )
    note.unlink()
    return table


def _deaths(record: dict[str, Any], rows: Sequence[R], identity: Callable[[int], str]) -> dict[int, int]:
    """How many workers died on each of these rows, by place, where any did."""
    known: dict[str, int] = record["deaths"]
    found = {k: known.get(identity(k), 0) for k in range(len(rows))} if known else {}
    return {k: deaths for k, deaths in found.items() if deaths}
