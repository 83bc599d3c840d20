"""Selection rules: which answer is taken, seeded, tie-broken, independent of other questions."""

import numpy as np
import pandas as pd
import pytest

from cluster.errors import BadInput
from selection.rules import RuleSettings, choose, group_of_rank

ACCURACY = {"x": 0.9, "y": 0.8, "z": 0.1}


def pool(rows: list[tuple[str, str, float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [(q, f"{t}/{q}/0", t, c) for q, t, c in rows], columns=["question_id", "answer_id", "teacher", "cost"]
    )


POOL = pool(
    [
        ("q1", "x", 3.0),
        ("q1", "y", 1.0),
        ("q1", "z", 2.0),
        ("q2", "z", 5.0),
        ("q3", "y", 1.0),
        ("q3", "z", 1.0),
    ]
)


def taken(settings: RuleSettings, seed: int = 0, table: pd.DataFrame = POOL) -> dict[str, list[str]]:
    chosen = choose(table, settings, seed, ACCURACY)
    return {str(q): list(own["teacher"]) for q, own in chosen.groupby("question_id")}


def test_no_question_vanishes_from_group_one_however_few_answers_it_has() -> None:
    for n in range(1, 12):
        for groups in range(1, 9):
            ranks = [group_of_rank(r, n, groups) for r in range(1, n + 1)]
            assert ranks[0] == 1
            assert ranks == sorted(ranks)
            assert max(ranks) == min(n, groups)


def test_groups_agree_with_the_published_rule_where_there_are_enough_answers() -> None:
    for n in range(5, 30):
        for r in range(1, n + 1):
            assert group_of_rank(r, n, 5) == group_of_rank(r, n, 5, "reference")


def test_each_rule_takes_what_it_says() -> None:
    assert taken(RuleSettings("minimum")) == {
        "q1": ["y"],
        "q2": ["z"],
        "q3": ["y"],
    }  # q3 is a tie: answer ids decide
    assert taken(RuleSettings("groups", groups=5)) == {"q1": ["y"], "q2": ["z"], "q3": ["y"]}
    # q1's second group holds ranks 2 and 3; q2 has none
    second = taken(RuleSettings("groups", groups=2, group=2))
    assert set(second) == {"q1", "q3"}
    assert second["q1"][0] in ("x", "z")
    assert second["q3"] == ["z"]
    assert taken(RuleSettings("strongest")) == {"q1": ["x"], "q2": ["z"], "q3": ["y"]}
    assert taken(RuleSettings("teacher", teacher="y")) == {"q1": ["y"], "q3": ["y"]}
    assert taken(RuleSettings("top_k", k=2)) == {"q1": ["y", "z"], "q2": ["z"], "q3": ["y", "z"]}


def test_a_questions_weights_sum_to_one() -> None:
    chosen = choose(POOL, RuleSettings("top_k", k=2), 0, ACCURACY)
    assert chosen.groupby("question_id")["weight"].sum().tolist() == [1.0, 1.0, 1.0]


def test_margin_weights_follow_the_distance_to_the_first_answer_left_out() -> None:
    chosen = choose(POOL, RuleSettings("top_k", k=2, weights="margin"), 0, ACCURACY).set_index("question_id")
    assert chosen.loc["q1", "weight"].tolist() == [2 / 3, 1 / 3]  # costs 1, 2 and the first left out 3
    assert chosen.loc["q3", "weight"].tolist() == [0.5, 0.5]  # nothing is left out
    with pytest.raises(BadInput, match="top_k"):
        choose(POOL, RuleSettings("minimum", weights="margin"), 0, ACCURACY)


def test_softmax_draws_follow_the_costs_and_the_temperature() -> None:
    table = pool([(f"q{i}", t, c) for i in range(3000) for t, c in (("x", 1.0), ("y", 2.0))])
    for temperature, share in ((1.0, 1 / (1 + np.exp(-1.0))), (0.05, 1.0), (1e6, 0.5)):
        chosen = choose(table, RuleSettings("softmax", temperature=temperature), 0, ACCURACY)
        # three standard errors of a share of one half
        assert abs((chosen["teacher"] == "x").mean() - share) < 0.03


def test_round_robin_gives_teachers_equal_turns_and_passes_over_who_has_no_answer() -> None:
    table = pool([(f"q{i}", t, 0.0) for i in range(9) for t in "xyz" if (i, t) != (0, "x")])
    chosen = choose(table, RuleSettings("round_robin"), 0, ACCURACY)
    assert chosen["teacher"].value_counts().to_dict() == {"x": 3, "y": 3, "z": 3}
    rare = pool([(f"q{i:03}", t, 0.0) for i in range(300) for t in "xyz" if t != "y" or i % 10 == 0])
    counts = choose(rare, RuleSettings("round_robin"), 0, ACCURACY)["teacher"].value_counts()
    assert counts.to_dict() == {"x": 136, "z": 135, "y": 29}  # q000 is a tie


def test_a_threshold_leaves_out_questions_whose_cheapest_answer_costs_more() -> None:
    assert set(taken(RuleSettings("minimum", threshold=1.0))) == {"q1", "q3"}
    assert set(taken(RuleSettings("minimum", threshold=0.5))) == set()
    assert set(taken(RuleSettings("minimum", threshold_quantile=0.9))) == {
        "q1",
        "q3",
    }  # costs 1 1 1 2 3 5: the quantile is 4
    with pytest.raises(BadInput, match="two thresholds"):
        taken(RuleSettings("minimum", threshold=1.0, threshold_quantile=0.5))


def test_no_teacher_exceeds_its_cap_and_the_next_cheapest_takes_its_place() -> None:
    table = pool([(f"q{i}", t, c) for i in range(40) for t, c in (("x", 1.0), ("y", 2.0), ("z", 3.0))])
    free = choose(table, RuleSettings("minimum"), 0, ACCURACY)
    assert set(free["teacher"]) == {"x"}
    capped = choose(table, RuleSettings("minimum", cap=0.4), 0, ACCURACY)
    assert capped["teacher"].value_counts().to_dict() == {"x": 16, "y": 16, "z": 8}
    passing = choose(
        table.assign(cost=table["cost"] + (table.index // 3 >= 10) * 9),
        RuleSettings("minimum", cap=0.5, threshold=5.0),
        0,
        ACCURACY,
    )
    assert passing["teacher"].value_counts().to_dict() == {
        "x": 5,
        "y": 5,
    }  # half of the ten questions that pass
    other = choose(table, RuleSettings("minimum", cap=0.4), 1, ACCURACY)
    assert not capped["teacher"].equals(other["teacher"])  # the seed says who comes before the cap is reached


def test_draws_follow_the_seed_and_are_uniform_over_the_group() -> None:
    table = pool([(f"q{i}", t, float(k)) for i in range(600) for k, t in enumerate("abcd")])
    settings = RuleSettings("groups", groups=2)
    first, again, other = (
        choose(table, settings, s, dict.fromkeys("abcd", 0.5))["teacher"] for s in (1, 1, 2)
    )
    assert first.tolist() == again.tolist() != other.tolist()
    assert set(first) == {"a", "b"}
    assert abs((first == "a").mean() - 0.5) < 0.07  # three standard errors over 600 draws


def test_a_choice_does_not_change_when_other_questions_come() -> None:
    alone = choose(POOL[POOL["question_id"] == "q1"], RuleSettings("random"), 3, ACCURACY)
    among = choose(POOL, RuleSettings("random"), 3, ACCURACY)
    assert alone.iloc[0]["answer_id"] == among[among["question_id"] == "q1"].iloc[0]["answer_id"]


def test_the_order_of_the_pool_does_not_matter() -> None:
    shuffled = POOL.sample(frac=1, random_state=1)
    for name in ("groups", "minimum", "random", "strongest"):
        settings = RuleSettings(name, groups=2)  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(
            choose(POOL, settings, 0, ACCURACY), choose(shuffled, settings, 0, ACCURACY)
        )


def test_parameters_that_cannot_work_are_refused() -> None:
    for settings in (
        RuleSettings("groups", groups=3, group=4),
        RuleSettings("groups", groups=0),
        RuleSettings("top_k", k=0),
        RuleSettings("teacher", teacher="nobody"),
    ):
        with pytest.raises(BadInput):
            choose(POOL, settings, 0, ACCURACY)


@pytest.mark.parametrize("groups", [0, -1])
def test_too_few_groups_are_called_so(groups: int) -> None:
    """Seen: "group is out of range: 1; expected 1 to groups (0)"."""
    with pytest.raises(BadInput, match=f"groups is out of range.*{groups}.*1 or more"):
        choose(POOL, RuleSettings("groups", groups=groups), 0, ACCURACY)


def test_at_most_so_many_questions_are_kept_and_arms_that_can_keep_the_same_ones() -> None:
    """Of 40 questions x answers 30, y all: both keep the same 12 where x can, whatever else they choose."""
    both = [(f"q{i:02}", "x", 1.0) for i in range(30)] + [(f"q{i:02}", "y", 2.0) for i in range(40)]
    for seed in range(5):
        by_x, by_y, by_cost = (
            set(taken(RuleSettings(*rule, most_questions=12), seed, pool(both)))
            for rule in (("teacher", 5, 1, 1, "equal", "x"), ("teacher", 5, 1, 1, "equal", "y"), ("minimum",))
        )
        assert by_y == by_cost
        assert len(by_x) == len(by_y) == 12
        assert by_y - by_x <= {f"q{i:02}" for i in range(30, 40)}
    every = taken(RuleSettings("minimum", most_questions=100), 0, pool(both))
    assert len(every) == 40
    assert set(taken(RuleSettings("minimum", most_questions=12), 1, pool(both))) != by_y
