"""How far a call has come, told from where its rows are finished to whoever listens.

A handler takes a shard at once and answers when all of it is done, which can take many minutes. What works
through the rows, batch by batch, tells the share of them that is done; nobody on the way has to hand anything
through. Without a listener the word is lost.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LISTENER: ContextVar[Callable[[float], None]] = ContextVar("listener", default=lambda share: None)


@contextmanager
def listening(told: Callable[[float], None]) -> Iterator[None]:
    """Let `told` hear while the block runs, in this thread, which share of a call's rows is done, batch by
    batch.
    """
    token = _LISTENER.set(told)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell(share: float) -> None:
    """Say that this share more of a call's rows is done.

    >>> heard = []
    >>> with listening(heard.append):
    ...     tell(0.5)
    >>> tell(0.5)
    >>> heard
    [0.5]
    """
    _LISTENER.get()(share)
