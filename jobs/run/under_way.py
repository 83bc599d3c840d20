"""Progress of shards that have not ended. Their workers write it into notes beside the parts, and the driver
adds the notes to its bar.

A shard takes many minutes if its student takes one second per answer. A note is written every few seconds at
most, so quick shards have none.
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
    """Used in a worker. Counts the finished rows of one shard and writes the count down now and then."""

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
        """Wrap a function of rows so that its progress is noted."""

        def noted(rows: Sequence[R]) -> Made:
            with listening(lambda share: self.add(share * len(rows))):
                return compute(rows)

        return noted

    def remove(self) -> None:
        self.place.unlink()


def noted_in(directory: Place) -> list[tuple[float, int]]:
    """The notes of all running shards in a table: rows done, and rows in all."""
    found = []
    for place in directory.glob(f".*{NOTE}"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # the shard has ended meanwhile
            done, rows = json.loads(place.read_text())
            found.append((float(done), int(rows)))
    return found


class Followed:
    """A progress bar that adds finished shards and the notes of running ones.

    Args:
        directories: the directories of the tables.
        is_by_rows: whether the bar counts rows. Otherwise it counts shards, and a running shard counts as a
            fraction.
    """

    def __init__(self, bar: Bar, directories: Sequence[Place], is_by_rows: bool) -> None:
        self.bar, self.directories, self.is_by_rows = bar, directories, is_by_rows
        self.ended = 0
        for directory in directories:
            for left_behind in directory.glob(f".*{NOTE}"):
                left_behind.unlink()

    def advance(self, count: int) -> None:
        """Count rows or shards that have ended."""
        self.ended += count
        self.bar.set(self.ended, self.bar.total)

    def look(self) -> None:
        """Show the notes, added to what has ended."""
        notes = [note for directory in self.directories for note in noted_in(directory)]
        under_way = sum(done if self.is_by_rows else done / rows for done, rows in notes)
        self.bar.set(min(self.ended + under_way, self.bar.total), self.bar.total)


@contextmanager
def followed(bar: Bar, directories: Sequence[Place], is_by_rows: bool) -> Iterator[Followed]:
    """Read the notes now and then while the block runs."""
    found, stop = Followed(bar, directories, is_by_rows), threading.Event()

    def look() -> None:
        while not stop.wait(LOOK_EVERY_S):
            with contextlib.suppress(OSError):  # the store may answer at the next look
                found.look()

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
