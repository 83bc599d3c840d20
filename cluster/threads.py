"""How many threads compute a model, and how threads wait for one another.

The threads of one operation wait for one another at its end. On a busy machine one of them is often not
running, and by default the others spin: a small model then runs at a twentieth of its speed on a quiet
machine. So our threads sleep while they wait. The operations of a small model end sooner than a thread wakes
up. There each batch has one thread, and several batches run side by side.

Settings of the user's environment are not changed.
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
    """The environment that makes threads sleep while they wait. Empty if the user has set how they wait."""
    told = (name for name in SET_BY_USERS if os.environ.get(name) not in (None, WAITING.get(name)))
    return {} if any(told) else dict(WAITING)


def wait_asleep() -> None:
    """Make the threads of this process and its children sleep while they wait. Call it before torch is
    imported. Later it only affects children.
    """
    os.environ.update(waiting())


def is_small(model: Any) -> bool:
    """Whether a model's operations on a CPU are too short to be shared among threads."""
    on_cpu = model.device.type == "cpu"
    return on_cpu and sum(p.numel() for p in model.parameters()) < SMALL


def lanes_of(model: Any) -> int:
    """How many batches of a model run side by side. For a small model as many as there are threads, at most
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
    """Work on every item, `lanes` at a time, each in its own thread. Results come in order.

    The threads are new, so they use torch's present number of threads.
    """
    if lanes <= 1 or len(items) <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
