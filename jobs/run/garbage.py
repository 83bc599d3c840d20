"""What may be removed of a store: whatever no registered run names and nobody has touched for a while.

A run names its stages and views when it comes to them (`jobs/run/registry.py`); a view names parts of a
table, and an evaluation the views that it was read off. A view that was named and is not finished keeps the
whole table that it was being made in, a training that is not finished all checkpoints.
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
SKEW_S = 3600.0  # by which the clocks of a cluster's machines may differ
CHECKPOINTS, LOCKS = "checkpoints", "locks"
PARTS = "parts of tables"


@dataclass(frozen=True)
class Item:
    """Something that nobody needs.

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
    """What registered runs need: stages and views by path, parts by path, whole tables by path."""

    names: frozenset[str]
    parts: frozenset[str]
    tables: frozenset[str]
    checkpoints: bool


@dataclass(frozen=True)
class Garbage:
    """What may be removed.

    Attributes:
        runs: directories of the runs that are registered.
        spared: what nobody names either and is too young.
        undated: what nobody names and is dated in the future, so that nobody knows how old it is; spared.
    """

    runs: Sequence[str]
    items: list[Item] = field(default_factory=list)
    spared: list[Item] = field(default_factory=list)
    undated: list[Item] = field(default_factory=list)


def find_garbage(root: Place, days: float, forget: Collection[str] = ()) -> Garbage:
    """What no registered run names and nobody has written to for some days.

    Args:
        days: of none everything goes, also what is dated in the future.
        forget: directories of runs that count no longer.

    Raises:
        BadInput: no run is registered there, so it may be no store at all; a registration or a manifest is
            damaged; or that is no number of days.
    """
    if not days >= 0:
        raise BadInput("--days is out of range", days, "0 or more", "")
    found = Garbage(sorted({r["directory"] for r in registrations(root).values()}))
    if not found.runs:
        raise BadInput(
            "no run is registered there",
            root,
            "a store that runs of this version have used",
            "a store of an older version is of no use to this one: remove it whole",
        )
    now = time.time()
    latest = now - days * DAY_S if days else math.inf
    for item in _unneeded(root, needed(root, names_of(root, forget))):
        kept = found.undated if item.newest > now + SKEW_S else found.spared
        (kept if item.newest > latest else found.items).append(item)
    return found


def remove_garbage(root: Place, items: Collection[Item], forget: Collection[str] = ()) -> list[Item]:
    """Remove these, but what a run holds or has named meanwhile; returns what was removed."""
    for place, content in registrations(root).items():
        if content["directory"] in forget:
            place.unlink()
    removed, look = [], _Look(root)
    for lock, group in groupby(items, key=lambda item: item.lock):
        with _guarded(root, lock) as free:
            if not free:
                continue
            for number, item in enumerate(group):
                if number == 0 and item.kind == PARTS:  # now that its table is held, look at views anew
                    look.forget()
                if _is_needed(item.paths[0], look.needed()):
                    continue
                for path in item.paths:
                    _remove(root / path)
                removed.append(item)
    return removed


class _Look:
    """What is needed, looked up again whenever a run has named something else."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self._known: tuple[frozenset[str], Needed] | None = None

    def forget(self) -> None:
        """A view may have been finished since."""
        self._known = None

    def needed(self) -> Needed:
        names = names_of(self.root)
        if self._known is None or self._known[0] != names:
            self._known = names, needed(self.root, names)
        return self._known[1]


def names_of(root: Place, forget: Collection[str] = ()) -> frozenset[str]:
    """What registered runs name: stages and views by path."""
    known = [r for r in registrations(root).values() if r["directory"] not in forget]
    return frozenset(name for r in known for name in r["names"])


def needed(root: Place, names: frozenset[str]) -> Needed:
    """What follows from names: an evaluation's views, a view's parts, an unfinished view's table."""
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
        else:  # its run has not come to cutting it: any of the tables that runs name may be its own
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
    """All that is there and not needed: what is not named as stages, views and tables are is left alone."""
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
    """A table's parts that nobody needs; the table itself where that is all of them."""
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
    """Hold what a lock guards against runs, if none holds it; an object store has no locks."""
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
    """What a stage's manifest says; nothing of one that is not finished.

    Raises:
        BadInput: it cannot be read, so nobody knows what the stage was made from.
    """
    try:
        return read_parts(place)
    except FileNotFoundError:
        return {}
    except Damaged as error:
        what = "a manifest is damaged, so nobody knows what its stage uses"
        raise BadInput(what, f"{place}: {error}", "JSON", "run its experiment again, or remove it") from error
