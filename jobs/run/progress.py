"""Progress of long work. On a terminal it is a bar with rate and time left; elsewhere a line is printed now
and then.
"""

import sys
import time
from collections.abc import Iterator, Sequence
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
from rich.text import Text

from cluster.progress import listening

# Without a terminal: seconds before the first line, the factor by which each wait grows, the longest wait.
FIRST_LINE_S, LONGER, LONGEST_S = 10.0, 1.5, 300.0


class Bar:
    """Counts how much of one piece of work is done, in its own unit.

    Args:
        before: how much was done before this run began. It counts as done, but not in the rate.
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str,
        console: Console,
        progress: Progress | None,
        before: float = 0.0,
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.before = 0.0, before
        self._console, self._progress = console, progress
        self._began = time.monotonic()
        self._next, self._wait = self._began + FIRST_LINE_S, FIRST_LINE_S
        self._task = progress.add_task(name, total=total or None, rate="") if progress is not None else None

    def advance(self, count: float = 1) -> None:
        self.set(self.done + count, self.total)

    def set(self, done: float, total: int) -> None:
        """Set how much is done. Fractions count a unit that is partly done. `total` may change when it
        becomes known.
        """
        self.done, self.total = done, total
        self.before = min(self.before, done)  # a training goes back to its last checkpoint
        now, own = time.monotonic(), done - self.before
        elapsed = max(1e-9, now - self._began)
        rate = f"{rate_of(own, elapsed)} {self.unit}/s"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total or None, rate=rate)
        elif now >= self._next:
            self._wait = min(LONGER * self._wait, LONGEST_S)
            self._next = now + self._wait
            left = f", {elapsed / own * (total - done):,.0f} s left" if own and total > done else ""
            line = f"{self.name}: {done:,.0f} of {total:,} {self.unit}, {rate}{left}"
            self._console.print(line, markup=False)

    @contextmanager
    def call(self, rows: int) -> Iterator[None]:
        """Count the rows of one call: those that it reports while it runs, and all of them when it ends."""
        before = self.done
        with listening(lambda share: self.advance(share * rows)):
            yield
        self.set(before + rows, self.total)

    def close(self) -> None:
        """Print one last line: how much was done in how many seconds."""
        seconds = time.monotonic() - self._began
        if own := self.done - self.before:
            self._console.print(f"{self.name}: {own:,.0f} {self.unit} in {seconds:,.1f} s", markup=False)


def rate_of(done: float, seconds: float) -> str:
    """A rate per second as text, with two significant digits if it is below one.

    >>> rate_of(5000, 2), rate_of(1, 30)
    ('2,500.0', '0.033')
    """
    rate = done / seconds
    return f"{rate:,.1f}" if rate >= 1 else f"{rate:.2g}"


def printable(text: str) -> str:
    """A text with its control characters escaped, so that a model's text cannot move a terminal's cursor.

    >>> print(printable("red: " + chr(27) + "[31m"))
    red: \\x1b[31m
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


class Terminal:
    """A run's output to its user: lines and bars on standard output, or nothing with `quiet`."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(
            file=sys.stdout, highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=quiet
        )

    def say(self, text: str) -> None:
        """Print one line. Nothing in it is read as markup, and its control characters are escaped."""
        self.console.print(printable(text), markup=False)

    def say_marked(self, pieces: Sequence[tuple[str, bool]]) -> None:
        """Print a text whose marked pieces are in colour on a terminal, and in brackets elsewhere. Control
        characters but line breaks are escaped.
        """
        text = Text()
        for piece, is_marked in pieces:
            shown = printable(piece)
            if self.console.is_terminal:
                text.append(shown, style="bold magenta" if is_marked else "")
            else:
                text.append(f"[{shown}]" if is_marked else shown)
        self.console.print(text)

    def show(self, table: Table) -> None:
        """Print a table, wide enough for a log file. Its cells are not read as markup."""
        width = None if self.console.is_terminal else 180
        shown = Console(file=sys.stdout, highlight=False, width=width, markup=False, emoji=False)
        for column in table.columns:
            column._cells = [printable(str(cell)) for cell in column._cells]
        shown.print(table)

    @contextmanager
    def bar(self, name: str, total: int, unit: str, before: float = 0.0) -> Iterator[Bar]:
        """Show progress while the block runs. `before` was done earlier."""
        if not self.console.is_terminal:
            bar = Bar(name, total, unit, self.console, None, before)
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
            bar = Bar(name, total, unit, self.console, progress, before)
            yield bar
        bar.close()
