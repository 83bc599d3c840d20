"""Ctrl-C and SIGTERM: a clean end, after which the same command goes on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from cluster.storage import Place
from jobs.run.progress import Terminal


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def interruptible(terminal: Terminal, directory: Place) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a clean end that says how to go on."""
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        yield
    except KeyboardInterrupt:
        terminal.say(f"interrupted; finished work is kept, run the same command again to go on ({directory})")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
