"""Tables: rows that belong to whoever made them, found again by any run that needs them.

```
tables/<kind>/<owner>/    owner.json: whose rows they are, in words
  <lo>-<hi>-<id>.parquet  rows sorted by key; first and last key, and a digest of all keys; beside it a .json
                          with what making it took
views/<kind>/<id>/        cut.json: the ranges that are being made, used again by a restart
                          view.json: which parts hold what a run asked for; written last
```

An owner is a teacher under its sampling settings, a checker under its settings, a student's weights under one
rendering. A request names keys; a view is what a run used of a table for it, and does not change when others
add to the table later. Of several rows with one key the best counts, and of equals the one whose part has the
first name.
"""

import bisect
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from jobs.run.store import digest, git_commit, package_versions, read_fallbacks

KEY = "key"
TABLES, VIEWS = "tables", "views"
OWNER, CUT, VIEW = "owner.json", "cut.json", "view.json"
GOOD, POOR, USELESS = 2, 1, 0  # what a row is worth to a request
# From the columns that decide to how much each row is worth.
Worth = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Owner:
    """Whose rows a table holds.

    Attributes:
        kind: answers, verdicts or statistics.
        version: raised when the same identity would make other rows.
        identity: plain values that its rows hang on, and nothing else.
        about: the same in words, with a `name` among them, so that a plan can say what is different.
    """

    kind: str
    version: int
    identity: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def id(self) -> str:
        return digest([self.kind, self.version, dict(self.identity)])


