"""A pool without a verified answer says what became of its answers and why, instead of one advice for all."""

from collections.abc import Iterator
from typing import cast

import pandas as pd
import pytest

from jobs.stages.pool import AnswerPool
from jobs.stages.unverified import REMEDIES, nothing_verified


class Pool:
    """As much of a pool as is looked at: slices of states."""

    def __init__(self, *slices: list[tuple[str, str, str, str]]) -> None:
        columns = ["state", "error", "extracted", "teacher"]
        self.slices = [pd.DataFrame(rows, columns=columns) for rows in slices]

    @property
    def by_state(self) -> dict[str, int]:
        states = pd.concat(self.slices)["state"].value_counts()
        return {str(state): int(n) for state, n in states.items()}

    def each(self) -> Iterator[pd.DataFrame]:
        return iter(self.slices)


def told(*slices: list[tuple[str, str, str, str]]) -> str:
    return str(nothing_verified(cast(AnswerPool, Pool(*slices))))


def test_reasons_that_differ_in_numbers_are_one_and_the_commonest_come_first() -> None:
    slow = [("failed", f"HTTP 429: request req_{k}f3 came too soon", "", f"t{k % 5}") for k in range(40)]
    gone = [("failed", "HTTP 503: upstream is gone", "", "t1")] * 3
    judge = [("checker_error", "", "the judge failed: HTTP 402: no credit", "t1")] * 7
    line = told(slow[:20] + gone, slow[20:] + judge)
    assert (
        "got 43 failed, 7 checker_error; most often failed: HTTP 429: request req_0f3 came too soon" in line
    )
    assert "(40 times, t0, t1, t2 and 2 more) | checker_error: the judge failed: HTTP 402" in line
    assert line.index("no credit (7 times, t1)") < line.index("upstream is gone (3 times, t1)")
    assert "--retry-failed" in line
    assert "verify.pattern" not in line
    assert "\n" not in line


@pytest.mark.parametrize("state", sorted(REMEDIES))
def test_each_cause_has_its_own_advice(state: str) -> None:
    line = told([(state, "", "", "t")] * 2)
    assert f"got 2 {state}" in line
    assert line.endswith(REMEDIES[state])


def test_a_pool_of_nothing_says_so() -> None:
    assert "got no answers at all; expected at least one" in told([])
