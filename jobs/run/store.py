"""The store: every stage's output under an id that follows from what went in, written so that a crash cannot
fake one.

`store/<stage>/<id>/` holds Parquet parts and, last, `manifest.json`. A directory without a manifest is
unfinished; its parts are whole (they were renamed into place) and are used again. The id hashes the stage's
name and version, its own configuration and its inputs' ids, never paths, hosts or cluster settings. The store
is a local directory or a URI.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import BadInput
from cluster.locks import held
from cluster.storage import Place, refuse_special
from jobs.run.provenance import git_commit, package_versions
from jobs.run.records import Damaged, is_torn, read_parts, read_record, take_away
from training.data import SUFFIX, count_examples

MANIFEST = "manifest.json"
FOLDERS = ("runs", "locks", "tables", "views", "requests", "checkpoints")  # of every store
FALLBACKS = (
    "fallbacks.json"  # shortcuts that the models of a stage did not allow, written by whoever loads one
)


def digest(value: Any, length: int = 24) -> str:
    """A hash of plain values, the same on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a local file that appears whole or not at all."""
    Place(str(path)).write_bytes(content)


class Another(ValueError):
    """A part that holds something else than was written."""


# What reading a part may raise that is not whole, or not the one that was written.
UNREADABLE = (Another, pa.ArrowException, FileNotFoundError, IsADirectoryError, KeyError)


def told(error: BaseException) -> str:
    """An exception of a library, short."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def compare(place: Place, about: Mapping[str, Any], columns: Sequence[str] | None = None) -> None:
    """Compare a part with the digest that was recorded when it was written, once per process: one file in
    another's place, or a flipped byte, reads well and is wrong. It costs 4 to 16 % of reading the part.

    On an object store, which compares what it keeps itself, a part of which some columns are read is not
    fetched whole for it.

    Args:
        about: what was recorded; nothing is compared where that has no digest.

    Raises:
        Another: they differ.
        FileNotFoundError: it is gone.
    """
    wanted = about.get("sha256")
    if not wanted or (columns is not None and not place.is_local):
        return
    found = place.sha256_once()
    if found != wanted:
        raise Another(f"sha256 {found[:12]}, not {str(wanted)[:12]}")


def write_table(place: Place | Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), sink, compression="zstd")
    Place(str(place)).write_bytes(sink.getvalue().to_pybytes())