def unusual(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the usual ones, for an identity: so one more setting with a default
    invalidates nothing. Whoever changes a default raises the owner's version.
    """
    return {name: value for name, value in settings.items() if value != usual.get(name)}


@dataclass(frozen=True)
class Request:
    """Rows that are wanted: their keys, sorted and each once, and what each is made from."""

    items: Mapping[bytes, Any]

    @cached_property
    def keys(self) -> list[bytes]:
        return sorted(self.items)

    @cached_property
    def id(self) -> str:
        return digest_keys(self.keys)

    def within(self, first: bytes, last: bytes) -> list[bytes]:
        """The keys from one to another, both included."""
        return self.keys[bisect.bisect_left(self.keys, first) : bisect.bisect_right(self.keys, last)]


def always_good(rows: pd.DataFrame) -> np.ndarray:
    """Worth of rows that hang on nothing but their key."""
    return np.full(len(rows), GOOD)


@dataclass(frozen=True)
class Wanted:
    """What a row must be like to serve.

    Attributes:
        identity: in plain values; part of a view's id.
        columns: that `worth` reads.
        least: rows worth less are made again.
        unfit: what is wrong with those, in words.
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
        """Where it is in the store."""
        return f"{TABLES}/{self.owner.kind}/{self.owner.id}"

    @property
    def directory(self) -> Place:
        return self.root / self.path

    def part(self, name: str) -> Place:
        return self.directory / f"{name}.parquet"

    def introduce(self) -> None:
        """Say in words whose rows these are."""
        place, owner = self.directory / OWNER, self.owner
        if not place.is_file():
            words = {"kind": owner.kind, "version": owner.version}
            words |= {"identity": dict(owner.identity), "about": dict(owner.about)}
            place.write_bytes(json.dumps(words, indent=1, default=str).encode())

    def parts(self, keys: Sequence[bytes]) -> list[str]:
        """Names of the whole parts that overlap the range of sorted keys, sorted."""
        if not keys:
            return []
        names = [place.name.removesuffix(".parquet") for place in self.directory.glob("*.parquet")]
        lo, hi = keys[0].hex(), keys[-1].hex()
        return [n for n in names if n[:32] <= hi and lo <= n[33:65] and self.is_whole(n)]

    def best_rows(self, request: Request, wanted: Wanted, names: Iterable[str]) -> pd.DataFrame:
        """For each requested key the part whose row serves best, with what it is worth: columns part, worth;
        index key.

        Raises:
            BadInput: a part is damaged or gone.
        """
        found = []
        for name in names:
            frame = self.read(name, [KEY, *wanted.columns])
            # not `isin`: NumPy drops the zero bytes at a key's end
            asked = [key in request.items for key in frame[KEY]]
            frame = frame[asked].reset_index(drop=True)
            found.append(pd.DataFrame({KEY: frame[KEY], "worth": wanted.worth(frame), "part": name}))
        if not found:
            return pd.DataFrame({"worth": [], "part": []}, index=pd.Index([], name=KEY))
        rows = pd.concat(found, ignore_index=True)
        rows = rows.sort_values(["worth", "part"], ascending=[False, True], kind="stable")
        return rows.drop_duplicates(KEY).set_index(KEY)

    def is_whole(self, name: str) -> bool:
        """Whether a part is there and can be opened; what is not counts as not there, and is made again."""
        system, path = self.part(name).opened()
        try:
            with system.open_input_file(path) as file:
                pq.read_metadata(file)
        except (pa.ArrowInvalid, FileNotFoundError):
            return False
        return True

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
        """What making a part took, and its sha256."""
        try:
            return dict(json.loads((self.directory / f"{name}.json").read_text()))
        except (FileNotFoundError, ValueError):
            content = self.part(name).read_bytes()
            return {"sha256": hashlib.sha256(content).hexdigest()}

    def read(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A part's rows, all columns of them or some.

        Raises:
            BadInput: it is damaged or gone.
        """
        try:
            content = pa.BufferReader(self.part(name).read_bytes())
            return pq.read_table(content, columns=None if columns is None else list(columns)).to_pandas()
        except (pa.ArrowInvalid, FileNotFoundError) as error:
            raise BadInput(
                f"the part {self.part(name)} is damaged or gone",
                str(error)[:120],
                "a Parquet file",
                f"remove it and the {VIEW} that names it, and run again: only that part is made again",
            ) from error


def part_name(keys: Sequence[bytes], wanted: Wanted = ANY_ROW) -> str:
    """A part's name by its keys, which are sorted, and by what its rows were wanted like: the same keys under
    another token limit are another part.
    """
    content = digest([digest_keys(keys), dict(wanted.identity)], 12)
    return f"{keys[0].hex()}-{keys[-1].hex()}-{content}"


@dataclass(frozen=True)
class View:
    """What a run uses of a table for a request."""

    table: Table
    request: Request
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
        """The name under which runs hold its table against one another."""
        return f"{self.name}-{self.table.owner.id}"

    @property
    def path(self) -> str:
        """Where it is in the store."""
        return f"{VIEWS}/{self.name}/{self.id}"

    @property
    def directory(self) -> Place:
        return self.table.root / self.path

    @property
    def is_finished(self) -> bool:
        return (self.directory / VIEW).is_file()

    @property
    def is_torn(self) -> bool:
        """Whether there is a view.json that cannot be read: a disk's fault, since it is written in one
        piece.
        """
        try:
            return "parts" not in json.loads((self.directory / VIEW).read_text())
        except FileNotFoundError:
            return False
        except ValueError:
            return True

    def reopen(self) -> None:
        """Take the view.json away; the table stays as it is."""
        (self.directory / VIEW).unlink()

    def discard_unfinished(self) -> None:
        """Forget a cut that nobody finished (`--resume never`); what is in the table stays."""
        if not self.is_finished:
            self.directory.remove()

    def manifest(self) -> dict[str, Any]:
        """What the finished view says.

        Raises:
            BadInput: it is torn.
        """
        try:
            return dict(json.loads((self.directory / VIEW).read_text()))
        except ValueError as error:
            raise BadInput(
                f"the view {self.name}/{self.id} is damaged",
                error,
                "",
                f"remove {self.directory} and run again",
            ) from error

    def unfit(self) -> int:
        """How many keys have rows, but none that serves."""
        best = self._best()
        return int((best["worth"] < self.wanted.least).sum())

    def missing(self) -> list[bytes]:
        """The keys that no row serves, sorted."""
        best = self._best()
        served = set(best.index[best["worth"] >= self.wanted.least])
        return [key for key in self.request.keys if key not in served]

    def cut(self, missing: Sequence[bytes], size: int) -> list[tuple[bytes, bytes]]:
        """The ranges of keys to be made, each of about `size` missing rows, none of which parts a question:
        those that an earlier attempt settled on, so that it makes the same parts, and between them ranges of
        what has gone missing since.
        """
        place = self.directory / CUT
        ranges = []
        if place.is_file():
            known = json.loads(place.read_text())["ranges"]
            ranges = [(bytes.fromhex(a), bytes.fromhex(b)) for a, b in known]
        firsts = [first for first, _ in ranges]
        gaps: dict[int, list[bytes]] = {}
        for key in missing:
            number = bisect.bisect_right(firsts, key)
            if number == 0 or key > ranges[number - 1][1]:
                gaps.setdefault(number, []).append(key)
        new = [cut for keys in gaps.values() for cut in cut_ranges(keys, size)]
        return sorted(ranges + new)

    def write_cut(self, ranges: Sequence[tuple[bytes, bytes]]) -> None:
        """Settle on the ranges before work starts, so that a restart makes the same parts."""
        cut = {"owner": self.table.owner.id, "ranges": [[a.hex(), b.hex()] for a, b in ranges]}
        (self.directory / CUT).write_bytes(json.dumps(cut).encode())

    def finish(self, count: Callable[[pd.DataFrame], Mapping[str, Any]]) -> None:
        """Say which parts serve the request, and what `count` says of its rows: the view is finished from
        this moment on.

        Raises:
            RuntimeError: a row of the request is in no part.
        """
        best = self._best()
        if len(best) != len(self.request.keys):
            lost = len(self.request.keys) - len(best)
            raise RuntimeError(
                f"{lost} rows of the view {self.path} are in no part of {self.table.directory}"
            )
        names, counts = sorted(set(best["part"])), dict(count(self._rows(best)))
        content = {
            "kind": self.name,
            "id": self.id,
            "owner": {"id": self.table.owner.id, **dict(self.table.owner.identity)},
            "request": {"id": self.request.id, "rows": len(self.request.keys)},
            "wanted": dict(self.wanted.identity),
            "counts": counts,
            "fallbacks": read_fallbacks(self.table.directory),
            "parts": {name: self.table.about(name) for name in names},
            "seconds": round(time.monotonic() - self.started, 3),
            "packages": package_versions(),
            "git_commit": git_commit(),
            "python": platform.python_version(),
        }
        (self.directory / VIEW).write_bytes(json.dumps(content, indent=1, default=str).encode())

    def _best(self, names: Iterable[str] | None = None) -> pd.DataFrame:
        if names is None:
            names = self.table.parts(self.request.keys)
        return self.table.best_rows(self.request, self.wanted, names)

    def read(self) -> pd.DataFrame:
        """The rows of the request, by key; from the parts that the view names once it is finished."""
        return self._rows(self._best(list(self.manifest()["parts"]) if self.is_finished else None))

    def _rows(self, best: pd.DataFrame) -> pd.DataFrame:
        part_of = dict(zip(best.index, best["part"], strict=True))
        rows = []
        for name in sorted(set(best["part"])):
            table = self.table.read(name)
            rows.append(table[[part_of.get(key) == name for key in table[KEY]]])
        if not rows:
            return pd.DataFrame({KEY: []})
        return pd.concat(rows, ignore_index=True).sort_values(KEY, ignore_index=True)


def cut_ranges(keys: Sequence[bytes], size: int) -> list[tuple[bytes, bytes]]:
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
