"""Tables: rows that belong to the teacher, checker or student that made them. Any run that needs them finds
them.

```
tables/<kind>/<owner>/    owner.json: whose rows they are, in words
  <lo>-<hi>-<id>.parquet  rows sorted by key; first and last key, and a digest of all keys; beside it a .json
                          with the resources that were used
```

An owner is a teacher under its sampling settings, a checker under its settings, or a student's weights under
one rendering. A request names keys. A view is the part of a table that a run uses for a request
(`jobs/run/views.py`). If several rows have one key, the best one counts. If they are equally good, the one
whose part has the first name counts.
"""

import bisect
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.run.keys import digest_keys
from jobs.run.records import Damaged, read_record, record_or_nothing
from jobs.run.store import UNREADABLE, compare, digest, read_table, told

KEY = "key"
TABLES = "tables"
OWNER, VIEW = "owner.json", "view.json"
GOOD, POOR, USELESS = 2, 1, 0  # how well a row serves a request
# Computes from some columns how well each row serves.
Worth = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Owner:
    """The owner of a table's rows.

    Attributes:
        kind: the kind of rows: answers, verdicts, statistics, measures, or steering (a teacher's readings).
        version: raised when the same identity would produce other rows.
        identity: the plain values that its rows depend on, and no others.
        about: the same in words, including a `name`, so that a plan can say what differs.
    """

    kind: str
    version: int
    identity: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def id(self) -> str:
        return digest([self.kind, self.version, dict(self.identity)])