def read_table(place: Place | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read what `write_table` wrote, all columns of it or some."""
    wanted = None if columns is None else list(columns)
    system, path = Place(str(place)).opened()
    with system.open_input_file(path) as file:
        return pq.ParquetFile(file).read(columns=wanted, use_threads=False).to_pandas(use_threads=False)


@dataclass(frozen=True)
class Stage:
    """One stage's directory, finished or not."""

    name: str
    id: str
    directory: Place
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    started: float = field(default_factory=time.monotonic, compare=False)

    @property
    def path(self) -> str:
        """Where it is in the store."""
        return f"{self.name}/{self.id}"

    @property
    def is_finished(self) -> bool:
        return (self.directory / MANIFEST).is_file()

    @property
    def is_torn(self) -> bool:
        """Whether there is a manifest that cannot be read: a disk's fault,
        since it is written in one piece.
        """
        return is_torn(self.directory / MANIFEST)

    def reopen(self) -> None:
        """Take the manifest away; the parts stay, and are used again."""
        take_away(self.directory / MANIFEST)

    @property
    def lock(self) -> str:
        """The name under which runs hold it against one another."""
        return f"{self.name}-{self.id}"

    def part(self, name: str) -> Place:
        """A part's file; a name with a suffix of its own is not Parquet."""
        return self.directory / (name if "." in name else f"{name}.parquet")

    def has(self, part: str) -> bool:
        """Whether a part is there and whole; a file that cannot be opened is removed."""
        try:
            self.count_rows(part)
        except FileNotFoundError:
            return False
        except pa.ArrowInvalid:
            self.part(part).unlink()
            return False
        return True

    def count_rows(self, part: str) -> int:
        """Rows of a part, from its footer."""
        if self.part(part).name.endswith(SUFFIX):
            return count_examples(self.part(part))
        system, path = self.part(part).opened()
        with system.open_input_file(path) as file:
            return int(pq.read_metadata(file).num_rows)

    def manifest(self) -> dict[str, Any]:
        """The manifest of a finished stage.

        Raises:
            BadInput: it is torn.
        """
        try:
            return read_parts(self.directory / MANIFEST)
        except Damaged as error:
            raise BadInput(
                f"the manifest of {self.name}/{self.id} is damaged",
                error,
                "",
                f"remove {self.directory / MANIFEST} and run again: its parts are used again",
            ) from error

    def read(self, part: str | None = None, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read one part, or all the manifest's parts in order, joined; all columns or some."""
        parts = self.manifest()["parts"] if part is None or self.is_finished else {}
        names = [part] if part is not None else list(parts)
        tables = [self._read_part(name, columns, parts.get(name, {})) for name in names]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def check(self, part: str) -> None:
        """Compare a part of a finished stage with what its manifest says was written.

        Raises:
            BadInput: it is another, or gone.
        """
        with self._named(part):
            compare(self.part(part), self.manifest()["parts"].get(part, {}))

    def _read_part(self, name: str, columns: Sequence[str] | None, about: Mapping[str, Any]) -> pd.DataFrame:
        with self._named(name):
            compare(self.part(name), about, columns)
            return read_table(self.part(name), columns)

    @contextmanager
    def _named(self, part: str) -> Iterator[None]:
        """Name a part that cannot be read, and what to do."""
        try:
            yield
        except UNREADABLE as error:
            manifest = self.directory / MANIFEST
            remedy = f"remove it and {manifest}, and run again: only that part is made again"
            raise BadInput(
                f"the part {self.part(part)} is damaged or gone",
                told(error),
                "the part that was written",
                remedy,
            ) from error

    def finish(
        self,
        parts: list[str],
        took: Mapping[str, Any] | None = None,
        uses: Sequence[str] = (),
        about: Mapping[str, Any] | None = None,
        **counts: Any,
    ) -> None:
        """Write the manifest: the stage is finished from this moment on. Parts it does not name, and what
        writers that were killed left half-done, are removed.

        Args:
            took: what making it took of the cluster, where that is worth telling; see `Took`.
            uses: paths in the store of what it was made from and nobody else names.
            about: what else is said of it, for whoever reads it.
        """
        kept = {self.part(name).name for name in parts}
        for stray in [*self.directory.glob("*.parquet"), *self.directory.glob(".*.tmp")]:
            if stray.name not in kept:
                stray.unlink()
        content = {
            "stage": self.name,
            "id": self.id,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
            "counts": counts,
            "fallbacks": read_fallbacks(self.directory),
            "parts": {name: self._describe(name) for name in parts},
            "took": dict(took or {}),
            "uses": list(uses),
            "about": dict(about or {}),
            "seconds": round(time.monotonic() - self.started, 3),
            "packages": package_versions(),
            "git_commit": git_commit(),
            "python": platform.python_version(),
        }
        (self.directory / MANIFEST).write_bytes(json.dumps(content, indent=1, default=str).encode())

    def _describe(self, name: str) -> dict[str, Any]:
        return {"sha256": self.part(name).sha256(), "rows": self.count_rows(name)}

    def discard_unfinished(self) -> None:
        """Forget a half-done stage (`--resume never`)."""
        if not self.is_finished:
            self.directory.remove()


def write_fallbacks(directory: Place, lines: Mapping[str, str]) -> None:
    """Leave in a stage's directory what its model was not allowed, for the manifest; every actor of the stage
    finds the same.
    """
    if lines:
        (directory / FALLBACKS).write_bytes(json.dumps(dict(lines), indent=1).encode())


def read_fallbacks(directory: Place) -> dict[str, str]:
    """Shortcut -> what was done instead and why; empty where every shortcut was taken."""
    try:
        return read_record(directory / FALLBACKS)
    except FileNotFoundError:
        return {}
    except Damaged as error:
        return {FALLBACKS: f"{directory / FALLBACKS} cannot be read ({error}): what was done is not known"}


class Store:
    """A directory of stages, shared by runs, arms and sweeps.

    Args:
        root: a local path, or a URI such as `s3://bucket/store`.

    Raises:
        BadInput: a file is there, or the file system does not answer.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Place(str(root))
        if self.root.is_local:
            refuse_special(self.root.path)
        try:
            is_file = self.root.is_file()
        except OSError as error:
            what = " ".join(str(error).split())[:300]
            raise BadInput(
                "the store cannot be reached",
                self.root,
                "a place that answers, with its keys in the environment",
                what,
            ) from error
        if is_file:
            raise BadInput("the store is not a directory", root, "a directory", "set store to another path")
        for name in FOLDERS if self.root.is_local else ():
            if (self.root / name).is_file():
                raise BadInput("a folder of the store is a file", self.root / name, "a folder", "remove it")

    def stage(self, name: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> Stage:
        """The stage with this content, new or known."""
        identity = digest([name, version, dict(config), dict(inputs)])
        return Stage(name, identity, self.root / name / identity, config, inputs)

    @contextmanager
    def claimed(self, stages: Sequence[Any], on_wait: Callable[[Any], None]) -> Iterator[None]:
        """Hold the unfinished ones of these stages and views, so that of two runs that need the same work one
        does it.

        Inside, ask again which are finished: another run may have made them while this one waited. Locks are
        taken in one order and belong to the process. An object store has none: two runs on it may repeat
        work, and write the same bytes.

        Args:
            on_wait: told once of each stage that another run holds.
        """
        wanted = {s.lock: s for s in stages if not s.is_finished or s.is_torn} if self.root.is_local else {}
        with ExitStack() as locks:
            for name in sorted(wanted):
                locks.enter_context(held((self.root / "locks" / name).path, partial(on_wait, wanted[name])))
            yield

    @contextmanager
    def locked(self, stage: Stage) -> Iterator[None]:
        """Hold a stage, finished or not, for the length of a block; an object store has no locks."""
        if not self.root.is_local:
            yield
            return
        with held((self.root / "locks" / stage.lock).path):
            yield
