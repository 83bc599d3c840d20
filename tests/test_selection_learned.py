"""A learned cost: by hand, fitted to what is known, and refused where it makes no sense."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import BadInput
from jobs.experiment.parsing import parse_experiment
from selection.costs import FEATURES, CostSettings, compute_cost, features_of
from selection.learned import fit
from selection.scoring import STATISTIC_NAMES


def statistics(rng: np.random.Generator, answers: int) -> pd.DataFrame:
    table = pd.DataFrame(rng.uniform(0.5, 4.0, size=(answers, len(STATISTIC_NAMES))), columns=STATISTIC_NAMES)
    return table.assign(n_answer=rng.integers(1, 50, answers), n_question=rng.integers(1, 50, answers))


def test_a_learned_cost_is_minus_a_weighted_sum_of_features() -> None:
    table = pd.DataFrame([dict.fromkeys(STATISTIC_NAMES, 0.0)])
    table = table.assign(n_answer=4, n_question=2, answer_loss=6.0)
    given_weights = CostSettings("learned", coefficients=(("log_tokens", 3.0), ("mean_loss", -2.0)))
    assert compute_cost(table, given_weights).tolist() == [pytest.approx(2 * 1.5 - 3 * np.log(4))]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(20, 60), st.floats(0.1, 1000))
def test_coefficients_of_a_linear_gain_are_found_whatever_the_scale_of_a_feature(
    seed: int, pairs: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    x = features_of(statistics(rng, pairs))
    true = dict(zip(FEATURES, rng.normal(size=len(FEATURES)).tolist(), strict=True))
    gains = 7.0 + x @ pd.Series(true)
    assert fit(x, gains, ridge=0.0) == pytest.approx(true, rel=1e-3, abs=1e-3)
    plain = fit(x, gains)
    scaled = fit(x.assign(mean_loss=x["mean_loss"] * scale), gains)
    assert scaled["mean_loss"] * scale == pytest.approx(plain["mean_loss"], rel=1e-6, abs=1e-8)


def test_noise_and_features_that_never_change_get_no_weight() -> None:
    rng = np.random.default_rng(1)
    x = features_of(statistics(rng, 400)).assign(max_loss=2.5)
    noise = pd.Series(rng.normal(size=400))
    found = fit(x, 5 * x["question_similarity"] + noise)  # which hangs on no other feature
    assert found["max_loss"] == 0.0
    spread = {name: abs(w) * float(x[name].std()) for name, w in found.items()}
    assert max(spread, key=lambda name: spread[name]) == "question_similarity"
    assert np.corrcoef(x @ pd.Series(found), x["question_similarity"])[0, 1] > 0.9
    with pytest.raises(ValueError, match="two pairs"):
        fit(x.iloc[:1], pd.Series([1.0]))
    with pytest.raises(ValueError, match="finite"):
        fit(x.iloc[:3], pd.Series([1.0, float("nan"), 2.0]))


@pytest.mark.parametrize(
    "arm",
    [
        {"cost": "learned"},
        {"cost": "learned", "coefficients": {"mean_lost": 1.0}},
        {"cost": "scas", "coefficients": {"mean_loss": 1.0}},
        {"cost": "scas", "window": 2},
        {"cost": "ifd", "beta": 2},
    ],
)
def test_options_of_another_cost_are_refused(small_world: dict[str, object], arm: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"coefficients|window|beta"):
        parse_experiment(small_world | {"arms": [{"name": "a", "rule": "minimum", **arm}]})
