"""Ctrl-C, SIGTERM and SIGHUP: they end a command cleanly, and the same command continues the work.

The first of these signals raises KeyboardInterrupt in the main thread. Later ones are ignored, because they
would interrupt the clean end. Ray replaces our handler when it starts, and `cluster.session` restores it.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import FrameType
from typing import Any

import typer

from cluster.storage import Place
from jobs.run.progress import Terminal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _while_ending)
    raise KeyboardInterrupt


def _while_ending(_signal: int, _frame: FrameType | None) -> None:
    """Ignore a signal, because the clean end has begun."""


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Handle these signals like Ctrl-C while the block runs. A signal that was ignored before, as under
    nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield
        return
    previous = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _as_interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def interruptible(terminal: Terminal, directory: Place) -> Iterator[None]:
    """Print how to continue if the block is interrupted. Its finished work is kept."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):  # after SIGHUP the terminal may be gone
            terminal.say(
                f"interrupted; finished work is kept, run the same command again to go on ({directory})"
            )
        raise typer.Exit(INTERRUPTED) from None


def told_when_interrupted(door: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that it prints one line and exits if it is interrupted."""

    @wraps(door)
    def told(*arguments: Any, **options: Any) -> None:
        try:
            door(*arguments, **options)
        except KeyboardInterrupt:
            with suppress(OSError):
                print("tutelage: interrupted; run the same command again", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    return told
