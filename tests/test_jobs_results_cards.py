"""Cards and lineage: shares, wins, what would be lost, agreement and changes, by a plain count; every trained
row is traced to the state that scored it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs.report.cards import map_of
from jobs.results.cards import Cards, agreement_of, cards_of, shown_cost
from jobs.results.lineage import lineage_of
from jobs.results.outcome import Outcome
from selection.costs import compute_cost
from tests.conftest import make_small_world
from tests.runs import run

ARMS = [
    {"name": "scas", "rule": "groups", "cost": "scas", "groups": 1},
    {"name": "cheapest", "rule": "minimum", "cost": "scas"},
    {"name": "gradient", "rule": "minimum", "cost": "gradient_norm"},
    {"name": "random", "rule": "random"},
    {"name": "ann", "rule": "teacher", "teacher": "ann"},
]


@pytest.fixture(scope="module")
def outcome(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run of two rounds under five arms."""
    folder = tmp_path_factory.mktemp("cards")
    world = make_small_world(folder, tiny_model)
    _, found = run(world, folder, arms=ARMS, rounds=2, evaluate={"metric": "loss"})
    return found


@pytest.fixture(scope="module")
def cards(outcome: Outcome) -> Cards:
    return cards_of(outcome)


def first_costs(outcome: Outcome) -> pd.DataFrame:
    path = next(p for p in outcome.paths if p.arm.name == "cheapest" and p.seed == 0)
    table = outcome.rounds[path, 1].scores.read()
    usable = table[table["state"] == "scored"].reset_index(drop=True)
    return usable.assign(cost=compute_cost(usable, shown_cost(outcome)))


def test_shares_of_right_answers_are_counted_by_task_hardness_and_length(
    outcome: Outcome, cards: Cards
) -> None:
    answers = outcome.start.pool.answers
    questions = outcome.start.questions
    right = {(r.teacher, r.question_id): r.state in ("verified", "duplicate") for r in answers.itertuples()}
    for name in ("ann", "bob", "cat"):
        for family in {q.family for q in questions.values()}:
            own = [right[name, q.id] for q in questions.values() if q.family == family]
            share = cards.by_task.set_index("teacher").loc[name, family]
            assert share == pytest.approx(np.mean(own))
    hard = cards.by_hardness.set_index("teacher")
    for name in ("ann", "bob", "cat"):
        others = [t for t in ("ann", "bob", "cat") if t != name]
        easy = [q for q in questions if all(right[t, q] for t in others)]
        assert hard.loc[name, "easy"] == pytest.approx(np.mean([right[name, q] for q in easy]))
    assert cards.by_length.set_index("teacher").loc["ann"].tolist() == [1.0, 1.0, 1.0]


def test_what_would_be_lost_without_a_teacher_is_what_choosing_without_it_loses(
    outcome: Outcome, cards: Cards
) -> None:
    costs = first_costs(outcome)
    whole = costs.groupby("question_id")["cost"].min()
    for row in cards.without.to_dict("records"):
        rest = costs[costs["teacher"] != row["teacher"]].groupby("question_id")["cost"].min()
        theirs = costs.loc[costs.groupby("question_id")["cost"].idxmin()]
        cheapest = theirs[theirs["teacher"] == row["teacher"]]["question_id"].tolist()
        assert row["questions where it is cheapest"] == len(cheapest)
        lost = [q for q in cheapest if q not in rest.index]
        assert row["nobody else is right"] == len(lost)
        dearer = [rest[q] - whole[q] for q in cheapest if q in rest.index]
        if dearer:
            assert row["dearer on average by"] == pytest.approx(np.mean(dearer))
    won = cards.wins.set_index("teacher")["cheapest of"]
    assert won.sum() == pytest.approx(1.0)
    means = costs.groupby("teacher")["cost"].mean()
    for teacher, own in cards.wins.set_index("teacher")["mean cost"].items():
        assert own == pytest.approx(means[str(teacher)])


def test_agreement_counts_the_same_answers(outcome: Outcome) -> None:
    table = agreement_of(outcome).set_index(["arm", "other arm"])
    assert len(table) == 10
    one, other = (
        next(c for p, n, _, c in outcome.choices() if p.arm.name == name and p.seed == 0 and n == 1)
        .whole("chosen")
        .set_index("question_id")["answer_id"]
        for name in ("scas", "random")
    )
    both = one.index.intersection(other.index)
    share = (one[both] == other[both]).mean()
    assert table.loc[("scas", "random"), "same answer"] == pytest.approx(share)
    assert table.loc[("scas", "ann"), "questions"] == 24


