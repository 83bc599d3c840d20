"""The best teacher in hindsight: found where there is one, not rewarded for lucky questions or seeds."""

import numpy as np
import pytest

from training.hindsight import best_in_hindsight, best_on_other_seeds, first_half


def test_the_best_is_found_everywhere_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.binomial(1, p, (2, 400)).astype(float) for name, p in (("a", 0.3), ("b", 0.7))}
    found, taken = best_in_hindsight(values)
    assert taken == ("b",)
    assert (found == values["b"]).all()


def test_of_many_equal_ones_neither_lucky_questions_nor_lucky_trainings_are_rewarded() -> None:
    """Twenty teachers of equal worth, 100 questions, trainings that differ by five points: chosen and judged
    by the same trainings the best looks too good though other questions judge it.
    """
    crossed, same_seeds = [], []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        chances = {f"t{k}": 0.5 + rng.normal(0, 0.05, (2, 1)) for k in range(20)}
        values = {name: (rng.random((2, 100)) < p).astype(float) for name, p in chances.items()}
        crossed.append(best_in_hindsight(values, seed)[0].mean())
        halves = first_half([str(k) for k in range(100)], seed)
        best = max(values, key=lambda name: float(values[name][:, halves].mean()))
        same_seeds.append(values[best][:, ~halves].mean())
    error = 4 * np.std(crossed) / np.sqrt(80)
    assert abs(np.mean(crossed) - 0.5) < error
    assert np.mean(same_seeds) > 0.5 + 0.015


def test_each_quarter_is_judged_under_the_best_of_the_opposite_one() -> None:
    """Four teachers, each right in one quarter alone: the one taken is never right where it is judged."""
    first_Q, first_S = first_half([str(k) for k in range(10)], 3), first_half(["seed 0", "seed 1"], 3)
    values = {}
    for name, rows, columns in (
        ("a", first_S, first_Q),
        ("b", first_S, ~first_Q),
        ("c", ~first_S, first_Q),
        ("d", ~first_S, ~first_Q),
    ):
        values[name] = np.outer(rows, columns).astype(float)
    found, taken = best_in_hindsight(values, seed=3)
    assert taken == ("a", "b", "c", "d")
    assert found.sum() == 0.0
    # the opposite way round: right wherever the opposite quarter takes it
    turned = dict(zip("abcd", (values[name] for name in "dcba"), strict=True))
    both = {name: values[name] + turned[name] for name in "abcd"}
    assert best_in_hindsight({"x": both["a"], "y": both["b"]}, seed=3)[0].sum() == 20.0
    with pytest.raises(ValueError, match="at least one arm to choose from"):
        best_in_hindsight({})


def test_with_one_seed_the_questions_alone_are_cut() -> None:
    halves = first_half([str(k) for k in range(10)], 3)
    values = {"a": halves.astype(float)[None], "b": (~halves).astype(float)[None]}
    found, taken = best_in_hindsight(values, seed=3)
    assert taken == ("a", "b")
    assert found.sum() == 0.0
    assert halves.sum() == 5


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


def test_what_cannot_be_judged_chooses_nothing() -> None:
    values = {"a": np.array([[1.0, np.nan, 0.0, 0.0]]), "b": np.array([[0.0, 0.0, 1.0, 1.0]])}
    chooses = np.array([True, True, False, False])
    found, taken = best_on_other_seeds(values, chooses, ~chooses)
    assert taken == ("a",)
    assert found.tolist() == [[0.0, 0.0]]


def test_of_unequal_seeds_those_that_all_have_are_taken() -> None:
    """It was a crash of np.stack."""
    rng = np.random.default_rng(0)
    values = {"a": rng.random((5, 20)), "b": rng.random((2, 20)), "c": rng.random((3, 20))}
    found, taken = best_in_hindsight(values)
    same, names = best_in_hindsight({name: one[:2] for name, one in values.items()})
    assert (found == same).all()
    assert taken == names


def test_without_a_question_that_chooses_nobody_is_taken() -> None:
    """The first by the alphabet was."""
    every = np.ones(4, bool)
    with pytest.raises(ValueError, match="no question is left to choose by"):
        best_on_other_seeds({"a": np.zeros((1, 4)), "b": np.ones((1, 4))}, ~every, every)
    some = {"a": np.array([[np.nan, np.nan, 1.0, 1.0]]), "b": np.array([[0.0, 0.0, 0.0, 0.0]])}
    first = np.array([True, True, False, False])
    assert best_on_other_seeds(some, first, ~first)[1] == ("b",)
