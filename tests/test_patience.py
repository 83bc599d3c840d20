"""Deadlines of tests follow the machine."""

import subprocess
import sys

import pytest

from tests import patience
from tests.patience import Patience, end_of, wait_until


def test_time_counts_for_less_where_a_calculation_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    for slow in (1.0, 4.0):
        monkeypatch.setattr(patience, "slowness", lambda slow=slow: slow)
        limit, seconds = Patience(10.0), 0
        while not limit.is_over:
            now[0] += 1
            seconds += 1
        assert seconds == 10 * slow


def test_what_never_happens_and_who_never_ends_are_given_up() -> None:
    with pytest.raises(AssertionError, match="has not happened within 0 s"):
        wait_until(lambda: False, 0)
    code = "print('here', flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with pytest.raises(AssertionError, match="no end within 1 s of a quick machine"):
        end_of(process, 1)
    assert process.returncode != 0
