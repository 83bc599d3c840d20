"""How many threads compute a model, and how they wait for one another.

Threads of one operation meet at its end. On a machine that others use too, one of them is often not running,
and the others spin for it: with their default a small model computes a twentieth of what it does when quiet.
So threads of ours sleep while they wait. A small model's operations are over sooner than a thread wakes up:
there every batch has one thread, and several batches go on side by side.

What a user has set in the environment stays as it is.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

# How OpenMP's threads wait, read when torch is imported: by libgomp and by Intel's library alike.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
SET_BY_USERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
SMALL = 20_000_000  # parameters
MOST_LANES = 4  # of one process: more would wait for the interpreter
R = TypeVar("R")
T = TypeVar("T")


def waiting() -> dict[str, str]:
    """The environment by which threads sleep while they wait; nothing where a user has said how they do."""
    told = (name for name in SET_BY_USERS if os.environ.get(name) not in (None, WAITING.get(name)))
    return {} if any(told) else dict(WAITING)


def wait_asleep() -> None:
    """Let this process's threads, and those of its children, sleep while they wait. To be called before torch
    is imported; later only children take it up.
    """
    os.environ.update(waiting())


def is_small(model: Any) -> bool:
    """Whether a model's operations are too short to be shared among threads of a processor."""
    on_cpu = model.device.type == "cpu"
    return on_cpu and sum(p.numel() for p in model.parameters()) < SMALL


def lanes_of(model: Any) -> int:
    """How many batches of a model go on side by side: for a small one as many as there are threads, up to
    four.
    """
    import torch

    return min(torch.get_num_threads(), MOST_LANES) if is_small(model) else 1


@contextmanager
def one_thread(model: Any) -> Iterator[None]:
    """One thread for each operation of a small model while the block runs."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or not is_small(model):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(lanes: int, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Do some work on every item, so many at a time, each in a thread of its own; results come in order.

    The threads start anew, and so take the number of threads that torch has now.
    """
    if lanes <= 1 or len(items) <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
