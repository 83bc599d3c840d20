"""Garbage collection of a store: finds and removes what no registered run names and nothing has written to
for a while.

A run names its stages and views when it comes to them (`jobs/run/registry.py`). A view names parts of a
table. An evaluation names the views that it was read off. If a run named a view that is not finished, the
whole table of that view is kept. If it named a training that is not finished, all checkpoints are kept.
"""

import math
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from cluster.errors import BadInput
from cluster.locks import held_if_free
from cluster.storage import Place
from jobs.run.records import Damaged, read_parts, record_or_nothing
from jobs.run.registry import RUNS, registrations
from jobs.run.rows import JOURNAL
from jobs.run.store import MANIFEST
from jobs.run.tables import TABLES, VIEW
from jobs.run.views import CUT, VIEWS

OURS = re.compile(r"[0-9a-f]{24}|queue-[0-9a-f]{16}.*")  # a stage's id, a queue of trainings
DAY_S = 86400.0
SKEW_S = 3600.0  # how far the clocks of a cluster's machines may differ
CHECKPOINTS, LOCKS = "checkpoints", "locks"
PARTS = "parts of tables"


@dataclass(frozen=True)
class Item:
    """Something in the store that no registered run needs.

    Attributes:
        kind: for people: the stage's name, views, parts of tables, or checkpoints.
        paths: in the store; a part of a table is two files.
        newest: when the last of it was written, in seconds since 1970.
        lock: the name of the lock that guards it; empty for none.
    """

    kind: str
    paths: tuple[str, ...]
    size: int
    newest: float
    lock: str = ""


@dataclass(frozen=True)
class Needed:
    """Everything that registered runs need, by path: stages and views, parts, whole tables."""

    names: frozenset[str]
    parts: frozenset[str]
    tables: frozenset[str]
    checkpoints: bool


@dataclass(frozen=True)
class Garbage:
    """What may be removed.

    Attributes:
        runs: directories of the runs that are registered.
        spared: what no run names, kept because it is too young.
        undated: what no run names and is dated in the future. Its age is unknown, so it is kept.
    """

    runs: Sequence[str]
    items: list[Item] = field(default_factory=list)
    spared: list[Item] = field(default_factory=list)
    undated: list[Item] = field(default_factory=list)


def find_garbage(root: Place, days: float, forget: Collection[str] = ()) -> Garbage:
    """Find what no registered run names and nothing has written to for some days.

    Args:
        days: the least age. 0 finds everything, also what is dated in the future.
        forget: directories of runs that no longer count as registered.

    Raises:
        BadInput: no run is registered there, so it may be no store at all; a registration or a manifest is
            damaged; or `days` is negative.
    """
    if not days >= 0:
        raise BadInput("--days is out of range", days, "0 or more", "")
    found = Garbage(sorted({r["directory"] for r in registrations(root).values()}))
    if not found.runs:
        raise BadInput(
            "no run is registered there",
            root,
            "a store that runs of this version have used",
            "check the path; a store of an older version cannot be used, and has to be removed by hand",
        )
    now = time.time()
    latest = now - days * DAY_S if days else math.inf
    for item in _unneeded(root, needed(root, names_of(root, forget))):
        kept = found.undated if item.newest > now + SKEW_S else found.spared
        (kept if item.newest > latest else found.items).append(item)
    return found


def remove_garbage(root: Place, items: Collection[Item], forget: Collection[str] = ()) -> list[Item]:
    """Remove the registrations of the runs in `forget`. Then remove these items, except those that a run
    holds or has named meanwhile. Return what was removed.
    """
    for place, content in registrations(root).items():
        if content["directory"] in forget:
            place.unlink()
    removed, look = [], _Look(root)
    for lock, group in groupby(items, key=lambda item: item.lock):
        with _guarded(root, lock) as free:
            if not free:
                continue
            for number, item in enumerate(group):
                if number == 0 and item.kind == PARTS:  # its table is held now, so read the views again
                    look.forget()
                if _is_needed(item.paths[0], look.needed()):
                    continue
                for path in item.paths:
                    _remove(root / path)
                removed.append(item)
    return removed


