"""Ranking teachers: hand-worked orders, chance, equal length, agreement with what is known, odd input."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cluster.errors import BadInput
from selection.agreement import agreement_table, family_weights, signs, stability_table, tau
from selection.drawn_means import Draws, bounds, interval, questions_to_tell, told_from
from selection.ranking import match, order_table


def pool(values: dict[str, np.ndarray], tokens: dict[str, np.ndarray] | None = None) -> pd.DataFrame:
    rows = [
        (f"q{q:05d}", teacher, float(tokens[teacher][q]) if tokens else 10.0, float(cost))
        for teacher, own in values.items()
        for q, cost in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=["question_id", "teacher", "n_answer", "cost"])


def noisy(means: dict[str, float], questions: int, seed: int = 0, sd: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=questions)
    return pool({t: m + hard + sd * rng.normal(size=questions) for t, m in means.items()})


def test_an_order_follows_means_over_questions_of_means_over_samples() -> None:
    """Ann answers the first question twice: it counts once. By answers she would be behind (7/3 to 2)."""
    table = pd.DataFrame(
        [("q1", "ann", 4), ("q1", "ann", 2), ("q2", "ann", 1), ("q1", "bob", 2), ("q2", "bob", 2.5)],
        columns=["question_id", "teacher", "cost"],
    ).assign(n_answer=5)
    found = order_table(match(table, ["cost"]), 50, 0)
    assert found["teacher"].tolist() == ["ann", "bob"]
    assert found["mean"].tolist() == [2.0, 2.25]
    assert found["behind"].tolist() == [0.0, 0.25]
    assert found["place"].tolist() == [1, 2]


def test_only_questions_that_all_answered_count_and_the_others_are_counted() -> None:
    table = noisy({"ann": 0, "bob": 1, "cyd": 2}, 40)
    table.loc[(table["teacher"] == "bob") & (table["question_id"] < "q00010"), "cost"] = math.nan
    found = match(table, ["cost"])
    assert len(found.questions) == 30
    assert found.unmatched == {"ann": 10, "bob": 0, "cyd": 10}
    assert found.instead == ("bob", 40)


def test_teachers_without_a_common_question_are_refused_with_the_one_to_leave_out() -> None:
    table = noisy({"ann": 0, "bob": 1, "cyd": 2}, 10)
    table.loc[table["teacher"] == "cyd", "question_id"] = "other " + table["question_id"]
    with pytest.raises(BadInput, match="leave out cyd: then 10 questions"):
        match(table, ["cost"])
    with pytest.raises(BadInput, match="two teachers"):
        match(table[table["teacher"] == "ann"], ["cost"])


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Skewed costs, as real ones are; 20 questions. Plain percentiles cover about 91 %."""
    held = 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        values = np.stack([rng.exponential(1.0, 20), rng.exponential(1.5, 20)])
        (means,) = Draws(20, 400, seed).means(values)
        low, high = interval(means[:, 1] - means[:, 0], 20)
        held += low <= 0.5 <= high
    assert 0.925 <= held / 600 <= 0.975


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_few_questions_have_intervals_of_students_t(count: int) -> None:
    """Drawn means do not leave the range of what was seen: two questions would cover 49 % of cases."""
    held = 0
    for seed in range(400):
        values = np.random.default_rng(seed).normal(size=(2, count))
        (means,) = Draws(count, 200, seed).means(values)
        low, high = bounds(values[1] - values[0], means[:, 1] - means[:, 0])
        held += low <= 0 <= high
    assert 0.915 <= held / 400 <= 0.985


def test_ten_equal_teachers_are_seldom_told_apart() -> None:
    """The first one was picked by the data: by the intervals of single pairs 71 of 100 runs tell some."""
    false = alone = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(size=(10, 60))
        (means,) = Draws(60, 300, seed).means(values)
        first = int(values.mean(axis=1).argmin())
        false += told_from(values, means, first).any()
        alone += any(
            bounds(v - values[first], m - means[:, first])[0] > 0
            for v, m in zip(values, means.T, strict=True)
        )
    assert false / 200 <= 0.12
    assert alone / 200 > 0.5
    far = values + np.arange(10)[:, None]
    assert told_from(far, Draws(60, 300, 0).means(far)[0], 0).tolist() == [False, *[True] * 9]


def test_teachers_with_the_same_answers_are_equal_whatever_the_rounding() -> None:
    own = np.random.default_rng(0).normal(2, 1, 60)
    table = pool({"ann": own, "bob": own * (1 + 1e-8), "cyd": own + 1})
    matched = match(table, ["cost"])
    found = order_table(matched, 300, 0)
    assert found["teacher"].tolist() == ["ann", "bob", "cyd"]
    assert found["is_first"].tolist() == [0.5, 0.5, 0.0]
    assert found["place"].tolist() == [1, 1, 3]
    assert found["told"].tolist() == [False, False, True]
    assert found["questions_to_tell"].iloc[1] == math.inf
    assert stability_table(matched, 100, 0)["repeats"].iloc[-1] == 1.0


def test_a_further_cost_that_some_answer_lacks_is_left_out_alone() -> None:
    table = noisy({"ann": 0, "bob": 1}, 30).assign(other=1.0)
    table.loc[(table["teacher"] == "bob") & (table["question_id"] < "q00004"), "other"] = math.nan
    found = match(table, ["cost"], ["other"])
    assert list(found.values) == ["cost"]
    assert found.left_out == {"other": 4}
    assert len(found.questions) == 30


@pytest.mark.parametrize("effect", [0.4, 1.2])
def test_as_many_questions_as_are_said_tell_a_difference_in_four_of_five_cases(effect: float) -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=40)
    seen = (seen - seen.mean()) / seen.std(ddof=1) + effect
    count = int(questions_to_tell(seen))
    told = [stats.ttest_1samp(rng.normal(effect, 1, count), 0).pvalue < 0.05 for _ in range(1500)]
    assert 0.77 <= np.mean(told) <= 0.9


