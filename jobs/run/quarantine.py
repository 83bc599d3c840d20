"""Rows that kill their worker. They are found by running a shard row by row after its worker has died twice,
and set aside with their reason.

An exception belongs to one row and is caught where the row is computed. A crash ends the whole process. So
each attempt leaves a note in the table's directory before it starts. The first two attempts compute all rows
in one call, so that the part has the same bytes as without a crash. Later attempts run it row by row, and
note
each row before they compute it. A row on which two workers died is not tried again.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pandas as pd

from cluster.storage import Place
from jobs.run.records import record_or_nothing

WHOLE_ATTEMPTS = 2
DEATHS_ALLOWED = 2
# How often the workers of one shard may die: two whole attempts, then two for each of two rows that kill.
SHARD_DEATHS = WHOLE_ATTEMPTS + 2 * DEATHS_ALLOWED
R = TypeVar("R")


def forget_attempts(directory: Place) -> None:
    """Reset the attempts that an earlier run counted: they may have ended because its driver was stopped.
    Rows that were found to kill their worker stay known.
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
    """Compute the table of a shard's rows, in their order.

    Args:
        identity: the id of the row at an index.
        run: computes some rows. Its table has one row for each, in the same order.
        give_up: makes the one-row table of a row that is set aside, from the row and the reason.
    """
    note = directory / f".{part}.attempts.tmp"
    record = _read(note)
    if record["at"] is not None:
        record["deaths"][record["at"]] = record["deaths"].get(record["at"], 0) + 1
    record |= {"attempts": record["attempts"] + 1, "at": None}
    note.write_bytes(json.dumps(record).encode())
    deadly = {k: n for k, n in _deaths(record, rows, identity).items() if n >= DEATHS_ALLOWED}
    good = [k for k in range(len(rows)) if k not in deadly]
    tables = [
        give_up(rows[k], f"the worker died {n} times while it computed this row") for k, n in deadly.items()
    ]
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
    """How many workers died on each of these rows, by index. Rows on which none died are left out."""
    known: dict[str, int] = record["deaths"]
    found = {k: known.get(identity(k), 0) for k in range(len(rows))} if known else {}
    return {k: deaths for k, deaths in found.items() if deaths}
