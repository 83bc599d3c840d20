"""Progress of a call, reported from the code that finishes its rows to a listener.

A handler takes a whole shard and returns when all of it is done, which can take many minutes. The code that
works through the rows reports the finished share after each batch. The code in between has nothing to pass
on. Without a listener a report is ignored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