class _Look:
    """What is needed. It is looked up again whenever a run has named something new."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self._known: tuple[frozenset[str], Needed] | None = None

    def forget(self) -> None:
        """Look up everything again: a view may have been finished since."""
        self._known = None

    def needed(self) -> Needed:
        names = names_of(self.root)
        if self._known is None or self._known[0] != names:
            self._known = names, needed(self.root, names)
        return self._known[1]


def names_of(root: Place, forget: Collection[str] = ()) -> frozenset[str]:
    """The paths of stages and views that registered runs name."""
    known = [r for r in registrations(root).values() if r["directory"] not in forget]
    return frozenset(name for r in known for name in r["names"])


def needed(root: Place, names: frozenset[str]) -> Needed:
    """Everything that is needed because of these names: an evaluation's views, a view's parts, an unfinished
    view's table.
    """
    views, uses, parts, tables = set(), set(), set(), set()
    has_open_training = False
    for name in names:
        if name.startswith((f"{VIEWS}/", f"{TABLES}/")):
            views |= {name} if name.startswith(VIEWS) else set()
            continue
        manifest = _manifest(root / name / MANIFEST)
        uses |= set(manifest.get("uses", ()))
        has_open_training |= name.startswith(("train/", "miniature/")) and not manifest
    for name in views | uses:
        kind, view = name.split("/")[1], record_or_nothing(root / name / VIEW)
        owner, own = view.get("owner"), view.get("parts")
        if isinstance(owner, dict) and isinstance(own, dict) and "id" in owner:
            parts |= {f"{TABLES}/{kind}/{owner['id']}/{part}" for part in own}
        elif cut := record_or_nothing(root / name / CUT).get("owner"):
            tables.add(f"{TABLES}/{kind}/{cut}")
        else:  # without a cut its table is unknown: keep all tables of this kind that are named
            tables |= {table for table in names if table.startswith(f"{TABLES}/{kind}/")}
    return Needed(names | frozenset(uses), frozenset(parts), frozenset(tables), has_open_training)


def _is_needed(path: str, still: Needed) -> bool:
    if path.startswith(CHECKPOINTS):
        return still.checkpoints
    if not path.startswith(TABLES):
        return path in still.names
    if not path.endswith(".parquet"):  # a whole table
        return path in still.tables or any(part.startswith(f"{path}/") for part in still.parts)
    return path.removesuffix(".parquet") in still.parts or path.rpartition("/")[0] in still.tables


def _unneeded(root: Place, still: Needed) -> Iterator[Item]:
    """Everything in the store that is not needed. Among stages, files with other names are left alone."""
    for kind in root.glob("*"):
        if kind.name in (RUNS, LOCKS, TABLES, VIEWS) or kind.is_file():
            continue
        for place in kind.glob("*"):
            path = f"{kind.name}/{place.name}"
            is_ours = OURS.fullmatch(place.name)
            if is_ours and not _is_needed(path, still):
                yield Item(kind.name, (path,), *place.usage(), f"{kind.name}-{place.name}")
    for kind in (root / VIEWS).glob("*"):
        for place in kind.glob("*"):
            path = f"{VIEWS}/{kind.name}/{place.name}"
            if not _is_needed(path, still):
                yield Item(VIEWS, (path,), *place.usage())
    for kind in (root / TABLES).glob("*"):
        for table in kind.glob("*"):
            yield from _unneeded_parts(table, f"{TABLES}/{kind.name}/{table.name}", still)


def _unneeded_parts(table: Place, path: str, still: Needed) -> Iterator[Item]:
    """The parts of a table that nothing needs. If nothing needs any of them, the table itself."""
    lock = f"{path.split('/')[1]}-{table.name}"
    places = table.glob("*.parquet")
    unneeded = [place for place in places if not _is_needed(f"{path}/{place.name}", still)]
    if len(unneeded) == len(places) and not (table / JOURNAL).exists() and path not in still.tables:
        yield Item(PARTS, (path,), *table.usage(), lock)
        return
    for place in unneeded:
        about = place.name.removesuffix(".parquet") + ".json"
        yield Item(PARTS, (f"{path}/{place.name}", f"{path}/{about}"), *place.usage(), lock)


@contextmanager
def _guarded(root: Place, lock: str) -> Iterator[bool]:
    """Take a lock if it is free. Yields whether the block may remove things. That is always true without a
    lock: on an object store, which has none, or if no name is given.
    """
    if not lock or not root.is_local:
        yield True
        return
    with held_if_free((root / LOCKS / lock).path) as free:
        yield free


def _remove(place: Place) -> None:
    if place.is_file():
        place.unlink()
    else:
        place.remove()


def _manifest(place: Place) -> dict[str, Any]:
    """Read a stage's manifest. Empty if the stage is not finished.

    Raises:
        BadInput: it cannot be read, so it is unknown what the stage was made from.
    """
    try:
        return read_parts(place)
    except FileNotFoundError:
        return {}
    except Damaged as error:
        what = "a manifest is damaged, so it is unknown what its stage uses"
        raise BadInput(what, f"{place}: {error}", "JSON", "run its experiment again, or remove it") from error
