"""Progress of long work: a bar with rate and time left on a terminal, one line a minute elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

LINE_EVERY_S = 60.0


class Bar:
    """Counts what is done of one piece of work, in its own unit."""

    def __init__(self, name: str, total: int, unit: str, console: Console, progress: Progress | None) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, 0
        self._console, self._progress = console, progress
        self._began = self._last = time.monotonic()
        self._task = progress.add_task(name, total=total or None, rate="") if progress is not None else None

    def advance(self, count: int = 1) -> None:
        self.set(self.done + count, self.total)

    def set(self, done: int, total: int) -> None:
        """State how much is done; `total` may become known late."""
        self.done, self.total = done, total
        elapsed = max(1e-9, time.monotonic() - self._began)
        rate = f"{done / elapsed:,.1f} {self.unit}/s"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total or None, rate=rate)
        elif time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            left = f", {elapsed / done * (total - done):,.0f} s left" if done and total > done else ""
            self._console.print(f"{self.name}: {done:,} of {total:,} {self.unit}, {rate}{left}")

    def close(self) -> None:
        """One line that stays: how much was done in how long."""
        seconds = time.monotonic() - self._began
        if self.done:
            self._console.print(f"{self.name}: {self.done:,} {self.unit} in {seconds:,.1f} s", markup=False)


def printable(text: str) -> str:
    """A text with its control characters written out, so that nothing a model wrote can move a terminal's
    cursor.

    >>> print(printable("red: " + chr(27) + "[31m"))
    red: \\x1b[31m
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


class Terminal:
    """Where a run speaks to its user: lines and bars on standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line: nothing in it is read as markup, and control characters of others' texts do not
        reach the terminal.
        """
        self.console.print(printable(text), markup=False)

    def show(self, table: Table) -> None:
        """Print a table, wide enough to be read in a file."""
        width = None if self.console.is_terminal else 180
        Console(file=sys.stdout, highlight=False, width=width).print(table)

    @contextmanager
    def bar(self, name: str, total: int, unit: str) -> Iterator[Bar]:
        """Show progress while the block runs."""
        if not self.console.is_terminal:
            bar = Bar(name, total, unit, self.console, None)
            yield bar
            bar.close()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = Bar(name, total, unit, self.console, progress)
            yield bar
        bar.close()
