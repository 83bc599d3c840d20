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
    halves = first_half(10, seed=3)
    values["a"][0, halves] = 1.0  # a is right on the first half alone, b on the second
    values["b"][0, ~halves] = 1.0
    found, taken = best_in_hindsight(values, seed=3)
    assert taken == ("a", "b")
    assert found.sum() == 0.0
    with pytest.raises(ValueError, match="somebody to choose from"):
        best_in_hindsight({})


def first_half(questions: int, seed: int) -> np.ndarray:
    """Which questions are in the first half, told by single rights: whoever has one there is its best."""
    found = np.zeros(questions, dtype=bool)
    for k in range(questions):
        values = {"a": np.zeros((1, questions)), "b": np.zeros((1, questions))}
        values["b"][0, k] = 1.0
        found[k] = best_in_hindsight(values, seed)[1][0] == "b"
    return found


def test_halves_follow_the_questions_and_not_their_order() -> None:
    """Another order of the same file gave another bar, by up to six points."""
    rng = np.random.default_rng(5)
    names = [f"question {k}" for k in range(120)]
    values = {f"t{k}": rng.binomial(1, 0.5, (2, 120)).astype(float) for k in range(6)}
    found, taken = best_in_hindsight(values, 1, names)
    for _ in range(5):
        order = rng.permutation(120)
        moved = {name: v[:, order] for name, v in values.items()}
        again, same = best_in_hindsight(moved, 1, [names[k] for k in order])
        assert same == taken
        assert (again == found[:, order]).all()
    assert first_half(10, 3).sum() == 5
