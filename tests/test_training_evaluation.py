"""Evaluation statistics: known intervals, coverage, paired power, plain verdicts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from training.evaluation import accuracy_interval, compare


def test_wilsons_interval_has_its_published_value_and_extremes_stay_inside() -> None:
    interval = accuracy_interval(np.array([1.0] * 81 + [0.0] * 182))
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)  # Newcombe 1998, 81 of 263
    assert accuracy_interval(np.ones(20)).high == 1.0
    assert accuracy_interval(np.zeros(20)).low == 0.0
    assert accuracy_interval(np.zeros(20)).high > 0.1


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(60):
        sample = rng.binomial(3, 0.4, size=150) / 3
        interval = accuracy_interval(sample)
        hits += interval.low <= 0.4 <= interval.high
    assert hits >= 51  # 95 % of 60 is 57; fewer than 51 would happen with probability under 1 %


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
    assert accuracy_interval(arm).low < accuracy_interval(baseline).high


def test_noise_is_not_called_a_difference_and_the_questions_needed_are_named() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.binomial(1, 0.51, 200).astype(float), rng.binomial(1, 0.5, 200).astype(float)
    result = compare(a, b, "scas", "random")
    assert result.verdict.startswith("cannot tell scas from random")
    assert result.more_questions is None or result.more_questions > 0
    same = compare(a, a, "x", "y")
    assert (same.difference.value, same.p_value, same.more_questions) == (0.0, 1.0, None)
    assert same.verdict == "x and y came to the same on every one of 200 questions"


def test_five_of_five_is_too_few_and_seeds_that_disagree_widen_the_interval() -> None:
    few = compare(np.ones(5), np.zeros(5), "x", "y")
    assert few.p_value > 0.05
    assert few.verdict.startswith("cannot tell x from y")
    rng = np.random.default_rng(3)
    lucky, unlucky = rng.binomial(1, 0.62, 300).astype(float), rng.binomial(1, 0.5, 300).astype(float)
    base = rng.binomial(1, 0.5, (2, 300)).astype(float)
    spread = compare(np.stack([lucky, unlucky]), base, "x", "y").difference
    pooled = compare((lucky + unlucky) / 2, base.mean(axis=0), "x", "y").difference
    assert spread.value == pytest.approx(pooled.value)
    assert spread.high - spread.low > 1.2 * (pooled.high - pooled.low)


def test_worse_is_said_as_plainly_as_better_and_loss_has_its_unit() -> None:
    assert "x is worse than y by 100.0 points" in compare(np.zeros(30), np.ones(30), "x", "y").verdict
    loss = compare(-np.full(30, 1.0), -np.full(30, 1.5), "x", "y", metric="loss")
    assert "better than y by 0.5000 nats per answer token" in loss.verdict


def test_arms_on_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="29 and 30"):
        compare(np.zeros(29), np.zeros(30), "a", "b")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(60, 400), st.floats(-0.08, 0.08))
def test_the_questions_needed_follow_from_the_intervals_width(
    seed: int, seeds: int, questions: int, gain: float
) -> None:
    """Drawn questions of which seeds agree: so many more of the same kind make the interval leave out 0."""
    rng = np.random.default_rng(seed)
    right, chance = rng.random(questions), rng.random(questions)
    values = np.repeat((right < 0.5 + gain).astype(float)[None] - (chance < 0.5), seeds, axis=0)
    found = compare(values, np.zeros_like(values), "x", "y")
    width = found.difference.high - found.difference.low
    if found.more_questions is None:
        is_decided = "cannot tell" not in found.verdict
        assert is_decided or width / 2 <= abs(found.difference.value) * 1.1 or found.difference.value == 0
        return
    assert f"about {found.more_questions:,} more questions" in found.verdict
    factor = 1 + found.more_questions / questions
    narrower = width / 2 / np.sqrt(factor)
    assert narrower == pytest.approx(abs(found.difference.value), rel=0.02)


def test_where_seeds_disagree_more_questions_are_not_what_is_needed() -> None:
    up, down = np.full(400, 1.0), np.full(400, -0.9)
    found = compare(np.stack([up, down]), np.zeros((2, 400)), "x", "y")
    assert found.more_questions is None
    assert found.verdict.endswith("; more seeds would be needed, more questions would not do")


def test_a_difference_of_minus_three_points_does_not_take_one_more_question() -> None:
    """Seen: a difference of -2.7 points, interval -6.7 to +2.3, and "about 1 more"."""
    values = np.zeros((1, 300))
    values[0, :20], values[0, 20:48] = 1.0, -1.0
    found = compare(values, np.zeros((1, 300)), "x", "y")
    assert found.difference.value == pytest.approx(-0.0267, abs=1e-4)
    assert 200 < (found.more_questions or 0) < 700


@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=11).filter(any),
    st.sampled_from([1, 2, 3, 4, 5, 7, 12]),
)
def test_p_values_of_right_and_wrong_answers_are_those_of_all_sign_patterns(steps: list[int], k: int) -> None:
    values = np.array(steps, dtype=float) / k
    signs = np.array(list(itertools.product([-1, 1], repeat=len(steps))))
    sums = np.abs(signs @ np.array(steps))
    expected = (sums >= abs(sum(steps))).mean()
    found = compare(values, np.zeros_like(values), "x", "y")
    assert found.p_value == pytest.approx(expected, abs=1e-12)


def test_p_values_fall_as_far_as_the_evidence_goes() -> None:
    """Seen: with 10,000 random flips none was below 0.0001, so no corrected one of 500 was below 0.05."""
    found = compare(np.ones((2, 300)), np.zeros((2, 300)), "x", "y")
    assert found.p_value == pytest.approx(2.0**-299, rel=1e-6)
    losses = np.random.default_rng(0).normal(0.3, 1.0, (1, 50))
    by_flips = compare(losses, np.zeros_like(losses), "x", "y", "loss").p_value
    clear = compare(losses + 3, np.zeros_like(losses), "x", "y", "loss").p_value
    assert stats.ttest_1samp(losses[0] + 3, 0).pvalue < clear < 1e-6  # a bound, and no floor of 1 in 10,000
    tiny = compare(np.full((1, 200), -4e-7), np.zeros((1, 200)), "x", "y", "loss").p_value
    assert tiny < 1e-6
    assert by_flips == pytest.approx(stats.ttest_1samp(losses[0], 0).pvalue, abs=0.02)
