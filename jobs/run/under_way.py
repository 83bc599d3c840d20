"""How much is done of shards that have not ended: their workers note it beside the parts that they write, and
the driver adds it to its bar.

Shards of a student that takes a second an answer last many minutes. A note is written every few seconds at
the most, so shards that are quick have none.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from cluster.progress import listening
from cluster.storage import Place
from jobs.run.progress import Bar

NOTE_EVERY_S = 5.0
LOOK_EVERY_S = 5.0
NOTE = ".under-way.tmp"
R = TypeVar("R")
Made = TypeVar("Made")


class Note:
    """In a worker: how much is done of one shard's rows, written down now and then."""

    def __init__(self, directory: Place, part: str, rows: int) -> None:
        self.place, self.rows, self.done = directory / f".{part}{NOTE}", rows, 0.0
        self._written = time.monotonic()

    def add(self, rows: float) -> None:
        """Count rows as done."""
        self.done += rows
        if time.monotonic() - self._written >= NOTE_EVERY_S:
            self._written = time.monotonic()
            self.place.write_bytes(json.dumps([min(self.done, self.rows), self.rows]).encode())

    def counts(self, compute: Callable[[Sequence[R]], Made]) -> Callable[[Sequence[R]], Made]:
        """The same function of rows, whose progress is noted."""

        def noted(rows: Sequence[R]) -> Made:
            with listening(lambda share: self.add(share * len(rows))):
                return compute(rows)

        return noted

    def remove(self) -> None:
        self.place.unlink()


def noted_in(directory: Place) -> list[tuple[float, int]]:
    """What the shards under way in a table have noted: rows done, of how many."""
    found = []
    for place in directory.glob(f".*{NOTE}"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # its shard has ended meanwhile
            done, rows = json.loads(place.read_text())
            found.append((float(done), int(rows)))
    return found


class Followed:
    """A bar of shards that have ended and of what is noted of the others.

    Args:
        directories: of the tables.
        is_by_rows: the bar counts rows; else shards, one of which may be done in part.
    """

    def __init__(self, bar: Bar, directories: Sequence[Place], is_by_rows: bool) -> None:
        self.bar, self.directories, self.is_by_rows = bar, directories, is_by_rows
        self.ended = 0
        for directory in directories:
            for left_behind in directory.glob(f".*{NOTE}"):
                left_behind.unlink()

    def advance(self, count: int) -> None:
        """Count what has ended."""
        self.ended += count
        self.bar.set(self.ended, self.bar.total)

    def look(self) -> None:
        """Show what is noted, beside what has ended."""
        notes = [note for directory in self.directories for note in noted_in(directory)]
        under_way = sum(done if self.is_by_rows else done / rows for done, rows in notes)
        self.bar.set(min(self.ended + under_way, self.bar.total), self.bar.total)


@contextmanager
def followed(bar: Bar, directories: Sequence[Place], is_by_rows: bool) -> Iterator[Followed]:
    """Look at the notes now and then while the block runs."""
    found, stop = Followed(bar, directories, is_by_rows), threading.Event()

    def look() -> None:
        while not stop.wait(LOOK_EVERY_S):
            with contextlib.suppress(OSError):  # a store that does not answer now may at the next look
                found.look()

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
