"""Waiting with a deadline that follows the machine: so long on a quick one, longer where it is slow or busy.

A deadline is there to find what hangs. Seconds by the clock find a busy machine as well. So every look at a
deadline measures how long a small calculation takes now, and time counts for as much less.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Any

QUICK_S = 0.02  # what `_calculation` takes on a quick core that nobody else uses
LOOK_S = 1.0  # between measurements


def _calculation() -> int:
    """Longer than what a core gives one process before it looks who else waits."""
    return sum(k * k for k in range(400_000))


def slowness() -> float:
    """How many times longer a calculation takes here and now than on a quick core; 1 at the least."""
    began = time.perf_counter()
    _calculation()
    return max(1.0, (time.perf_counter() - began) / QUICK_S)


class Patience:
    """So many seconds of a quick core."""

    def __init__(self, seconds: float) -> None:
        self.left, self._looked = seconds, time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether they are used up: each measurement takes off the time since the last one at its speed."""
        passed = time.monotonic() - self._looked
        if passed >= LOOK_S and self.left > 0:
            self.left -= passed / slowness()
            self._looked += passed
        return self.left <= 0


def wait_until(happened: Callable[[], object], seconds: float, every_s: float = 0.02) -> None:
    """Look again and again until it has happened.

    Raises:
        AssertionError: it has not, and patience is over.
    """
    patience = Patience(seconds)
    while not happened():
        assert not patience.is_over, f"it has not happened within {seconds:g} s of a quick machine"
        time.sleep(every_s)


def end_of(process: "subprocess.Popen[Any]", seconds: float) -> tuple[Any, Any]:
    """What a process said on both channels up to its end; one that does not come to it is killed.

    Raises:
        AssertionError: patience is over; with what it said.
    """
    patience = Patience(seconds)
    while True:
        try:
            return process.communicate(timeout=LOOK_S)
        except subprocess.TimeoutExpired:
            if patience.is_over:
                process.kill()
                said = process.communicate()
                raise AssertionError(f"no end within {seconds:g} s of a quick machine: {said}") from None
