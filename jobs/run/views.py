"""Views: the rows of a table that a run uses for a request, and the ranges in which missing rows are made.

```
views/<kind>/<id>/        cut.json: the ranges that are being made, used again by a restart
                          view.json: which parts hold what a run asked for; written last
```

A view does not change when other runs add rows to the table later.
"""

import bisect
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.run.provenance import git_commit, package_versions
from jobs.run.records import Damaged, is_torn, read_parts, record_or_nothing, take_away
from jobs.run.store import digest, read_fallbacks
from jobs.run.tables import ANY_ROW, KEY, VIEW, Request, SlicedRequest, Table, Wanted

Ranges = Sequence[tuple[bytes, bytes]]
VIEWS, CUT = "views", "cut.json"


def manifest_of(directory: Place) -> dict[str, Any]:
    """Read the record of a finished view.

    Raises:
        BadInput: it is damaged.
    """
    try:
        return read_parts(directory / VIEW)
    except Damaged as error:
        what = f"the view {directory / VIEW} is damaged"
        raise BadInput(what, error, "", "remove it and run again: its rows are used again") from error


@dataclass(frozen=True)
class Finished:
    """A finished view, from which workers read the rows of any keys."""

    table: Table
    wanted: Wanted
    directory: Place

    def rows(self, keys: Iterable[bytes], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows with these keys, sorted by key: all columns, or the key and those named."""
        parts = manifest_of(self.directory)["parts"]
        return View(self.table, Request(dict.fromkeys(keys)), self.wanted).read_from(parts, columns)


@dataclass(frozen=True)
class View:
    """The rows of a table that a run uses for a request. A sliced view is processed slice by slice
    (`jobs/run/sliced_views.py`).
    """

    table: Table
    request: Request | SlicedRequest
    wanted: Wanted = ANY_ROW
    started: float = field(default_factory=time.monotonic, compare=False)

    @property
    def name(self) -> str:
        return self.table.owner.kind

    @cached_property
    def id(self) -> str:
        return digest([self.table.owner.id, self.request.id, dict(self.wanted.identity)])

    @property
    def lock(self) -> str:
        """The name of its table's lock, which runs hold against one another."""
        return f"{self.name}-{self.table.owner.id}"

    @property
    def path(self) -> str:
        """Its path in the store."""
        return f"{VIEWS}/{self.name}/{self.id}"

    @property
    def directory(self) -> Place:
        return self.table.root / self.path

    @property
    def is_finished(self) -> bool:
        return (self.directory / VIEW).is_file()

    @property
    def is_torn(self) -> bool:
        """Whether view.json exists and cannot be read. It is written in one piece, so the disk is at
        fault.
        """
        return is_torn(self.directory / VIEW)

    def reopen(self) -> None:
        """Remove view.json. The table stays as it is."""
        take_away(self.directory / VIEW)

    def discard_unfinished(self) -> None:
        """Remove this view's directory if the view is not finished (`--resume never`). Rows stay."""
        if not self.is_finished:
            self.directory.remove()

    def manifest(self) -> dict[str, Any]:
        """The record of the finished view.

        Raises:
            BadInput: it is torn.
        """
        return manifest_of(self.directory)

    @property
    def asked(self) -> Request:
        """The request of a view whose rows one process may hold.

        Raises:
            TypeError: it is sliced.
        """
        if not isinstance(self.request, Request):
            raise TypeError(f"the view {self.path} is to be read by slice")
        return self.request

    def every_key(self) -> Iterator[bytes]:
        """All keys of the request."""
        if isinstance(self.request, Request):
            return iter(self.request.keys)
        return (key for number in range(self.request.count) for key in self.request.keys_of(number))

    def slice(self, number: int) -> "View":
        """A view of one slice's keys, only for reading. If the request is not sliced, this view itself."""
        if isinstance(self.request, Request):
            return self
        return View(self.table, self.request.keys(number), self.wanted)

    def read_slice(self, number: int) -> pd.DataFrame:
        """The rows of one slice, sorted by key, from the parts that the finished view names."""
        return self.slice(number).read_from(self.manifest()["parts"])

    @property
    def finished(self) -> Finished:
        """This finished view, without its request."""
        return Finished(self.table, self.wanted, self.directory)

    def read_from(
        self, parts: Mapping[str, Mapping[str, Any]], columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """The rows of the request, sorted by key, read from those of the given parts that can hold any: all
        columns, or the key and those named.
        """
        keys = self.asked.keys
        lo, hi = (keys[0].hex(), keys[-1].hex()) if keys else ("", "")
        near = {n: about for n, about in parts.items() if keys and n[:32] <= hi and lo <= n[33:65]}
        return self._rows(self._best(near), columns, near)

    def unfit(self) -> int:
        """The number of keys that have rows, none of which serves."""
        return sum(worth < self.wanted.least for worth, _ in self._best().values())

    def missing(self) -> list[bytes]:
        """The sorted keys that no row serves."""
        least, served = self.wanted.least, self._best()
        return [key for key in self.asked.keys if key not in served or served[key][0] < least]

    def cut(self, missing: Sequence[bytes], size: int) -> Ranges:
        """The ranges of keys that have to be made, each of about `size` missing rows. No range splits a
        question. Ranges that an earlier attempt wrote down are kept, so that the same parts are made. Rows
        that have gone missing since get new ranges between them.
        """
        known = self.known_cut()
        return sorted([*known, *cut_between(known, missing, size)])

    def known_cut(self) -> Ranges:
        """The ranges that an earlier attempt wrote down."""
        known = record_or_nothing(self.directory / CUT).get("ranges", ())
        try:
            return [(bytes.fromhex(a), bytes.fromhex(b)) for a, b in known]
        except (TypeError, ValueError):  # damaged: missing rows are cut into ranges again
            return []

    def write_cut(self, ranges: Ranges) -> None:
        """Write the ranges down before work starts, so that a restart makes the same parts."""
        cut = {"owner": self.table.owner.id, "ranges": [[a.hex(), b.hex()] for a, b in ranges]}
        (self.directory / CUT).write_bytes(json.dumps(cut).encode())

    def finish(
        self, count: Callable[[pd.DataFrame], Mapping[str, Any]], columns: Sequence[str] | None = None
    ) -> None:
        """Finish the view, and record what `count` computes from its rows.

        Args:
            columns: the columns that `count` reads, if rows are too large to be read whole.

        Raises:
            RuntimeError: a row of the request is in no part.
        """
        names, rows = self.found(columns)
        self.write_finished(names, dict(count(rows)), len(self.asked.keys))

    def found(self, columns: Sequence[str] | None = None) -> tuple[list[str], pd.DataFrame]:
        """The parts that serve the request, and their rows: all columns, or the key and those named.

        Raises:
            RuntimeError: a row of the request is in no part.
        """
        best = self._best()
        if len(best) != len(self.asked.keys):
            lost = len(self.asked.keys) - len(best)
            raise RuntimeError(
                f"{lost} rows of the view {self.path} are in no part of {self.table.directory}"
            )
        return sorted({part for _, part in best.values()}), self._rows(best, columns)

    def write_finished(self, names: Iterable[str], counts: Mapping[str, Any], rows: int) -> None:
        """Write view.json: the parts that serve the request, and the counts of its rows."""
        content = {
            "kind": self.name,
            "id": self.id,
            "owner": {"id": self.table.owner.id, **dict(self.table.owner.identity)},
            "request": {"id": self.request.id, "rows": rows},
            "wanted": dict(self.wanted.identity),
            "counts": dict(counts),
            "fallbacks": read_fallbacks(self.table.directory),
            "parts": {name: self.table.about(name) for name in names},
            "seconds": round(time.monotonic() - self.started, 3),
            "packages": package_versions(),
            "git_commit": git_commit(),
            "python": platform.python_version(),
        }
        (self.directory / VIEW).write_bytes(json.dumps(content, indent=1, default=str).encode())

    def _best(self, parts: Mapping[str, Mapping[str, Any]] | None = None) -> dict[bytes, tuple[int, str]]:
        if parts is None:
            parts = {name: {} for name in self.table.parts(self.asked.keys)}
        return self.table.best_rows(self.asked, self.wanted, parts)

    def read(self) -> pd.DataFrame:
        """The rows of the request, sorted by key. Once the view is finished they come from the parts that it
        names.
        """
        recorded = self.manifest()["parts"] if self.is_finished else None
        return self._rows(self._best(recorded), None, recorded or {})

    def _rows(
        self,
        best: Mapping[bytes, tuple[int, str]],
        columns: Sequence[str] | None = None,
        recorded: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> pd.DataFrame:
        nothing = (0, "")
        rows, parts = [], sorted({part for _, part in best.values()})
        for name in parts:
            wanted = None if columns is None else [KEY, *columns]
            table = self.table.read(name, wanted, recorded.get(name))
            if len(parts) > 1 or len(table) > len(best):
                table = table[[best.get(key, nothing)[1] == name for key in table[KEY].tolist()]]
            rows.append(table)
        if len(rows) == 1:
            return rows[0].reset_index(drop=True)
        if not rows:
            return pd.DataFrame({KEY: []})
        return pd.concat(rows, ignore_index=True).sort_values(KEY, ignore_index=True)


def cut_between(known: Ranges, missing: Sequence[bytes], size: int) -> Ranges:
    """New ranges for missing keys that lie in no known range. No new range overlaps a known one."""
    firsts = [first for first, _ in known]
    gaps: dict[int, list[bytes]] = {}
    for key in missing:
        number = bisect.bisect_right(firsts, key)
        if number == 0 or key > known[number - 1][1]:
            gaps.setdefault(number, []).append(key)
    return [cut for keys in gaps.values() for cut in cut_ranges(keys, size)]


def cut_ranges(keys: Sequence[bytes], size: int) -> Ranges:
    """Cut sorted keys into ranges of at least `size`, each ending with a question's last key.

    >>> from jobs.run.keys import row_key
    >>> a, b = bytes(8), bytes(7) + b"1"
    >>> keys = sorted([row_key(a, 1), row_key(a, 2), row_key(a, 3), row_key(b, 1)])
    >>> [(keys.index(first), keys.index(last)) for first, last in cut_ranges(keys, 2)]
    [(0, 2), (3, 3)]
    """
    ranges: list[tuple[bytes, bytes]] = []
    start = 0
    for k, key in enumerate(keys):
        is_last = k + 1 == len(keys)
        if is_last or (k + 1 - start >= size and keys[k + 1][:8] != key[:8]):
            ranges.append((keys[start], key))
            start = k + 1
    return ranges
