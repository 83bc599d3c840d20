"""Answers as paths: where calls stand, what each decision is rewarded with, and what a cut answer leaves."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.models.relay import Calls, Relayed
from cluster.placement import Needs
from jobs.experiment.students import Student
from jobs.experiment.wheels import Wheels
from jobs.run.tables import Request
from jobs.stages.hosted import Draw
from jobs.stages.states import first_state
from jobs.systems.training_wheels.examples import Rewards, Written, cloned_calls, path_of, without_calls
from jobs.systems.training_wheels.handler import Texts
from jobs.systems.training_wheels.judging import by_budget, controls_of
from jobs.systems.training_wheels.ledger import ledger_of
from jobs.systems.training_wheels.price import first_price, prices_after
from jobs.systems.training_wheels.relays import Relays, count_relays
from jobs.systems.training_wheels.sections import passes_per_token
from tests.runs import open_here
from training.path_settings import DECISION, NOT_DECIDED, PATH, STATE_ONLY

HELP = 99
REWARDS = Rewards({0: 0.0, 20: 1.5}, counts_call=False, floor=-10.0)


def rows(
    written: Written, budget: int = 20, rewards: Rewards = REWARDS
) -> tuple[list[int], list[list[float]]]:
    """The ids after the prompt, and the row of each: reward, part, is_call, may_call, is_own."""
    found = path_of([1, 2], written, budget, rewards, HELP)
    assert found is not None
    assert found.ids[:2] == (1, 2)
    assert (found.loss_start, found.loss_end) == (2, len(found.ids))
    return list(found.ids[2:]), found.arrays[PATH][0].tolist()


def test_a_call_stands_before_the_token_that_it_gets() -> None:
    ids, told = rows(Written([5, 6, 7], [False, True, False], [-1.0, -2.0, -30.0], False, True))
    assert ids == [5, HELP, 6, 7]
    assert told == [
        [-1.0, DECISION, 0, 1, 1],
        [-1.5, DECISION, 1, 1, 1],  # minus the price
        [0.0, NOT_DECIDED, 0, 0, 1],  # the teacher's token
        [-10.0, DECISION, 0, 1, 1],  # the floor
    ]
    assert without_calls(ids, [False, True, False]) == [5, 6, 7]


def test_a_call_may_count_the_teacher_s_log_probability() -> None:
    _, told = rows(
        Written([6], [True], [-2.0], False, False), rewards=Rewards({20: 1.5}, counts_call=True, floor=-10.0)
    )
    assert told[0] == [-3.5, DECISION, 1, 1, 0]


def test_under_budget_0_no_call_is_possible() -> None:
    _, told = rows(Written([5], [False], [-1.0], False, True), budget=0)
    assert told == [[-1.0, DECISION, 0, 0, 1]]


@pytest.mark.parametrize("last_is_call", [False, True])
def test_of_a_cut_answer_s_last_decision_only_the_state_counts(last_is_call: bool) -> None:
    _, told = rows(Written([5, 6], [False, last_is_call], [-1.0, -2.0], True, True))
    assert [row[1] for row in told] == [DECISION, STATE_ONLY, *([NOT_DECIDED] if last_is_call else [])]


def test_an_answer_of_one_cut_token_has_no_decision() -> None:
    assert path_of([1], Written([5], [False], [-1.0], True, True), 20, REWARDS, HELP) is None
    assert path_of([1], Written([], [], [], False, True), 20, REWARDS, HELP) is None


def test_cloned_calls_stand_where_the_student_is_weakest_or_anywhere() -> None:
    logprobs = [-0.1, -5.0, -0.2, -3.0, -0.3, -4.0, -0.4, -0.5, -0.6, -0.7]
    assert [k for k, c in enumerate(cloned_calls(logprobs, 30, "weakest", 0)) if c] == [1, 3, 5]
    assert not any(cloned_calls(logprobs, 0, "weakest", 0))
    drawn = [tuple(cloned_calls(logprobs, 30, "random", seed)) for seed in range(30)]
    assert {sum(own) for own in drawn} == {3}
    assert len(set(drawn)) > 10
    assert cloned_calls([], 40, "weakest", 0) == []
    # answers too short for a whole call get one now and then
    short = [sum(cloned_calls([-1.0, -2.0], 10, "weakest", seed)) for seed in range(400)]
    assert set(short) == {0, 1}
    assert 40 < sum(short) < 130


def test_prices_begin_where_an_able_student_keeps_them_and_follow_calls() -> None:
    assert first_price(0.1) == pytest.approx(2.197225, abs=1e-6)
    assert first_price(0.0) == 0.0
    wheels = Wheels(budgets=(0, 10, 20))
    counts = {
        0: {"calls": 0, "decisions": 640},
        10: {"calls": 192, "decisions": 640},  # 2 (0.3 - 0.1)
        20: {"calls": 0, "decisions": 2500},  # 2 (0 - 0.2)
    }
    found = prices_after({0: 0.0, 10: 2.0, 20: 0.5}, counts, wheels)
    assert found == pytest.approx({0: 0.0, 10: 2.4, 20: 0.1})
    assert prices_after({0: 0.0, 10: 2.0, 20: 0.3}, counts, wheels)[20] == 0.0  # never below
    assert prices_after({0: 0.0, 10: 2.0, 20: 0.5}, {}, wheels) == {0: 0.0, 10: 2.0, 20: 0.5}


def test_every_question_and_answer_has_one_state() -> None:
    states = ["usable", "failed", "usable", "usable", "empty"]
    is_own = [False, False, True, True, True]
    found = ledger_of(states, is_own, {0, 2}, 10, 4)  # the second usable one was in no step
    told = {(kind, state): n for kind, state, n in found.itertuples(index=False)}
    assert told == {
        ("question", "drawn"): 4,
        ("question", "not_drawn"): 6,
        ("teacher's answer", "trained"): 1,
        ("teacher's answer", "failed"): 1,
        ("rollout", "no_step_left"): 1,
        ("rollout", "trained"): 1,
        ("rollout", "empty"): 1,
    }
    with pytest.raises(RuntimeError):
        ledger_of(states, is_own[1:], set(), 10, 4)


def test_what_answers_took_is_counted_with_calls_by_how_far_the_student_is() -> None:
    import pandas as pd

    kl = [float(k) for k in range(10)]
    table = pd.DataFrame(
        {
            "finish": ["stop", "failed"],
            "prompt_tokens": [4, 0],
            "answer_tokens": [9, 0],
            "usd": [0.0, 0.0],
            "by_teacher": [[True] * 2 + [False] * 8, []],
            "processed": [12, 0],
            "help": [[k / 10 for k in kl], []],
            "kl": [kl[::-1], []],
            "overlap": [[0.8] * 10, []],
        }
    )
    found = count_relays(table)
    assert (found["calls"], found["decisions"], found["processed"], found["failed"]) == (2, 10, 12, 1)
    assert found["kl"] == 4.5
    assert found["overlap"] == pytest.approx(0.8)
    # the student is farthest from its teacher at the first tokens, where it hardly calls
    assert [found[f"help {k}"] for k in range(1, 6)] == pytest.approx([0.85, 0.65, 0.45, 0.25, 0.05])


def test_controls_call_at_the_budget_s_share_of_the_tokens() -> None:
    import pandas as pd

    g = np.random.default_rng(0)
    seen = {
        b: pd.DataFrame({c: [g.random(50).tolist() for _ in range(4)] for c in ("help", "entropies", "kl")})
        for b in (0, 10, 20)
    }
    wheels = Wheels(budgets=(0, 10, 20))
    found = {c.name: c for c in controls_of(wheels, HELP, seen, 60)}
    ways = ["capped", "where a call is likeliest", "at random", "where unsure", "farthest from the teacher"]
    assert list(found) == [f"{b} in 100, {way}" for b in (10, 20) for way in ways]
    capped = found["10 in 100, capped"]
    assert (capped.calls.most, capped.calls.share, capped.sentence) == (6, 0.1, wheels.told(10))
    random = found["20 in 100, at random"]
    assert (random.calls.caller, random.calls.threshold, random.sentence) == ("random", 0.2, wheels.told(0))
    for name, budget, column in (
        ("20 in 100, where a call is likeliest", 20, "help"),
        ("20 in 100, where unsure", 0, "entropies"),
        ("20 in 100, farthest from the teacher", 0, "kl"),
    ):
        values = np.concatenate(seen[budget][column].tolist())
        assert (values > found[name].calls.threshold).mean() == pytest.approx(0.2, abs=0.01)
    nothing = {b: pd.DataFrame({"help": [], "entropies": [], "kl": []}) for b in (0, 10, 20)}
    assert controls_of(wheels, HELP, nothing, 60)[1].calls.threshold == math.inf


@pytest.mark.parametrize(
    ("draft", "tokens", "passes"), [(2, 2.44, 0.409836), (4, 3.3616, 0.297477), (8, 4.328911, 0.231005)]
)
def test_speculative_decoding_s_arithmetic(draft: int, tokens: float, passes: float) -> None:
    assert passes_per_token(0.8, draft) == pytest.approx(passes, abs=1e-6)
    assert 1 / passes_per_token(0.8, draft) == pytest.approx(tokens, abs=1e-5)
    # with a student that never overlaps each pass gives one token
    assert passes_per_token(0.0, draft) == 1.0
    assert passes_per_token(0.8, draft) >= 1 - 0.8
    assert math.isclose(sum(0.8**k for k in range(draft + 1)), tokens, abs_tol=1e-6)


def test_every_budget_s_calls_are_drawn_and_none_are_possible_under_0() -> None:
    found = {c.name: c.calls for c in by_budget(Wheels(budgets=(0, 10)), HELP)}
    assert {name: calls.caller for name, calls in found.items()} == {"alone": "never", "10 in 100": "drawn"}


@pytest.mark.parametrize("help_id", [HELP, None])
def test_an_answer_as_either_model_reads_it(help_id: int | None) -> None:
    """The teacher ended it with its own end token, 50. The student's is 60."""
    calls = [HELP] if help_id is not None else []
    path = (5, *calls, 6, 7, *calls, 50)
    answer = Relayed((5, 6, 7), "stop", (False, True, False, True), path, (), (), (), 0)
    own = Texts.of(([1, 2], [3]), answer, help_id, frozenset({60}), 60)
    assert own.written == [5, 6, 7, 60]
    assert own.written_theirs == [5, 6, 7, 50]
    assert own.theirs == [3, 5, 6, 7]
    assert own.before_theirs == [0, 1, 2, 3]
    assert own.mine == [1, 2, *path[:-1]]
    # before a call the student has not read its help token
    assert own.before == ([1, 2, 4, 5] if help_id is not None else [1, 2, 3, 4])
    cut = Relayed((5,), "length", (False,), (5,), (), (), (), 0)
    assert Texts.of(([1], [3]), cut, help_id, frozenset({60}), 60).mine == [1]


def test_an_answer_that_ended_stays_when_the_limit_changes(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    """The limit is a column of answers, as everywhere, and no part of whose they are."""
    state = first_state(Student(name="kid", path=str(tiny_model)))
    here = open_here(small_world, tmp_path)
    views = [
        Relays(state, state, 7, Calls(), Draw(0.0, 1.0, limit, seed), False, Request({}), Needs()).view(here)
        for limit, seed in ((10, 0), (20, 0), (10, 1))
    ]
    assert views[0].table.owner.id == views[1].table.owner.id
    assert views[0].id != views[1].id
    assert views[0].table.owner.id != views[2].table.owner.id  # calls are drawn
