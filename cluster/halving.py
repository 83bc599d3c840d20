"""Computing rows together so that one bad row does not fail the others. On an exception the rows are halved,
down to the row that caused it.

Running out of memory is an exception like any other. An error that leaves the device broken is not, because
everything after it would fail too. It is raised; the pool ends the process, and `jobs.run.quarantine` finds
the row.
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
    """One result for each row, in order: the result of `run`, or the exception of a row that fails by
    itself.

    Args:
        run: computes some rows; one result each, in order.
        free: gives back memory before smaller parts are tried.

    Raises:
        Exception: an error that breaks the device for good, unchanged.
    """
    if not rows:
        return []
    try:
        return list(run(rows))
    except Exception as error:
        if breaks_device(error):
            raise
        failure = error.with_traceback(None)  # its frames would keep the batch's tensors alive
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