def test_the_probability_of_being_first_falls_with_the_distance() -> None:
    near = order_table(match(noisy({"ann": 0.0, "bob": 0.05}, 100), ["cost"]), 500, 0)
    far = order_table(match(noisy({"ann": 0.0, "bob": 1.0}, 100), ["cost"]), 500, 0)
    assert far["is_first"].tolist() == [1.0, 0.0]
    assert 0.0 < near["is_first"].iloc[1] < 0.7
    assert near["is_first"].sum() == pytest.approx(1.0)
    assert near["questions_to_tell"].iloc[1] > 100 > far["questions_to_tell"].iloc[1]


def test_equal_teachers_share_the_first_place_and_nothing_tells_them_apart() -> None:
    own = np.arange(8.0)
    found = order_table(match(pool({"ann": own, "bob": own}), ["cost"]), 100, 0)
    assert found["is_first"].isna().all(), "eight questions say nothing of it"
    longer = np.arange(12.0)
    shared = order_table(match(pool({"ann": longer, "bob": longer}), ["cost"]), 100, 0)
    assert shared["is_first"].tolist() == [0.5, 0.5]
    assert found["questions_to_tell"].iloc[1] == math.inf
    agreement = agreement_table(
        match(pool({"ann": own, "bob": own}).assign(other=1.0), ["cost", "other"]), 20, 0, "ab"
    )
    assert math.isnan(agreement["tau"].iloc[0])


def test_at_equal_length_a_verbose_teacher_is_judged_beside_its_length() -> None:
    """The cost is minus the logarithm of the length, plus 0.5 for ann: she looks better only because she
    writes more.
    """
    rng = np.random.default_rng(3)
    tokens = {"ann": rng.uniform(80, 160, 200), "bob": rng.uniform(30, 100, 200)}
    costs = {t: 0.5 * (t == "ann") - np.log(n) for t, n in tokens.items()}
    found = order_table(match(pool(costs, tokens), ["cost"]), 200, 0).set_index("teacher")
    assert found["place"].to_dict() == {"ann": 1, "bob": 2}
    assert found["even_place"].to_dict() == {"ann": 2, "bob": 1}
    assert found.loc["ann", "even_behind"] == pytest.approx(0.5)
    alike = order_table(match(pool(costs), ["cost"]), 50, 0)
    assert alike["even_place"].isna().all(), "nothing follows where all answers are equally long"


def test_tau_is_that_of_scipy_with_ties_too() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.integers(0, 4, (2, 7)).astype(float)
        wanted = stats.kendalltau(a, b).statistic
        got = tau(signs(a[None]), signs(b[None]))[0]
        assert (math.isnan(wanted) and math.isnan(got)) or got == pytest.approx(wanted)


def test_families_are_drawn_together_and_widen_the_interval() -> None:
    """Twelve teachers of four families: within a family all agree, so there are four votes and not twelve."""
    rng = np.random.default_rng(5)
    means = {f"{f}-{k}": rng.normal() * 0.02 + f for f in range(4) for k in range(3)}
    truth = {name: [-1.0, 0.0, -3.0, -2.0][int(name[0])] for name in means}
    matched = match(noisy(means, 50), ["cost"])
    families = [t.split("-")[0] for t in matched.teachers]
    together = agreement_table(matched, 800, 0, families, truth).iloc[0]
    apart = agreement_table(matched, 800, 0, matched.teachers, truth).iloc[0]
    assert together["tau"] == apart["tau"]
    assert together["high_teachers"] - together["low_teachers"] > 1.3 * (
        apart["high_teachers"] - apart["low_teachers"]
    )
    assert together["low_teachers"] <= together["low"] <= together["high"] <= together["high_teachers"]
    assert family_weights(["a", "b", "b"], 10, 0) is None


def test_an_order_is_less_stable_on_fewer_questions() -> None:
    found = stability_table(match(noisy({"ann": 0, "bob": 0.3, "cyd": 0.6}, 400), ["cost"]), 300, 0)
    assert found["questions"].tolist() == [10, 30, 100, 300, 400]
    assert found["repeats"].iloc[-1] > found["repeats"].iloc[0]
    assert found["order"].iloc[-1] == "ann < bob < cyd"
    assert found["tau"].iloc[-1] == 1.0


def test_thirty_teachers_on_a_thousand_questions_are_ranked_at_once() -> None:
    table = noisy({f"t{k:02d}": k * 0.1 for k in range(30)}, 1000).assign(other=lambda t: -t["cost"])
    matched = match(table, ["cost", "other"])
    found = order_table(matched, 2000, 0)
    assert len(found) == 60
    agreement = agreement_table(matched, 2000, 0, matched.teachers)
    assert agreement["tau"].tolist() == [-1.0]


def test_order_of_rows_and_names_of_questions_change_no_number() -> None:
    table = noisy({"ann": 0, "bob": 0.2, "cyd": 0.1}, 60)
    one = order_table(match(table, ["cost"]), 100, 0)
    other = order_table(match(table.sample(frac=1.0, random_state=1), ["cost"]), 100, 0)
    pd.testing.assert_frame_equal(one, other)


def test_a_single_question_gives_an_order_without_intervals() -> None:
    found = order_table(match(noisy({"ann": 0, "bob": 9}, 1), ["cost"]), 20, 0)
    assert found["teacher"].tolist() == ["ann", "bob"]
    assert found[["low", "high", "behind_low"]].isna().all().all()
    assert math.isnan(found["questions_to_tell"].iloc[1])
