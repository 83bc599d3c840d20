"""Progress of a call, reported from the code that finishes its rows to a listener.

A handler takes a whole shard and returns when all of it is done, which can take many minutes. The code that
works through the rows reports the finished share after each batch. The code in between has nothing to pass
on. Without a listener a report is ignored.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TELLING = threading.Lock()
_LISTENER: ContextVar[Callable[[float], None]] = ContextVar("listener", default=lambda share: None)


@contextmanager
def listening(told: Callable[[float], None]) -> Iterator[None]:
    """During the block, call `told` with the share of a call's rows that each batch finishes, in this
    thread.
    """
    token = _LISTENER.set(told)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell(share: float) -> None:
    """Report that a further share of a call's rows is done.

    >>> heard = []
    >>> with listening(heard.append):
    ...     tell(0.5)
    >>> tell(0.5)
    >>> heard
    [0.5]
    """
    _LISTENER.get()(share)


class Piece:
    """A part of a call's rows, reported while it is under way. What is computed twice is reported once.
    It may be reported from another thread than the one that made it.

    Args:
        share: of the call's rows.

    >>> heard = []
    >>> with listening(heard.append):
    ...     half = Piece(0.5)
    >>> half.reach(0.5)
    >>> half.reach(0.25)
    >>> half.reach(1.0)
    >>> heard
    [0.25, 0.25]
    """

    def __init__(self, share: float) -> None:
        self.share, self.reached = share, 0.0
        self._listener = _LISTENER.get()

    def reach(self, done: float) -> None:
        """Report how much of the piece is done, from 0 to 1."""
        with _TELLING:
            if done > self.reached:
                self._listener((done - self.reached) * self.share)
                self.reached = done
