"""Where every question and every answer of a round ended. Each has exactly one state."""

from collections import Counter
from collections.abc import Collection, Sequence

import pandas as pd

NO_STEP = "no_step_left"  # it was usable, but no step of the round drew it


def ledger_of(
    states: Sequence[str], is_own: Sequence[bool], seen: Collection[int] | None, questions: int, drawn: int
) -> pd.DataFrame:
    """Count final states.

    Args:
        states: of the answers, in the order of the examples.
        is_own: whether each is the student's own rollout.
        seen: the numbers of the examples that a step used. None if all were used.
        questions: the number of questions of the run.
        drawn: how many of them the round drew.

    Raises:
        RuntimeError: the totals do not add up.
    """
    if len(states) != len(is_own) or drawn > questions:
        raise RuntimeError(f"{len(states)} states of {len(is_own)} answers, {drawn} of {questions} questions")
    found, number = Counter[tuple[str, str]](), 0
    for state, own in zip(states, is_own, strict=True):
        final = state
        if state == "usable":
            final = "trained" if seen is None or number in seen else NO_STEP
            number += 1
        found["rollout" if own else "teacher's answer", final] += 1
    rows = [("question", "drawn", drawn), ("question", "not_drawn", questions - drawn)]
    rows += [(kind, state, n) for (kind, state), n in found.items()]
    return pd.DataFrame([row for row in rows if row[2]], columns=["kind", "state", "count"])
