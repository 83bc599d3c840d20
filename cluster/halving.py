"""Rows computed together that must not fail together: on any exception the rows are halved, down to the one
that did it.

Memory that runs out is an exception like others. An error that leaves the device broken is not: everything
after it would fail too, so it is raised, the pool ends the process, and `jobs.run.quarantine` finds the row.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from cluster.memory import free_memory

R = TypeVar("R")
T = TypeVar("T")


def run_halving(
    rows: Sequence[R], run: Callable[[Sequence[R]], Sequence[T]], free: Callable[[], None] | None = None
) -> list[T | Exception]:
    """One result per row, in order: what `run` gave, or the exception of a row that fails alone.

    Args:
        run: computes some rows; one result each, in order.
        free: gives back memory before smaller parts are tried.

    Raises:
        Exception: what breaks the device for good, as it came.
    """
    if not rows:
        return []
    try:
        return list(run(rows))
    except Exception as error:
        if breaks_device(error):
            raise
        failure = error.with_traceback(None)  # its frames hold the batch's tensors
    if free is not None:
        free()
    free_memory()
    if len(rows) == 1:
        return [failure]
    middle = len(rows) // 2
    return run_halving(rows[:middle], run, free) + run_halving(rows[middle:], run, free)


def breaks_device(error: BaseException) -> bool:
    """Whether nothing more can be computed in this process: a device-side assertion or an illegal access on a
    GPU.
    """
    torch = sys.modules.get("torch")
    if torch is None or isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, torch.AcceleratorError)
