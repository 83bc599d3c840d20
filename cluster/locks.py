"""File locks by which processes keep out of one another's way; they end with their process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def held(lock: Path, on_wait: Any = None) -> Iterator[None]:
    """Hold an exclusive lock on this machine's (or a shared) file system for the length of a block.

    It belongs to the process and goes with it, however that ends: a lock file somebody left behind holds
    nobody up. The file is never removed: on a network file system a machine that still sees the old one would
    then hold it beside who holds the new one.

    Args:
        on_wait: called once, without arguments, if another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held_if_free(lock: Path) -> Iterator[bool]:
    """Hold a lock for the length of a block if no other process does; yields whether it is held here."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_held(lock: Path) -> bool:
    """Whether some process holds a lock now."""
    with held_if_free(lock) as free:
        return not free
