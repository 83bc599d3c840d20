"""Progress of long work: a bar with rate and time left on a terminal, a line now and then elsewhere."""

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

from cluster.progress import listening

# Without a terminal: when the first line comes, by how much longer each wait is, and the longest.
FIRST_LINE_S, LONGER, LONGEST_S = 10.0, 1.5, 300.0


class Bar:
    """Counts what is done of one piece of work, in its own unit."""

    def __init__(self, name: str, total: int, unit: str, console: Console, progress: Progress | None) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0.0
        self._console, self._progress = console, progress
        self._began = time.monotonic()
        self._next, self._wait = self._began + FIRST_LINE_S, FIRST_LINE_S
        self._task = progress.add_task(name, total=total or None, rate="") if progress is not None else None

    def advance(self, count: float = 1) -> None:
        self.set(self.done + count, self.total)

    def set(self, done: float, total: int) -> None:
        """State how much is done, a part of the last one included; `total` may become known late."""
        self.done, self.total = done, total
        now = time.monotonic()
        elapsed = max(1e-9, now - self._began)
        rate = f"{rate_of(done, elapsed)} {self.unit}/s"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total or None, rate=rate)
        elif now >= self._next:
            self._wait = min(LONGER * self._wait, LONGEST_S)
            self._next = now + self._wait
            left = f", {elapsed / done * (total - done):,.0f} s left" if done and total > done else ""
            line = f"{self.name}: {done:,.0f} of {total:,} {self.unit}, {rate}{left}"
            self._console.print(line, markup=False)

    @contextmanager
    def call(self, rows: int) -> Iterator[None]:
        """Count what a call with so many rows tells of them on the way, and all of them at its end."""
        before = self.done
        with listening(lambda share: self.advance(share * rows)):
            yield
        self.set(before + rows, self.total)

    def close(self) -> None:
        """One line that stays: how much was done in how long."""
        seconds = time.monotonic() - self._began
        if self.done:
            self._console.print(
                f"{self.name}: {self.done:,.0f} {self.unit} in {seconds:,.1f} s", markup=False
            )


def rate_of(done: float, seconds: float) -> str:
    """So much a second, with two digits where it is less than one.

    >>> rate_of(5000, 2), rate_of(1, 30)
    ('2,500.0', '0.033')
    """
    rate = done / seconds
    return f"{rate:,.1f}" if rate >= 1 else f"{rate:.2g}"


def printable(text: str) -> str:
    """A text with its control characters written out, so that nothing a model wrote can move a terminal's
    cursor.

    >>> print(printable("red: " + chr(27) + "[31m"))
    red: \\x1b[31m
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


class Terminal:
    """Where a run speaks to its user: lines and bars on standard output, or with `quiet` nowhere."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(
            file=sys.stdout, highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=quiet
        )

    def say(self, text: str) -> None:
        """Print one line: nothing in it is read as markup, and control characters of others' texts do not
        reach the terminal.
        """
        self.console.print(printable(text), markup=False)

    def show(self, table: Table) -> None:
        """Print a table, wide enough to be read in a file; names in it are printed as they are."""
        width = None if self.console.is_terminal else 180
        shown = Console(file=sys.stdout, highlight=False, width=width, markup=False, emoji=False)
        for column in table.columns:
            column._cells = [printable(str(cell)) for cell in column._cells]
        shown.print(table)

    @contextmanager
    def bar(self, name: str, total: int, unit: str) -> Iterator[Bar]:
        """Show progress while the block runs."""
        if not self.console.is_terminal:
            bar = Bar(name, total, unit, self.console, None)
            yield bar
            bar.close()
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = Bar(name, total, unit, self.console, progress)
            yield bar
        bar.close()
