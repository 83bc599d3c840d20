"""How sure means over questions and seeds are: hand-worked values, a slow version of the model, invariance,
extremes, published values.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from training.evaluation import (
    ONE_SEED,
    SeedVariance,
    accuracy_interval,
    arm_interval,
    linearised,
    louder,
    pool_seeds,
    uncertainty_of,
)


def test_wilsons_interval_has_its_published_value_and_extremes_stay_inside() -> None:
    interval = accuracy_interval(np.array([1.0] * 81 + [0.0] * 182))
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)  # Newcombe 1998, 81 of 263
    assert accuracy_interval(np.ones(20)).high == 1.0
    assert accuracy_interval(np.zeros(20)).low == 0.0
    assert accuracy_interval(np.zeros(20)).high > 0.1


def test_two_seeds_and_three_questions_by_hand() -> None:
    """Row means 1/3 and 1, column means 1/2, 1/2, 1; residuals of size 1/6, 1/6 and 1/3 in either row."""
    pool = pool_seeds([np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])])
    assert pool.s2 == pytest.approx(2 / 9)  # (1/3)^2 + (1/3)^2
    # squares: 2 x (1/36 + 1/36 + 1/9) = 1/3, over (2-1)(3-1) = 2, over Q = 3
    assert pool.noise == pytest.approx(1 / 18)
    assert pool.freedom == 1
    # differences 1/2, 0, 1: mean 1/2, variance 1/4, A = 1/12; V = 1/12 + 2 (2/9 - 1/18) / 2 = 1/4
    sure = uncertainty_of(np.array([0.5, 0.0, 1.0]), [2, 2], pool)
    assert sure.questions == pytest.approx(1 / 12)
    assert sure.variance == pytest.approx(1 / 4)
    # V^2 / (A^2 / 2 + (2 s2 / S)^2 / f) = 1/16 / (1/288 + 4/81), at least 1
    assert sure.freedom == pytest.approx(max(1.0, (1 / 16) / (1 / 288 + 4 / 81)))
    assert sure.p_value(0.5) == pytest.approx(2 * stats.t.sf(0.5 / 0.5, sure.freedom))


def test_noise_alone_may_make_the_seeds_part_negative_but_not_more_than_half() -> None:
    """It is not cut at 0, which would cover 97 % at two seeds."""
    d = np.array([1.0, 0.0, 0.0, 0.0])
    between = d.var(ddof=1) / 4
    some = uncertainty_of(d, [2, 2], SeedVariance(0.01, 0.02, 5))
    assert some.variance == pytest.approx(between - 0.01)
    most = uncertainty_of(d, [2, 2], SeedVariance(0.0, 9.0, 5))
    assert most.variance == pytest.approx(between / 2)


def test_one_seed_compares_models_and_one_question_says_nothing() -> None:
    pool = SeedVariance(1.0, 0.0, 5)
    d = np.array([1.0, 0.0, 1.0, 0.0])
    for seeds in ([1, 1], [1, 3], [3, 1]):
        sure = uncertainty_of(d, seeds, pool)
        assert sure.variance == sure.questions == pytest.approx(d.var(ddof=1) / 4)
        assert sure.freedom == 3
    alone = uncertainty_of(np.array([1.0]), [3, 3], pool)
    assert alone.p_value(1.0) == 1.0
    assert alone.around(1.0, 1.0).low == -1.0


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 30), st.integers(1, 6), st.sampled_from([1, 2])
)
def test_the_model_is_that_of_its_formulas_written_out_slowly(
    seed: int, seeds: int, questions: int, paths: int, arms: int
) -> None:
    rng = np.random.default_rng(seed)
    tables = [rng.integers(0, 2, (seeds, questions)).astype(float) for _ in range(paths)]
    s2 = noise = 0.0
    for table in tables:
        mean = table.sum() / table.size
        rows = [row.sum() / questions for row in table]
        columns = [column.sum() / seeds for column in table.T]
        s2 += sum((row - mean) ** 2 for row in rows) / (seeds - 1) / paths
        squares = sum(
            (table[s, q] - rows[s] - columns[q] + mean) ** 2 for s in range(seeds) for q in range(questions)
        )
        noise += squares / ((seeds - 1) * (questions - 1)) / questions / paths
    pool = pool_seeds(tables)
    assert (pool.s2, pool.noise) == pytest.approx((s2, noise))
    assert pool.freedom == paths * (seeds - 1)
    d = tables[0].mean(axis=0) - (tables[-1].mean(axis=0) if arms == 2 else 0)
    between = sum((x - d.mean()) ** 2 for x in d) / (questions - 1) / questions
    sure = uncertainty_of(d, [seeds] * arms, pool)
    if between < 1e-9:
        return
    variance = max(between + arms * (s2 - noise) / seeds, between / 2)
    bottom = between**2 / (questions - 1) + (arms * s2 / seeds) ** 2 / pool.freedom
    assert sure.variance == pytest.approx(variance)
    assert sure.freedom == pytest.approx(max(1.0, variance**2 / bottom))


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 40))
def test_an_interval_and_its_p_value_are_one_statement(seed: int, seeds: int, questions: int) -> None:
    rng = np.random.default_rng(seed)
    d = rng.normal(rng.normal(0, 0.5), 1.0, questions)
    sure = uncertainty_of(d, [seeds, seeds], SeedVariance(rng.random() * 0.1, rng.random() * 0.1, 12))
    mean = float(d.mean())
    interval = sure.around(mean)
    assert (interval.low > 0 or interval.high < 0) == (sure.p_value(mean) < 0.05)
    assert sure.p_value(sure.reach) == pytest.approx(0.05)


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_order_of_seeds_questions_and_paths_changes_nothing(seed: int, seeds: int) -> None:
    rng = np.random.default_rng(seed)
    tables = [rng.random((seeds, 20)) for _ in range(4)]
    moved = [table[rng.permutation(seeds)][:, rng.permutation(20)] for table in tables[::-1]]
    one, other = pool_seeds(tables), pool_seeds(moved)
    assert (one.s2, one.noise, one.freedom) == pytest.approx((other.s2, other.noise, other.freedom))


def test_a_path_of_one_seed_says_nothing_of_seeds_and_unequal_ones_weigh_by_their_freedom() -> None:
    rng = np.random.default_rng(0)
    two, four = rng.random((2, 9)), rng.random((4, 9))
    assert pool_seeds([two[:1]]) == ONE_SEED == pool_seeds([])
    assert pool_seeds([two, four[:1]]) == pool_seeds([two])
    both, one, other = pool_seeds([two, four]), pool_seeds([two]), pool_seeds([four])
    assert both.freedom == 4
    assert both.s2 == pytest.approx((one.s2 + 3 * other.s2) / 4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(40, 90), st.integers(1, 3), st.booleans())
def test_a_training_under_two_names_is_pooled_once(
    seed: int, seeds: int, questions: int, again: int, is_loss: bool
) -> None:
    rng = np.random.default_rng(seed)
    tables = [rng.random((seeds, questions)) for _ in range(3)]
    tables = tables if is_loss else [table.round() for table in tables]
    twice = [*tables, *(table.copy(order="F") for table in tables[:2] for _ in range(again))]
    assert pool_seeds(twice) == pool_seeds(tables)
    assert pool_seeds([*tables, tables[0][::-1]]).freedom == 4 * (seeds - 1)  # other seeds: another training


def test_paths_that_may_agree_by_chance_are_each_pooled() -> None:
    """All wrong under every seed is what many weak students are: it says that seeds do not matter to them."""
    noisy = np.random.default_rng(0).random((2, 9)).round()
    pool = pool_seeds([noisy, *[np.zeros((2, 9))] * 3])
    assert pool.freedom == 4
    assert pool.s2 == pytest.approx(pool_seeds([noisy]).s2 / 4)
    assert pool_seeds([np.eye(2), np.eye(2)]).freedom == 2


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 30))
def test_a_loss_is_a_ratio_of_sums_with_the_variance_of_one(seed: int, seeds: int, questions: int) -> None:
    rng = np.random.default_rng(seed)
    losses, tokens = rng.random((seeds, questions)), rng.integers(1, 90, questions).astype(float)
    found = linearised(losses, tokens)
    ratio_S = (losses * tokens).sum(axis=1) / tokens.sum()
    assert found.mean(axis=1) == pytest.approx(ratio_S)
    # the textbook's variance of a ratio estimator, with the same ddof
    rest = tokens * (losses - ratio_S[:, None])
    expected = (rest**2).sum(axis=1) / (questions - 1) / questions / tokens.mean() ** 2
    assert found.var(axis=1, ddof=1) / questions == pytest.approx(expected)
    assert linearised(losses, np.full(questions, 7.0)) == pytest.approx(losses)


def test_arms_of_several_seeds_stay_within_0_and_1_and_widen_with_what_seeds_differ_by() -> None:
    rng = np.random.default_rng(1)
    values = (rng.random((3, 200)) < 0.97).astype(float)
    quiet = arm_interval(values, SeedVariance(0.0, 0.0, 24))
    loud = arm_interval(values, SeedVariance(0.02**2, 0.0, 24))
    assert 0 < loud.low < quiet.low < quiet.value < quiet.high < loud.high <= 1
    right = arm_interval(np.ones((3, 50)), SeedVariance(0.02**2, 0.0, 24))
    assert (right.value, right.high) == (1.0, 1.0)
    assert right.low < 0.95


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 5), st.floats(0.05, 0.95))
def test_the_interval_of_a_share_is_t_s_where_questions_are_many(seeds: int, share: float) -> None:
    rng = np.random.default_rng(seeds)
    values = (rng.random((seeds, 4000)) < share).astype(float)
    pool = pool_seeds([values, (rng.random((seeds, 4000)) < share).astype(float)])
    found = arm_interval(values, pool)
    sure = uncertainty_of(values.mean(axis=0), [seeds], pool)
    plain = sure.around(found.value)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.05)


def test_a_path_whose_seeds_lie_far_apart_is_named_and_chance_is_not() -> None:
    rng = np.random.default_rng(2)
    questions, named = 300, 0
    for _ in range(40):
        quiet = [(rng.random((3, questions)) < 0.5).astype(float) for _ in range(12)]
        pool = pool_seeds(quiet)
        named += sum(louder(table, pool, 12) is not None for table in quiet)
    assert named <= 8  # of 40 families of 12, each wrong in 5 of 100
    apart = np.array([[0.2], [0.5], [0.8]])
    loud = (rng.random((3, questions)) < apart).astype(float)
    times = louder(loud, pool_seeds([*quiet, loud]), 13)
    assert times is not None
    assert times > 5
    assert louder(loud, pool_seeds([loud]), 1) is None  # nobody to compare it with
