"""The store: every stage's output under an id that follows from what went in, written so that a crash cannot fake one.

`store/<stage>/<id>/` holds Parquet parts and, last, `manifest.json`. A directory without a manifest is unfinished; its
parts are whole (they were renamed into place) and are used again. The id hashes the stage's name and version, its own
configuration and its inputs' ids, never paths, hosts or cluster settings.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import BadInput

MANIFEST = "manifest.json"
PACKAGES = ("ray", "torch", "transformers", "deepspeed", "pandas", "pyarrow", "math-verify", "peft", "tutelage")


def digest(value: Any, length: int = 24) -> str:
    """A hash of plain values, the same on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def digest_rows(rows: Iterable[Any], length: int = 24) -> str:
    """A hash of many plain values, without holding them as one text."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, ensure_ascii=True, separators=(",", ":"), default=str).encode() + b"\n")
    return total.hexdigest()[:length]


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name in the same directory, flush to disk, rename. A second writer is harmless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


@dataclass(frozen=True)
class Stage:
    """One stage's directory, finished or not."""

    name: str
    id: str
    directory: Path
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    started: float = field(default_factory=time.monotonic, compare=False)

    @property
    def is_finished(self) -> bool:
        return (self.directory / MANIFEST).is_file()

    def part(self, name: str) -> Path:
        return self.directory / f"{name}.parquet"

    def has(self, part: str) -> bool:
        """Whether a part is there and whole; a file that cannot be opened is removed."""
        path = self.part(part)
        if not path.is_file():
            return False
        try:
            pq.read_metadata(path)
        except pa.ArrowInvalid:
            path.unlink()
            return False
        return True

    def manifest(self) -> dict[str, Any]:
        """The manifest of a finished stage.

        Raises:
            BadInput: it is torn.
        """
        try:
            return json.loads((self.directory / MANIFEST).read_text(encoding="utf-8"))  # type: ignore[no-any-return]
        except ValueError as error:
            raise BadInput(
                f"the manifest of {self.name}/{self.id} is damaged", error, "", f"remove {self.directory} and run again"
            ) from error

    def read(self, part: str | None = None) -> pd.DataFrame:
        """Read one part, or all the manifest's parts in order, joined."""
        names = [part] if part is not None else list(self.manifest()["parts"])
        tables = [pd.read_parquet(self.part(name)) for name in names]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def finish(self, parts: list[str], **counts: Any) -> None:
        """Write the manifest: the stage is finished from this moment on. Parts it does not name are removed."""
        kept = {f"{name}.parquet" for name in parts}
        for stray in self.directory.glob("*.parquet"):
            if stray.name not in kept:
                stray.unlink()
        content = {
            "stage": self.name,
            "id": self.id,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
            "counts": counts,
            "parts": {name: self._describe(name) for name in parts},
            "seconds": round(time.monotonic() - self.started, 3),
            "packages": package_versions(),
            "git_commit": git_commit(),
            "python": platform.python_version(),
        }
        write_atomically(self.directory / MANIFEST, json.dumps(content, indent=1, default=str).encode())

    def _describe(self, name: str) -> dict[str, Any]:
        with open(self.part(name), "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": sha256, "rows": pq.read_metadata(self.part(name)).num_rows}

    def discard_unfinished(self) -> None:
        """Forget a half-done stage (`--resume never`)."""
        if not self.is_finished and self.directory.exists():
            shutil.rmtree(self.directory)


class Store:
    """A directory of stages, shared by runs, arms and sweeps."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        if self.root.exists() and not self.root.is_dir():
            raise BadInput("the store is not a directory", root, "a directory", "set store to another path")

    def stage(self, name: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> Stage:
        """The stage with this content, new or known."""
        identity = digest([name, version, dict(config), dict(inputs)])
        return Stage(name, identity, self.root / name / identity, config, inputs)


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@lru_cache(maxsize=1)
def git_commit() -> str:
    """The commit of this checkout, with `+` when it has uncommitted changes; empty outside one."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if dirty.strip() else "")