def unusual(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the defaults, for an identity. So a new setting with a default
    invalidates nothing. If a default changes, the owner's version has to be raised.
    """
    return {name: value for name, value in settings.items() if value != usual.get(name)}


@dataclass(frozen=True)
class Request:
    """Rows that are wanted: their keys, sorted and without duplicates, and the item that each is made
    from.
    """

    items: Mapping[bytes, Any]

    @cached_property
    def keys(self) -> list[bytes]:
        return sorted(self.items)

    @cached_property
    def id(self) -> str:
        return digest_keys(self.keys)

    def within(self, first: bytes, last: bytes) -> list[bytes]:
        """The keys from `first` to `last`, both included."""
        return self.keys[bisect.bisect_left(self.keys, first) : bisect.bisect_right(self.keys, last)]


@dataclass(frozen=True)
class SlicedRequest:
    """Wanted rows that are too many for one process. Workers read them slice by slice.

    Attributes:
        id: a digest of all keys.
        rows: at most how many there are.
        count: the number of slices. Each is a range of keys, in order.
        keys_of: returns a slice's keys, sorted and without duplicates. Picklable.
        items_of: returns the item that each of a slice's rows is made from. Picklable.
    """

    id: str
    rows: int
    count: int
    keys_of: Callable[[int], Sequence[bytes]]
    items_of: Callable[[int], Mapping[bytes, Any]]

    def slice(self, number: int) -> Request:
        """One slice, with the items that its rows are made from."""
        return Request(self.items_of(number))

    def keys(self, number: int) -> Request:
        """One slice's keys alone."""
        return Request(dict.fromkeys(self.keys_of(number)))


def request_by_slice(
    identity: str,
    rows: int,
    count: int,
    keys_of: Callable[[int], Sequence[bytes]],
    items_of: Callable[[int], Mapping[bytes, Any]],
) -> Request | SlicedRequest:
    """A request that is read by slice. If there is only one slice, it is read now."""
    if count == 1:
        return Request(items_of(0))
    return SlicedRequest(identity, rows, count, keys_of, items_of)


def always_good(rows: pd.DataFrame) -> np.ndarray:
    """For rows that depend on their key alone: every row serves."""
    return np.full(len(rows), GOOD)


@dataclass(frozen=True)
class Wanted:
    """The condition that a row has to meet to serve a request.

    Attributes:
        identity: the condition as plain values. It is part of a view's id.
        columns: the columns that `worth` reads.
        least: rows with a lower worth are made again.
        unfit: what is wrong with these rows, in words.
    """

    identity: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    worth: Worth = always_good
    least: int = POOR
    unfit: str = ""


ANY_ROW = Wanted()


@dataclass(frozen=True)
class Table:
    """The rows of one owner."""

    root: Place
    owner: Owner

    @property
    def path(self) -> str:
        """Its path in the store."""
        return f"{TABLES}/{self.owner.kind}/{self.owner.id}"

    @property
    def directory(self) -> Place:
        return self.root / self.path

    @property
    def is_there(self) -> bool:
        """Whether the table exists. It may have no row yet."""
        return (self.directory / OWNER).is_file()

    def part(self, name: str) -> Place:
        return self.directory / f"{name}.parquet"

    def introduce(self) -> None:
        """Write `owner.json`, which says in words whose rows these are."""
        place, owner = self.directory / OWNER, self.owner
        if not record_or_nothing(place):
            words = {"kind": owner.kind, "version": owner.version}
            words |= {"identity": dict(owner.identity), "about": dict(owner.about)}
            place.write_bytes(json.dumps(words, indent=1, default=str).encode())

    def parts(self, keys: Sequence[bytes]) -> list[str]:
        """The sorted names of the whole parts whose range overlaps that of the given sorted keys."""
        if not keys:
            return []
        names = [place.name.removesuffix(".parquet") for place in self.directory.glob("*.parquet")]
        lo, hi = keys[0].hex(), keys[-1].hex()
        return [n for n in names if n[:32] <= hi and lo <= n[33:65] and self.is_whole(n)]

    def best_rows(
        self, request: Request, wanted: Wanted, parts: Mapping[str, Mapping[str, Any]]
    ) -> dict[bytes, tuple[int, str]]:
        """For each requested key, the worth of its best row and the name of that row's part.

        Args:
            parts: the names of the parts to look into, each with what was recorded of it.

        Raises:
            BadInput: a part is damaged or gone.
        """
        best: dict[bytes, tuple[int, str]] = {}
        for name in sorted(parts):
            frame = self.read(name, [KEY, *wanted.columns], parts[name])
            keys = frame[KEY].tolist()
            if wanted.worth is always_good:  # every row of a key is equally good, so the first one counts
                here = GOOD, name
                best = {key: here for key in keys if key in request.items} | best
                continue
            for key, worth in zip(keys, wanted.worth(frame).tolist(), strict=True):
                if key in request.items and (key not in best or worth > best[key][0]):
                    best[key] = worth, name
        return best

    def is_whole(self, name: str) -> bool:
        """Whether a part exists, can be opened and is what was written. Otherwise it counts as missing and is
        made again.
        """
        system, path = self.part(name).opened()
        try:
            with system.open_input_file(path) as file:
                pq.read_metadata(file)
            compare(self.part(name), self.recorded(name), [KEY])
        except (*UNREADABLE, Damaged):
            return False
        return True

    def recorded(self, name: str) -> dict[str, Any]:
        """Read the record beside a part. Empty if there is none.

        Raises:
            Damaged: it cannot be read.
        """
        try:
            return read_record(self.directory / f"{name}.json")
        except FileNotFoundError:
            return {}

    def write_part(
        self, name: str, keys: Sequence[bytes], rows: pd.DataFrame, took: Mapping[str, Any]
    ) -> None:
        """Write rows, in the order of their keys, as a part."""
        columns = {KEY: pa.array(list(keys), pa.binary(16))}
        body = pa.Table.from_pandas(rows, preserve_index=False)
        table = pa.table(columns | {name: body[name] for name in body.column_names})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        about = {"rows": len(keys), "sha256": hashlib.sha256(content).hexdigest(), **took}
        (self.directory / f"{name}.json").write_bytes(json.dumps(about, indent=1).encode())
        self.part(name).write_bytes(content)

    def about(self, name: str) -> dict[str, Any]:
        """The record of a part: the resources that making it took, and its sha256."""
        return record_or_nothing(self.directory / f"{name}.json") or {"sha256": self.part(name).sha256()}

    def read(
        self, name: str, columns: Sequence[str] | None = None, about: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Read a part: all columns, or those named.

        Args:
            about: what a view recorded of the part. If it is empty, the record beside the part is used.

        Raises:
            BadInput: the part is damaged, is not the one that was written, or is missing.
        """
        try:
            compare(self.part(name), about or self.recorded(name), columns)
            return read_table(self.part(name), columns)
        except (*UNREADABLE, Damaged) as error:
            raise BadInput(
                f"the part {self.part(name)} is damaged or gone",
                told(error),
                "the part that was written",
                f"remove it and the {VIEW} that names it, and run again: only that part is made again",
            ) from error


def part_name(keys: Sequence[bytes], wanted: Wanted = ANY_ROW) -> str:
    """The name of a part. It follows from the sorted keys and from the condition for its rows: the same keys
    under another token limit are another part.
    """
    content = digest([digest_keys(keys), dict(wanted.identity)], 12)
    return f"{keys[0].hex()}-{keys[-1].hex()}-{content}"
