"""Which run uses which stages and views of a store. Each run writes them into `runs/<id>.json` as it goes.
What no registered run names may be removed (`jobs/run/garbage.py`).
"""

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import BadInput
from cluster.locks import held
from cluster.storage import Place
from jobs.run.records import record_or_nothing
from jobs.run.store import digest

RUNS = "runs"


@dataclass
class Registration:
    """The paths in a store that one run uses.

    Attributes:
        directory: the run's own directory, which identifies it.
        part: a name for this run, if several runs share a directory, such as the trials of a sweep.
    """

    root: Place
    directory: Place
    part: str = ""
    _names: dict[str, None] = field(default_factory=dict)  # in the order in which they were named
    _saved: dict[str, None] | None = None

    @property
    def id(self) -> str:
        return digest([str(self.directory), self.part])

    @property
    def _place(self) -> Place:
        return self.root / RUNS / f"{self.id}.json"

    def name(self, path: str) -> None:
        """Note that this run uses what lies at a path of the store."""
        self._names[path] = None

    def is_named_by_others(self, path: str) -> bool:
        """Whether another registered run uses what lies at a path."""
        others = registrations(self.root)
        return any(path in r["names"] for place, r in others.items() if place != self._place)

    def save(self) -> None:
        """Write the names, so that other runs see them. Names from earlier attempts of this run stay until it
        ends.
        """
        if self._saved is None:
            self._saved = self._known()
        if not self._names.keys() <= self._saved.keys() or not self._place.is_file():
            with self._held():  # another attempt of this run may have named more since
                self._write(self._known() | self._saved | self._names)

    def settle(self) -> None:
        """At the end of a run: keep the names that this attempt used, and drop those that only earlier
        attempts used.
        """
        with self._held():
            if self._saved is None or set(self._saved) != set(self._names):
                self._write(dict(self._names))
            # the lock is held: a half-written file was left by an attempt that was killed
            for stray in (self.root / RUNS).glob(f".{self._place.name}.*.tmp"):
                stray.unlink()

    def _known(self) -> dict[str, None]:
        """The names in this run's file."""
        return dict.fromkeys(read_registration(self._place).get("names", ()))

    def _write(self, names: dict[str, None]) -> None:
        about = {"directory": str(self.directory), "part": self.part, "host": platform.node()}
        content = {**about, "time": round(time.time()), "names": list(names)}
        if self.root.is_local and self._place.path.is_dir():
            raise BadInput("a run's registration is a directory", self._place, "a file", "remove it")
        self._place.write_bytes(json.dumps(content, indent=1).encode())
        self._saved = names

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other attempts of this run from writing. An object store has no locks, and no half-written
        files.
        """
        with held((self.root / f"locks/{RUNS}-{self.id}").path) if self.root.is_local else nullcontext():
            yield


def read_registration(place: Place) -> dict[str, Any]:
    """Read a registration. Empty if there is none, or if it is damaged."""
    content = record_or_nothing(place)
    names = content.get("names")
    is_whole = isinstance(content.get("directory"), str) and isinstance(names, list)
    return content if is_whole and all(isinstance(name, str) for name in names or ()) else {}


def registrations(root: Place) -> dict[Place, dict[str, Any]]:
    """Every registration of a store, by its file.

    Raises:
        BadInput: one cannot be read, so it is unknown what its run uses.
    """
    found = {place: read_registration(place) for place in (root / RUNS).glob("*.json")}
    for place, content in found.items():
        if not content:
            raise BadInput(
                "a run's registration is damaged", place, "JSON", "start that run again, or remove the file"
            )
    return found
