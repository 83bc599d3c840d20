"""What is said of students that moved away from what they were drawn to."""

import pandas as pd

from jobs.systems.ogls_sd.sections import away_from_targets

COLUMNS = ["student", "arm", "seed", "round", "exact KL, first step", "exact KL, last"]


def test_who_moved_away_from_its_target_is_named_and_a_target_that_is_the_student_too() -> None:
    rows = [
        ("kid", "ogls", 0, 1, 0.2, 0.5),
        ("kid", "ogls", 1, 1, 0.2, 0.3),
        ("kid", "ogls", 0, 2, 0.5, 0.1),
        ("kid", "lambda zero", 0, 1, 1e-9, 0.005),
        ("kid", "opsd", 0, 1, -1e-10, 0.1),
        ("kid", "rejection sampling", 0, 1, float("nan"), float("nan")),
    ]
    assert away_from_targets(pd.DataFrame(rows, columns=COLUMNS)) == [
        "kid, ogls, round 1: exact KL rose from 0.200 to 0.400 nats per token",
        "kid, lambda zero, round 1: the target was the student itself when the round began",
        "kid, opsd, round 1: the target was the student itself when the round began",
        "kid, opsd, round 1: exact KL rose from 0.000 to 0.100 nats per token",
    ]
    assert away_from_targets(pd.DataFrame(columns=COLUMNS[:4])) == []
