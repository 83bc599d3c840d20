"""The store: the output of every stage, under an id that follows from its inputs. A crash cannot leave
something that looks finished.

`store/<stage>/<id>/` holds Parquet parts and `manifest.json`, which is written last. A directory without a
manifest is unfinished. Its parts are whole, because they were renamed into place, and are used again. The id
is a hash of the stage's name and version, its own configuration and its inputs' ids. It never depends on
paths, hosts or cluster settings. The store is a local directory or a URI.
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
FALLBACKS = "fallbacks.json"  # shortcuts that a stage's models did not allow, written when a model is loaded


def digest(value: Any, length: int = 24) -> str:
    """A hash of plain values, the same on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a local file that appears whole or not at all."""
    Place(str(path)).write_bytes(content)


class Another(ValueError):
    """A part holds something other than what was written."""


# What reading a part may raise if the part is not whole, or not the one that was written.
UNREADABLE = (Another, pa.ArrowException, FileNotFoundError, IsADirectoryError, KeyError)


def told(error: BaseException) -> str:
    """The text of a library's exception, shortened."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def compare(place: Place, about: Mapping[str, Any], columns: Sequence[str] | None = None) -> None:
    """Compare a part with the digest that was recorded when it was written, once per process. A wrong file,
    or a changed byte, can be read without an error. The comparison costs 4 to
    16 % of reading the part.

    An object store checks its content itself. There nothing is compared if only some columns are read.

    Args:
        about: what was recorded. Nothing is compared if it holds no digest.

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
    """Read a table that `write_table` wrote: all columns, or those named."""
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
        """Its path in the store."""
        return f"{self.name}/{self.id}"

    @property
    def is_finished(self) -> bool:
        return (self.directory / MANIFEST).is_file()

    @property
    def is_torn(self) -> bool:
        """Whether the manifest exists and cannot be read. It is written in one piece, so the disk is at
        fault.
        """
        return is_torn(self.directory / MANIFEST)

    def reopen(self) -> None:
        """Remove the manifest. The parts stay and are used again."""
        take_away(self.directory / MANIFEST)

    @property
    def lock(self) -> str:
        """The name of its lock, which runs hold against one another."""
        return f"{self.name}-{self.id}"

    def part(self, name: str) -> Place:
        """The file of a part. A name with its own suffix is not Parquet."""
        return self.directory / (name if "." in name else f"{name}.parquet")

    def has(self, part: str) -> bool:
        """Whether a part exists and is whole. A file that cannot be opened is removed."""
        try:
            self.count_rows(part)
        except FileNotFoundError:
            return False
        except pa.ArrowInvalid:
            self.part(part).unlink()
            return False
        return True

    def count_rows(self, part: str) -> int:
        """The number of rows of a part, from its footer."""
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
        """Read one part, or all parts of the manifest, concatenated in order: all columns, or those named."""
        parts = self.manifest()["parts"] if part is None or self.is_finished else {}
        names = [part] if part is not None else list(parts)
        tables = [self._read_part(name, columns, parts.get(name, {})) for name in names]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def check(self, part: str) -> None:
        """Compare a part of a finished stage with the digest in its manifest.

        Raises:
            BadInput: the part differs, or is missing.
        """
        with self._named(part):
            compare(self.part(part), self.manifest()["parts"].get(part, {}))

    def _read_part(self, name: str, columns: Sequence[str] | None, about: Mapping[str, Any]) -> pd.DataFrame:
        with self._named(name):
            compare(self.part(name), about, columns)
            return read_table(self.part(name), columns)

    @contextmanager
    def _named(self, part: str) -> Iterator[None]:
        """Turn an error in reading a part into one that names the part and the remedy."""
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
        """Write the manifest. The stage is finished from this moment on. Parts that it does not name, and
        half-written files of killed writers, are removed.

        Args:
            took: the cluster resources that were used to make it (`Usage.record`), if they are recorded.
            uses: paths in the store that it was made from and that nothing else names.
            about: further facts for readers of the manifest.
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
        """Discard a half-done stage (`--resume never`)."""
        if not self.is_finished:
            self.directory.remove()


def write_fallbacks(directory: Place, lines: Mapping[str, str]) -> None:
    """Write the shortcuts that a model did not allow into the stage's directory, for the manifest. Every
    actor of the stage finds the same ones.
    """
    if lines:
        (directory / FALLBACKS).write_bytes(json.dumps(dict(lines), indent=1).encode())


def read_fallbacks(directory: Place) -> dict[str, str]:
    """Each shortcut that was not taken, with what was done instead and why. Empty if every shortcut was
    taken.
    """
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
        BadInput: the root is a file, or the file system does not answer.
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
        """The stage with this content, whether it exists or not."""
        identity = digest([name, version, dict(config), dict(inputs)])
        return Stage(name, identity, self.root / name / identity, config, inputs)

    @contextmanager
    def claimed(self, stages: Sequence[Any], on_wait: Callable[[Any], None]) -> Iterator[None]:
        """Lock the unfinished ones of these stages and views. So if two runs need the same work, one of them
        does it.

        Inside the block, check again which are finished: another run may have made them while this one
        waited. Locks are taken in one order and belong to the process. An object store has no locks: two runs
        on it may repeat work, and write the same bytes.

        Args:
            on_wait: called once for each stage that another run holds.
        """
        wanted = {s.lock: s for s in stages if not s.is_finished or s.is_torn} if self.root.is_local else {}
        with ExitStack() as locks:
            for name in sorted(wanted):
                locks.enter_context(held((self.root / "locks" / name).path, partial(on_wait, wanted[name])))
            yield

    @contextmanager
    def locked(self, stage: Stage) -> Iterator[None]:
        """Lock a stage, finished or not, for the length of the block. An object store has no locks."""
        if not self.root.is_local:
            yield
            return
        with held((self.root / "locks" / stage.lock).path):
            yield