def test_changes_and_the_audit_are_told_where_there_are_rounds_and_gradients(cards: Cards) -> None:
    assert set(cards.changes["round"]) == {2}
    ann = cards.changes[cards.changes["arm"] == "ann"]
    assert ann["another answer"].tolist() == [0.0]
    random = cards.changes[cards.changes["arm"] == "random"]
    assert (random["another answer"] > 0.2).all()  # a round draws anew
    assert set(cards.audit["cost"]) >= {"scas", "naturalness"}
    assert cards.audit["mean rank correlation"].between(-1, 1).all()


def test_of_one_teacher_hardness_says_nothing_and_several_answers_a_question_change_once(
    tiny_model: Path, tmp_path: Path
) -> None:
    world = make_small_world(tmp_path, tiny_model)
    top = [{"name": "top", "rule": "top_k", "cost": "naturalness", "k": 2}]
    _, found = run(world, tmp_path, arms=top, rounds=2, evaluate={"metric": "loss"}, train={"steps": 1})
    changes = cards_of(found).changes
    assert changes["questions"].tolist() == [24]
    first, second = (
        found.rounds[found.paths[0], n].chosen.whole("chosen").groupby("question_id")["answer_id"].agg(set)
        for n in (1, 2)
    )
    assert changes["another answer"].item() == pytest.approx((first != second).mean())
    alone = tmp_path / "alone"
    _, found = run(world | {"teachers": world["teachers"][:1]}, alone, arms=[{"name": "r", "rule": "random"}])
    hard = cards_of(found).by_hardness
    assert hard[["easy", "middle", "hard"]].isna().all(axis=None)


def test_every_trained_row_is_traced_to_its_question_answers_and_scoring_state(outcome: Outcome) -> None:
    lineage = lineage_of(outcome)
    assert lineage.left_out == 0
    assert {q.id for q in lineage.questions} == set(outcome.start.questions)
    assert len(lineage.paths) == 5 * 2
    answers = outcome.start.pool.answers.set_index("answer_id")
    for k, (path, number, _, chosen) in enumerate(outcome.choices()):
        column = lineage.paths[k]
        assert (column.arm, column.seed, column.round) == (path.arm.name, path.seed, number)
        assert column.trained == outcome.rounds[path, number].trained.id
        told = {q.id: q.chosen[k] for q in lineage.questions if k in q.chosen}
        for row in chosen.whole("chosen").to_dict("records"):
            assert told[row["question_id"]] == [
                (row["answer_id"], row["rank"], row["candidates"], row["weight"])
            ]
            question = next(q for q in lineage.questions if q.id == row["question_id"])
            answer = next(a for a in question.answers if a.id == row["answer_id"])
            assert answer.text == answers.loc[row["answer_id"], "text"]
            if column.cost is not None:
                assert answer.costs[column.cost] == pytest.approx(row["cost"])
    # one column for both arms by SCAS in the first round; then every path has a student of its own
    first = [c for c in lineage.costs if c.round == 1]
    assert [(c.label, c.state) for c in first] == [
        ("scas λ 0.5", "before training"),
        ("gradient_norm", "before training"),
    ]
    later = {c.state for c in lineage.costs if c.round == 2}
    assert "kid scas seed 0 after round 1" in later
    assert len(later) == 3


def test_lineage_of_a_large_run_tells_of_the_first_questions_and_says_how_many_not(outcome: Outcome) -> None:
    some = lineage_of(outcome, most_answers=30)
    assert len(some.questions) == 10
    assert some.left_out == 14
    assert len(lineage_of(outcome, most_characters=1).questions) == 1  # the first, whatever its size
    fewer = lineage_of(outcome, most_costs=100)
    assert 0 < len(fewer.questions) < 10


def test_shaded_tables_have_every_value_and_escape_names() -> None:
    rows: list[dict[str, Any]] = [
        {"t": "<b>", "s": "x", "v": 0.25},
        {"t": "<b>", "s": "y", "v": 0.5},
        {"t": "c", "s": "x", "v": 1.0},
    ]
    html = map_of(pd.DataFrame(rows), "t", "s", "v", percent=True)
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert [f"{v} %" in html for v in (25, 50, 100)] == [True] * 3
    assert "–" in html  # c has no value for y
    assert "nothing" in map_of(pd.DataFrame(), "t", "s", "v")
    agreement = pd.DataFrame({"a": ["A", "A", "B"], "b": ["B", "C", "C"], "v": [0.1, float("nan"), 0.3]})
    both = pd.concat([agreement, agreement.rename(columns={"a": "b", "b": "a"})])
    html = map_of(both, "a", "b", "v")
    assert html.index(">A<") < html.index(">B<") < html.index(">C<")  # in one order across and down
    assert html.count("<tr>") == 4
