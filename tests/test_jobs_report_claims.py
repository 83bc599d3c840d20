"""What a run's comparisons may claim together: one seed, and their number."""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest

from jobs.report.claims import claim_lines, corrected_p
from jobs.results.summary import Results
from training.comparison import Comparison, compare


@dataclass
class Compared:
    """The one part of a run's results that claims follow from."""

    comparisons: list[tuple[str, str, Comparison]]


def results(p_values: list[float], seeds: int = 2) -> Results:
    one = compare(np.eye(2, 8), np.zeros((2, 8)), "x", "y")
    every = [
        ("kid", f"arm {k}", replace(one, p_value=p, seeds=seeds, against="random"))
        for k, p in enumerate(p_values)
    ]
    return cast(Results, Compared(every))


@pytest.mark.parametrize(
    ("p_values", "said"),
    [
        ([0.04], []),
        ([], []),
        ([0.2, 0.7], ["2 comparisons, none of them called: their number corrects nothing"]),
        (
            [0.04, 0.7],
            ["1 of 2 comparisons called, each by itself; corrected for their number by Holm none"],
        ),
        (
            [0.01, 0.04, 0.7, float("nan")],
            [
                "2 of 3 comparisons called, each by itself; corrected for their number by Holm 1: "
                "kid arm 0 against random (p = 0.030)"
            ],
        ),
        (
            [0.001, 0.0001],
            [
                "2 of 2 comparisons called, each by itself; corrected for their number by Holm 2: "
                "kid arm 0 against random (p = 0.001), kid arm 1 against random (p below 0.001)"
            ],
        ),
    ],
)
def test_which_differences_stay_where_their_number_is_counted_in(
    p_values: list[float], said: list[str]
) -> None:
    assert claim_lines(results(p_values)) == said
    one_seed = claim_lines(results(p_values, seeds=1))
    models = ["one training seed: this compares these trained models, not the ways of choosing"]
    assert one_seed == (models if p_values else []) + said
    corrected: Any = corrected_p(results(p_values))
    assert all(p >= q for p, q in zip(corrected, p_values, strict=True) if q == q)
