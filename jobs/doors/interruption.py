"""Ctrl-C, SIGTERM and SIGHUP: a clean end, after which the same command goes on.

All three raise KeyboardInterrupt in the main thread, and only the first of them does: those that come while
the end is under way would leave half of it undone. Ray puts a handler of its own in place of ours when it
starts; `cluster.session` puts ours back.
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
    """Do nothing: the end is under way."""


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Let each of these signals end what runs in the block as Ctrl-C does; one that is ignored, as under
    nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
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
    """Say how to go on when what keeps its finished work is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone: that is what SIGHUP says
            terminal.say(
                f"interrupted; finished work is kept, run the same command again to go on ({directory})"
            )
        raise typer.Exit(INTERRUPTED) from None


def told_when_interrupted(door: Callable[..., None]) -> Callable[..., None]:
    """A command that ends in one line when it is interrupted, whatever it was about."""

    @wraps(door)
    def told(*arguments: Any, **options: Any) -> None:
        try:
            door(*arguments, **options)
        except KeyboardInterrupt:
            with suppress(OSError):
                print("tutelage: interrupted; run the same command again", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    return told
