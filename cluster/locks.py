"""File locks between processes. A lock ends with its process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def held(lock: Path, on_wait: Any = None) -> Iterator[None]:
    """Hold an exclusive lock on a local or shared file system during the block.

    The lock belongs to the process and ends with it, however the process ends. A leftover lock file therefore
    blocks no process. The file is never removed. On a network file system another machine could still see the
    old file and lock it, while a third process locks the new one.

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
    """Hold a lock during the block if no other process holds it. Yields whether it is held."""
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
