"""Comparisons of arms: plain verdicts, what more would be needed, equal arms, students together, coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.intervals import coverage
from training.comparison import compare, contrast, holm, needed, over_lineages
from training.evaluation import SeedVariance, Uncertainty, accuracy_interval, linearised, pool_seeds


def test_pairing_tells_a_difference_that_unpaired_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    baseline = rng.binomial(1, 0.5, 400).astype(float)
    arm = baseline.copy()
    arm[np.flatnonzero(baseline == 0)[:16]] = 1.0  # 4 points, all in one direction
    result = compare(arm, baseline, "scas", "strongest")
    assert result.difference.value == pytest.approx(0.04)
    assert result.difference.low > 0
    assert result.p_value < 0.001
    assert result.verdict.startswith("scas is better than strongest by 4.0 points")
    assert result.against == "strongest"
    assert accuracy_interval(arm).low < accuracy_interval(baseline).high


def test_noise_is_not_called_a_difference_and_the_questions_needed_are_named() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.binomial(1, 0.51, 200).astype(float), rng.binomial(1, 0.5, 200).astype(float)
    result = compare(a, b, "scas", "random")
    assert result.verdict.startswith("cannot tell scas from random")
    assert result.more_questions is None or result.more_questions > 0
    same = compare(a, a, "x", "y")
    assert (same.difference.value, same.p_value, same.more_questions) == (0.0, 1.0, None)
    assert (
        same.difference.low < 0 < same.difference.high
    )  # equal by chance: 200 questions are not all there are


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_arms_that_are_equal_say_so_whatever_seeds_differ_by(seeds: int) -> None:
    values = np.random.default_rng(0).random((seeds, 30)).round()
    pool = SeedVariance(0.01, 0.0, 9)
    found = compare(values, values, "x", "y", pool=pool, is_same=True)
    assert (found.p_value, found.difference.value, found.difference.is_known) == (1.0, 0.0, False)
    assert found.verdict.endswith("came to the same: there is no interval")
    both = contrast(np.zeros((2, 30)), ["a", "b"], [seeds, seeds], pool, is_same=True)
    assert (both.p_these, both.these_students.is_known) == (1.0, False)


@pytest.mark.parametrize("questions", [2, 5, 40, 300])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_trainings_that_agree_by_chance_have_an_interval_of_some_width(seeds: int, questions: int) -> None:
    """Seen: [[1, 0], [0, 1]] against [[0, 1], [1, 0]], or both right on five of five: 0.0 to 0.0."""
    turned = np.tile(np.eye(2), (1, questions // 2 + 1))[:, :questions]
    pairs = [(np.ones((seeds, questions)),) * 2, (turned, turned[::-1])]
    for one, other in pairs:
        found = compare(one, other, "x", "y")
        assert found.difference.value == 0
        assert found.difference.high == -found.difference.low > 1 / questions
        assert found.p_value == pytest.approx(1.0)
        assert "came to the same" not in found.verdict
    together = contrast(np.zeros((3, questions)), ["a", "b", "c"], [seeds, seeds], SeedVariance())
    assert 0 < together.these_students.high <= compare(*pairs[0], "x", "y").difference.high


def test_values_that_are_not_there_are_refused_by_name_and_one_question_of_a_loss_says_nothing() -> None:
    with pytest.raises(ValueError, match="2 questions of a have no value"):
        compare(np.array([[np.nan, 1.0, 0.0], [0.0, np.nan, 1.0]]), np.zeros((2, 3)), "a", "b")
    with pytest.raises(ValueError, match="over no tokens"):
        linearised(np.ones((1, 3)), np.zeros(3))
    one = compare(np.array([[-1.0]]), np.array([[-2.0]]), "a", "b", "loss")
    assert not one.difference.is_known
    assert (
        one.verdict == "cannot tell a from b: difference +1.0000 nats per answer token, without an interval"
    )
    none = compare(np.zeros((2, 0)), np.zeros((1, 0)), "a", "b")
    assert none.questions == 0
    assert none.verdict.startswith("cannot compare a with b")


def test_five_of_five_is_too_few_and_six_of_six_is_not() -> None:
    """Without any spread the variance is what it would be with one question the other way round."""
    few = compare(np.ones(5), np.zeros(5), "x", "y")
    assert few.p_value > 0.05
    assert few.verdict.startswith("cannot tell x from y")
    assert compare(np.ones(6), np.zeros(6), "x", "y").p_value < 0.05


def test_seeds_that_disagree_widen_the_interval_and_more_questions_are_not_what_is_needed() -> None:
    rng = np.random.default_rng(3)
    lucky, unlucky = rng.binomial(1, 0.62, 300).astype(float), rng.binomial(1, 0.5, 300).astype(float)
    base = rng.binomial(1, 0.5, (2, 300)).astype(float)
    spread = compare(np.stack([lucky, unlucky]), base, "x", "y")
    pooled = compare((lucky + unlucky) / 2, base.mean(axis=0), "x", "y").difference
    assert spread.difference.value == pytest.approx(pooled.value)
    assert spread.difference.high - spread.difference.low > 1.2 * (pooled.high - pooled.low)
    up, down = np.full(400, 1.0), np.full(400, -0.9)
    found = compare(np.stack([up, down]), np.zeros((2, 400)), "x", "y")
    assert found.more_questions is None
    assert found.verdict.endswith("; more seeds would be needed, more questions would not do")


def test_p_values_speak_of_seeds_too() -> None:
    """Two seeds of ten points apart against one arm that never moves: seen as p 0.002 by questions alone."""
    rng = np.random.default_rng(5)
    arm = np.stack([rng.random(2000) < 0.6, rng.random(2000) < 0.5]).astype(float)
    base = np.stack([rng.random(2000) < 0.5] * 2).astype(float)
    found = compare(arm, base, "x", "y", pool=pool_seeds([arm]))
    assert stats.ttest_1samp(arm.mean(axis=0) - base.mean(axis=0), 0).pvalue < 0.01
    assert found.p_value > 0.2


def test_worse_is_said_as_plainly_as_better_and_loss_has_its_unit() -> None:
    assert "x is worse than y by 100.0 points" in compare(np.zeros(30), np.ones(30), "x", "y").verdict
    loss = compare(-np.full(30, 1.0), -np.full(30, 1.5), "x", "y", metric="loss")
    assert "better than y by 0.5000 nats per answer token" in loss.verdict


def test_arms_on_different_questions_are_refused_and_unequal_seeds_are_not() -> None:
    with pytest.raises(ValueError, match="29 and 30"):
        compare(np.zeros(29), np.zeros(30), "a", "b")
    rng = np.random.default_rng(0)
    two, five = rng.random((2, 40)), rng.random((5, 40))
    pool = pool_seeds([two, five])
    found = compare(two, five, "a", "b", "loss", pool)
    d = two.mean(axis=0) - five.mean(axis=0)
    expected = max(d.var(ddof=1) / 40 + (1 / 2 + 1 / 5) * (pool.s2 - pool.noise), d.var(ddof=1) / 80)
    assert found.uncertainty.variance == pytest.approx(expected)


def reach_with(
    table: np.ndarray, base: np.ndarray, pool: SeedVariance, questions: int
) -> tuple[float, float]:
    """Half an interval's width with so many questions, and what more a difference needs to be told in four
    of five cases, by the formulas of `docs/methods.md` alone.
    """
    (seeds, now), d = table.shape, table.mean(axis=0) - base.mean(axis=0)
    between = d.var(ddof=1) / now
    of_seeds = 2 / seeds * (pool.s2 - pool.noise) if seeds > 1 else 0.0
    falls, stays = now / questions, max(0.0, of_seeds)
    variance = between * falls + stays
    if of_seeds < 0:
        variance = max(between + of_seeds, between / 2) * falls
    spread = (between * falls) ** 2 / (questions - 1)
    if seeds > 1:
        spread += (stays + (2 / seeds * pool.s2 - stays) * falls) ** 2 / pool.freedom
    quantiles = stats.t.ppf([0.975, 0.8], max(1.0, variance**2 / spread))
    return float(quantiles[0] * np.sqrt(variance)), float(quantiles[1] * np.sqrt(variance))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.integers(60, 400),
    st.floats(-0.08, 0.08),
    st.integers(1, 20),
    st.floats(0, 0.04),
)
def test_the_questions_needed_are_the_fewest_that_tell_the_difference_in_four_of_five_cases(
    seed: int, seeds: int, questions: int, gain: float, freedom: int, sd: float
) -> None:
    rng = np.random.default_rng(seed)
    arm = (rng.random((seeds, questions)) < 0.5 + gain).astype(float)
    base = (rng.random((seeds, questions)) < 0.5).astype(float)
    noise = 0.25 / questions
    pool = SeedVariance(max(noise + sd**2 - 0.0001, 0.0001), noise, freedom)
    found = compare(arm, base, "x", "y", pool=pool)
    mean, now = abs(found.difference.value), reach_with(arm, base, pool, questions)
    assert found.uncertainty.reach == pytest.approx(now[0])
    if found.more_questions is None:
        if "more seeds" in found.verdict:
            assert all(
                sum(reach_with(arm, base, pool, questions * k)) > mean for k in (1, 2, 10, 1000, 10**6)
            )
        return
    assert f"about {found.more_questions:,} more questions" in found.verdict
    then = questions + found.more_questions
    assert sum(reach_with(arm, base, pool, then)) <= mean * (1 + 1e-9)
    assert then == questions + 1 or sum(reach_with(arm, base, pool, then - 1)) > mean


def test_few_seeds_take_more_questions_than_the_same_quantile_of_t_would_say() -> None:
    """One degree of freedom of seeds: with many questions its quantile of t (12.7) is what counts."""
    wanted = float(stats.t.ppf(0.975, 60) + stats.t.ppf(0.8, 60)) ** -2  # of a difference of 1
    assert 100 / (wanted - 0.1) < 5000  # by the present quantile a number could be named
    assert needed(1.0, 100, Uncertainty(1.0, 1.1, 60.0, 0.15, 1)) == (None, True)
    more, _ = needed(1.0, 100, Uncertainty(1.0, 1.05, 60.0, 0.1, 4))
    assert more is not None
    assert more > 1.05 * (100 / (wanted - 0.05) - 100)


def test_a_difference_of_minus_three_points_does_not_take_one_more_question() -> None:
    """Seen: a difference of -2.7 points, interval -6.7 to +2.3, and "about 1 more"."""
    values = np.zeros((1, 300))
    values[0, :20], values[0, 20:48] = 1.0, -1.0
    found = compare(values, np.zeros((1, 300)), "x", "y")
    assert found.difference.value == pytest.approx(-0.0267, abs=1e-4)
    assert 900 < (found.more_questions or 0) < 2000


def test_of_one_student_a_contrast_is_its_comparison() -> None:
    rng = np.random.default_rng(0)
    arm, base = rng.random((3, 50)), rng.random((3, 50))
    pool = pool_seeds([arm, base])
    one = compare(arm, base, "x", "y", "loss", pool)
    found = contrast((arm - base).mean(axis=0)[None], ["a"], [3, 3], pool, "loss")
    assert found.over_students is None  # one student says nothing of others
    assert (found.these_students.low, found.p_these) == pytest.approx((one.difference.low, one.p_value))


def test_students_together_by_hand_and_two_claims_that_are_not_the_same() -> None:
    """Three students whose means are 1, 2 and 3 on four questions of which each student has its own."""
    d = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], [2.0, 4.0, 4.0, 2.0]])
    found = contrast(d, ["a", "b", "c"], [2, 2], SeedVariance(0.3, 0.0, 10), "loss")
    assert found.value == 2.0
    assert found.over_students is not None
    reach = stats.t.ppf(0.975, 2) * np.sqrt(1 / 3)  # of 1, 2, 3: variance 1, over three
    assert found.over_students.high == pytest.approx(2 + reach)
    between = np.array([5, 7, 7, 5]).var(ddof=1) / 9 / 4  # of the students' mean per question
    variance = between + 2 * 0.3 / 2 / 3  # the seeds' part falls with the number of students
    freedom = variance**2 / (between**2 / 3 + (2 * 0.3 / 2 / 3) ** 2 / 10)
    assert found.these_students.high == pytest.approx(2 + stats.t.ppf(0.975, freedom) * np.sqrt(variance))


def test_checkpoints_of_one_training_count_as_one_student() -> None:
    """Thirty states of three students are not thirty students."""
    rng = np.random.default_rng(0)
    means = np.repeat([0.0, 0.1, 0.2], 10) + rng.normal(0, 0.001, 30)
    names = [name for name in "abc" for _ in range(10)]
    apart = over_lineages(means, [str(k) for k in range(30)])
    together = over_lineages(means, names)
    assert apart is not None
    assert together is not None
    assert together.freedom == pytest.approx(2)
    assert together.variance > 8 * apart.variance
    assert over_lineages(means, ["a"] * 30) is None
    three = over_lineages(np.array([0.0, 0.1, 0.2]), ["a", "b", "c"])
    assert three is not None
    assert three.variance == pytest.approx(0.01 / 3)
    assert three.freedom == pytest.approx(2)
    order = rng.permutation(30)
    moved = over_lineages(means[order], [names[k] for k in order])
    assert moved is not None
    assert moved.variance == pytest.approx(together.variance)


@pytest.mark.parametrize("sizes", [(3, 1, 1), (6, 1, 1, 1, 1, 1), (2, 2, 2), (1, 1, 1, 1, 1, 1)])
def test_lineages_of_unequal_sizes_are_not_called_too_often(sizes: tuple[int, ...]) -> None:
    """Students that are equal within a lineage: up to 32 % were called where nothing differs."""
    rng, called, runs = np.random.default_rng(1), 0, 600
    names = [f"l{g}" for g, size in enumerate(sizes) for _ in range(size)]
    for _ in range(runs):
        values = np.repeat(rng.normal(size=len(sizes)), sizes)
        sure = over_lineages(values, names)
        assert sure is not None
        called += sure.p_value(float(values.mean())) < 0.05
    assert called / runs < 0.08


def test_what_students_share_by_their_questions_counts_for_students_like_them_too() -> None:
    """All students find the same questions easier under one arm: 12 to 29 % were called falsely."""
    rng, called, runs = np.random.default_rng(2), 0, 400
    for _ in range(runs):
        d = rng.normal(size=100) * 0.3 + rng.normal(size=(6, 100)) * 0.5
        found = contrast(d, list("abcdef"), [1, 1], SeedVariance(), "loss")
        assert found.p_students is not None
        called += found.p_students < 0.05
    assert called / runs < 0.1


def test_holm_adds_nothing_to_one_and_keeps_order() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([0.2, 0.001, 0.04]) == [0.2, 0.003, 0.08]


@pytest.mark.parametrize("sd", [0.0, 3.0])
def test_two_seeds_of_twelve_paths_cover_as_often_as_they_say(sd: float) -> None:
    """Four standard errors of a simulation on either side: far from 99 % and from 92 %, which were seen."""
    found = coverage(seeds=2, paths=12, sd_points=sd, data_sets=800)
    assert abs(found - 95.0) < 4 * 100 * np.sqrt(0.05 * 0.95 / 800)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("paths", [12, 48])
@pytest.mark.parametrize("sd", [0.0, 1.0, 2.0, 3.0, 4.0])
def test_intervals_cover_95_of_100(seeds: int, paths: int, sd: float) -> None:
    assert 93.5 <= coverage(seeds, paths, sd, data_sets=2000) <= 96.5
