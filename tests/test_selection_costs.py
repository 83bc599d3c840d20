"""Costs: hand-worked values, extremes, and refusals."""

import pandas as pd
import pytest

from cluster.errors import BadInput
from selection.costs import CostSettings, compute_cost

TABLE = pd.DataFrame(
    {
        "answer_id": ["a", "b"],
        "n_answer": [4, 2],
        "n_question": [2, 2],
        "answer_loss": [8.0, 1.0],
        "question_loss": [6.0, 6.0],
        "answer_norm_sq": [8.0, 4.0],
        "cross_dot": [-4.0, 2.0],
        "clipped_rank": [12.0, 2.0],
        "entropy": [4.0, 3.0],
        "max_loss": [5.0, 0.75],
    }
)


def test_scas_by_hand() -> None:
    # a: D_A 2, D_Q 3, a.a 0.5, a.b -0.5 -> C_AA 2, C_AQ -3; b: D_A 0.5, a.a 1, a.b 0.5 -> C_AA 0.25, C_AQ
    # 0.75
    assert compute_cost(TABLE, CostSettings("scas", 0.5)).tolist() == [-0.5, 0.5]
    assert compute_cost(TABLE, CostSettings("scas", 0.0)).tolist() == [2.0, 0.25]
    assert compute_cost(TABLE, CostSettings("scas", 1.0)).tolist() == [-3.0, 0.75]


def test_length_aware_scas_counts_total_loss_at_exponent_zero_and_is_scas_at_one() -> None:
    assert compute_cost(TABLE, CostSettings("scas", 0.0, length_exponent=0.0)).tolist() == [8.0**2 * 0.5, 1.0]
    assert (
        compute_cost(TABLE, CostSettings("scas", 0.5, 1.0)).tolist()
        == compute_cost(TABLE, CostSettings("scas", 0.5)).tolist()
    )


def test_the_rivals_by_hand() -> None:
    assert compute_cost(TABLE, CostSettings("naturalness")).tolist() == [2.0, 0.5]
    assert compute_cost(TABLE, CostSettings("rsr")).tolist() == [1.5, 2.0]
    assert compute_cost(TABLE, CostSettings("shortest")).tolist() == [4.0, 2.0]
    assert compute_cost(TABLE, CostSettings("longest")).tolist() == [-4.0, -2.0]


def test_our_own_costs_by_hand() -> None:
    assert compute_cost(TABLE, CostSettings("total_loss")).tolist() == [8.0, 1.0]
    assert compute_cost(TABLE, CostSettings("excess_loss")).tolist() == [1.0, -1.0]
    assert compute_cost(TABLE, CostSettings("worst_token")).tolist() == [5.0, 0.75]


def test_a_cost_that_is_not_a_number_is_refused_with_its_answer() -> None:
    broken = TABLE.assign(answer_loss=[float("nan"), 1.0])
    with pytest.raises(BadInput, match=r"not finite.*got a"):
        compute_cost(broken, CostSettings())
    with pytest.raises(BadInput, match="lambda"):
        compute_cost(TABLE, CostSettings(scas_lambda=1.5))
