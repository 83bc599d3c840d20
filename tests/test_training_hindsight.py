"""The best teacher in hindsight: found where there is one, and not rewarded for luck."""

import numpy as np
import pytest

from training.hindsight import best_in_hindsight


def test_the_best_is_found_on_either_half_and_judged_on_the_other() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.binomial(1, p, (2, 400)).astype(float) for name, p in (("a", 0.3), ("b", 0.7))}
    found, taken = best_in_hindsight(values)
    assert taken == ("b", "b")
    assert (found == values["b"]).all()


def test_of_many_equal_ones_the_luckiest_is_not_too_good() -> None:
    """Twenty students of equal worth on 100 questions: the best looks 9 points too good on the questions that
    it was taken by, and not on others.
    """
    taken, naive = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = {f"t{k}": rng.binomial(1, 0.5, (1, 100)).astype(float) for k in range(20)}
        taken.append(best_in_hindsight(values, seed)[0].mean())
        naive.append(max(v.mean() for v in values.values()))
    assert np.mean(naive) > 0.57
    assert abs(np.mean(taken) - 0.5) < 4 * 0.05 / np.sqrt(60)


def test_each_half_is_judged_under_the_best_of_the_other() -> None:
    values = {"a": np.zeros((1, 10)), "b": np.zeros((1, 10))}
    halves = np.random.default_rng(3).permutation(10)
    values["a"][0, halves[:5]] = 1.0  # a is right on the first half alone, b on the second
    values["b"][0, halves[5:]] = 1.0
    found, taken = best_in_hindsight(values, seed=3)
    assert taken == ("a", "b")
    assert found.sum() == 0.0
    with pytest.raises(ValueError, match="somebody to choose from"):
        best_in_hindsight({})
