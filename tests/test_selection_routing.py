"""Routing on made-up questions: it finds whom to ask where that hangs on the question, and refuses where it
does not.
"""

import numpy as np
import pytest

from cluster.errors import BadInput
from selection.routing import RIDGES, Routing, fit, route, values_of, words_of

TEACHERS = ("a", "b", "c", "d")


def drawn(seed: int, hangs_on_question: bool, first: int, count: int = 400) -> tuple[Routing, float]:
    """A routing, and what it really gained on the other questions."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, 4, count)
    texts = [[int(topic), *rng.integers(10, 60, 12).tolist()] for topic in topics]
    p = np.full((count, 4), 0.6) + np.array([0.1, 0, 0, 0])
    if hangs_on_question:
        p = np.where(topics[:, None] == np.arange(4), 0.9, 0.4)
    right, costs = rng.random((count, 4)) < p, rng.normal(size=(count, 4))
    values = values_of(right, costs, 0.4)
    told = rng.permutation(count)[:first]
    rest = np.setdiff1d(np.arange(count), told)
    found = route(words_of(texts), told.tolist(), rest.tolist(), values[told], TEACHERS)
    routed = values[rest, found.expected.argmax(axis=1)]
    return found, float((routed - values[rest, TEACHERS.index(found.best)]).mean())


def test_it_is_told_apart_where_it_hangs_on_the_question_and_its_estimate_holds() -> None:
    found = [drawn(seed, True, 300) for seed in range(12)]
    assert sum(r.can_tell for r, _ in found) >= 11
    assert np.mean([r.gain for r, _ in found]) == pytest.approx(np.mean([g for _, g in found]), abs=0.05)
    assert np.mean([gain for _, gain in found]) > 0.1


def test_it_is_not_told_where_teachers_differ_by_chance_alone() -> None:
    """Of draws in which nothing hangs on the question about one of forty may be told by 95 % intervals."""
    for first in (40, 100):
        found = [drawn(seed, False, first)[0].can_tell for seed in range(60)]
        assert sum(found) <= 4


def test_the_interval_covers_what_is_really_gained() -> None:
    """With the naive variance about three of four intervals do."""
    covered = []
    for seed in range(60):
        found, gained = drawn(seed, True, 100, 3000)
        covered.append(found.low <= gained <= found.high)
    assert np.mean(covered) >= 0.88


def test_values_by_hand() -> None:
    right = np.array([[True, True], [False, True]])
    costs = np.array([[1.0, 2.0], [0.1, 2.0]])
    # of three right answers the first is cheaper than two; the others are equal
    easiest, equal = 1 - 0.5 / 3, 1 - 2 / 3
    wanted = [[0.6 + 0.4 * easiest, 0.6 + 0.4 * equal], [0, 0.6 + 0.4 * equal]]
    np.testing.assert_allclose(values_of(right, costs, 0.4), wanted)
    np.testing.assert_allclose(values_of(right, costs, 0.0), right.astype(float))
    lost = np.where(right, costs, np.nan)
    lost[0, 0] = np.nan  # right, and could not be scored
    assert values_of(right, lost, 0.4)[0, 0] == 0


def test_predictions_are_those_of_a_slow_ridge_regression_with_the_ridge_of_the_smallest_left_out_error() -> (
    None
):
    rng = np.random.default_rng(2)
    x, new = rng.normal(size=(30, 6)), rng.normal(size=(5, 6))
    y = np.stack([x @ rng.normal(size=6), rng.normal(size=30)], axis=1)
    y += 0.3 * rng.normal(size=y.shape)

    def slow(rows: np.ndarray, targets: np.ndarray, at: np.ndarray, ridge: float) -> np.ndarray:
        means, centre = targets.mean(axis=0), rows.mean(axis=0)
        own = rows - centre
        weights = np.linalg.solve(own.T @ own + ridge * np.eye(6), own.T @ (targets - means))
        return means + (at - centre) @ weights

    fitted = fit(x @ x.T, y)
    ridge = fitted.ridge
    assert ridge is not None
    np.testing.assert_allclose(fitted(new @ x.T), slow(x, y, new, ridge), atol=1e-9)

    def shared_error(strength: float) -> float:
        """Left out one at a time, around the means and the centre of all rows."""
        own, centred = x - x.mean(axis=0), y - y.mean(axis=0)
        hat = own @ np.linalg.solve(own.T @ own + strength * np.eye(6), own.T) + 1 / 30
        residuals = centred - (hat - 1 / 30) @ centred
        return float(((residuals / (1 - np.diag(hat))[:, None]) ** 2).mean())

    assert ridge == min(RIDGES, key=shared_error)


def test_noise_is_predicted_by_the_means() -> None:
    rng = np.random.default_rng(3)
    ridges = []
    for _ in range(20):
        x, y = rng.normal(size=(40, 30)), rng.normal(size=(40, 3))
        ridges.append(fit(x @ x.T, y).ridge)
    assert ridges.count(None) >= 8


def test_words_hold_tokens_pairs_and_families_and_no_question_outweighs_another() -> None:
    words = words_of([[1, 2], [1, 2, 2], [3]], ["x", "x", "y"])
    gram = (words @ words.T).toarray()
    np.testing.assert_allclose(np.diag(gram), 2.0)
    assert gram[0, 1] > 1 > gram[0, 2] == 0
    alone = words_of([[1, 2], [1, 2, 2], []])
    assert (alone @ alone.T).toarray()[2, 2] == 0  # an empty text says nothing, and breaks nothing
    some = words_of([[1], [2], [3]], ["x", "", ""])
    assert (some @ some.T).toarray()[1, 2] == 0, "questions without a family have none in common"


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(BadInput, match="too few questions"):
        route(words_of([[1]] * 30), range(19), [20], np.zeros((19, 2)), ("a", "b"))
