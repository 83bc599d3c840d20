"""Steering: contexts and their edges, one state for any number of them, every context computed once."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.models.branching import forward
from cluster.models.loading import ModelSource, load_model
from cluster.models.proof import SCORING, prove
from selection import steering
from selection.steering import (
    ARRAYS,
    Reading,
    Rollout,
    States,
    TeacherPass,
    contexts_of,
    naive_states,
    teacher_tokens,
)
from tests.architectures import tiny_model as tiny_model_of


def rollouts(verdicts: str) -> list[Rollout]:
    """One for each letter: r right, w wrong, ? unknown."""
    known = {"r": True, "w": False, "?": None}
    return [Rollout(f"{i}", f"text {i}", known[v]) for i, v in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("verdicts", "solution", "expected"),
    [
        ("rw", "s", {"0": ("is_right", 0, 0), "1": ("", 2, 1)}),
        ("rw", "", {"0": ("is_right", 0, 0), "1": ("", 1, 1)}),
        ("rr", "s", {"0": ("all_right", 0, 0), "1": ("all_right", 0, 0)}),
        ("ww", "s", {"0": ("", 1, 2), "1": ("", 1, 2)}),
        ("ww", "", {"0": ("no_positive_context", 0, 0), "1": ("no_positive_context", 0, 0)}),
        ("r?w", "", {"0": ("is_right", 0, 0), "1": ("no_verdict", 0, 0), "2": ("", 1, 1)}),
    ],
)
def test_pools_at_every_edge(verdicts: str, solution: str, expected: dict[str, tuple[str, int, int]]) -> None:
    found = contexts_of(rollouts(verdicts), solution)
    assert {k: (p.why, len(p.right), len(p.wrong)) for k, p in found.items()} == {
        k: (why, right if not why else 0, wrong if not why else 0)
        for k, (why, right, wrong) in expected.items()
    }


def test_a_rollout_may_be_left_out_of_its_own_wrong_pool_with_its_copies() -> None:
    some = [
        Rollout("a", "x", False),
        Rollout("b", "x", False),
        Rollout("c", "y", False),
        Rollout("d", "z", True),
    ]
    assert contexts_of(some, "")["a"].wrong == ("x", "x", "y")
    own = contexts_of(some, "", exclude_self=True)
    assert own["a"].wrong == ("y",)
    assert own["c"].wrong == ("x", "x")
    alone = contexts_of(rollouts("rw"), "", exclude_self=True)["1"]
    assert alone.why == "no_negative_context"
    assert contexts_of(rollouts("rw"), "", exclude_self=True, needs="right")["1"].why == ""


@settings(max_examples=80)
@given(st.text("rw?", min_size=1, max_size=9), st.booleans(), st.booleans())
def test_every_rollout_is_trained_on_or_says_why_not(verdicts: str, knows: bool, exclude: bool) -> None:
    found = contexts_of(rollouts(verdicts), "s" if knows else "", exclude)
    assert set(found) == {str(i) for i in range(len(verdicts))}
    for i, v in enumerate(verdicts):
        pools = found[str(i)]
        assert (pools.why == "") <= (v == "w")
        if not pools.why:
            assert pools.right
            assert pools.wrong


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return load_model(ModelSource(str(tiny_model)))


def drawn(model: Any, seed: int, rows: int = 5) -> list[Reading]:
    """Readings of two questions: siblings share prompts, and have one or several contexts of each kind."""
    rng = np.random.default_rng(seed)
    size = model.config.vocab_size

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(3, size, rng.integers(low, high)))

    found = []
    for _ in range(2):
        prompt, reference = ids(3, 9), ids(10, 20)
        right, wrong = (tuple(ids(9, 30) for _ in range(rng.integers(1, 4))) for _ in range(2))
        found += [Reading(prompt, ids(1, 15), reference, right, wrong) for _ in range(rows)]
    return found


def arrays(states: States | Exception) -> dict[str, np.ndarray]:
    assert isinstance(states, States), states
    return {name: array[0] for name, array in states.arrays.items()}


@pytest.mark.parametrize(("shares", "budget"), product((True, False), (20, 70, 100_000)))
def test_one_state_stands_for_a_pool_whatever_shares_its_pass(model: Any, shares: bool, budget: int) -> None:
    rows = drawn(model, 1)
    teacher = TeacherPass(model, budget, shares)
    assert teacher.takes_means
    for row, states in zip(rows, teacher.read(rows, ARRAYS), strict=True):
        slow = naive_states(model, row, ARRAYS)
        found = arrays(states)
        assert found.keys() == slow.keys() == set(ARRAYS)
        for name, array in found.items():
            assert array.shape == (len(row.tokens), model.config.hidden_size)
            np.testing.assert_allclose(array, slow[name], atol=2e-5)
    turned = [Reading(r.prompt, r.tokens, r.reference, r.right[::-1], r.wrong[::-1]) for r in rows[::-1]]
    for one, other in zip(teacher.read(rows, ARRAYS), teacher.read(turned, ARRAYS)[::-1], strict=True):
        for name, array in arrays(one).items():
            np.testing.assert_allclose(array, arrays(other)[name], atol=1e-5)


def test_mean_logits_are_the_projection_of_the_mean_state(model: Any) -> None:
    row = drawn(model, 2)[0]
    teacher = TeacherPass(model)
    (states,) = teacher.read([row], ["h_pos"])
    pooled = teacher.proof.head.logits(torch.tensor(arrays(states)["h_pos"]))
    each = []
    for prompt in row.right:
        logits = model(input_ids=torch.tensor([[*prompt, *row.tokens]])).logits[0]
        each.append(logits[len(prompt) - 1 : len(prompt) - 1 + len(row.tokens)])
    expected = torch.stack(each).mean(0)
    close = (torch.softmax(pooled, 1) - torch.softmax(expected, 1)).abs().max()
    assert close < 1e-6


def test_row_0_is_the_prompts_last_position_and_a_rollout_of_one_token_has_one_row(model: Any) -> None:
    row = Reading((5, 6, 7), (9,), right=((5, 8),))
    (states,) = TeacherPass(model).read([row], ["h0", "h_pos"])
    alone = model.model(input_ids=torch.tensor([[5, 6, 7]])).last_hidden_state[0, -1]
    np.testing.assert_allclose(arrays(states)["h0"][0], alone.detach().numpy(), atol=1e-5)


def test_a_context_that_does_not_fit_leaves_its_pool_and_is_counted(model: Any) -> None:
    positions = tiny_model_of("gpt2")  # has a position for so many tokens and no more
    most = positions.config.max_position_embeddings
    for teacher, room in ((TeacherPass(model, max_length=40), 40), (TeacherPass(positions), most)):
        long, fits = tuple([5] * (room - 3)), (5, 8, 9)
        row = Reading((5, 6), (9, 9, 9, 9), (), (long, fits), (long,))
        (states,) = teacher.read([row], ARRAYS)
        assert isinstance(states, States)
        assert states.left_out == 2
        assert set(states.arrays) == {"h0", "h_pos"}
        slow = naive_states(teacher.model, Reading((5, 6), (9, 9, 9, 9), (), (fits,)), ["h_pos"])
        np.testing.assert_allclose(states.arrays["h_pos"][0], slow["h_pos"], atol=2e-5)


def test_a_reading_that_fails_alone_harms_no_other(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(model, 3)
    bad = rows[2].tokens

    def failing(model: Any, layout: Any, *rest: Any) -> torch.Tensor:
        if any(branch == bad for tree in layout.trees for branch in tree.branches):
            raise RuntimeError("no")
        return forward(model, layout, *rest)

    monkeypatch.setattr(steering, "forward", failing)
    found = TeacherPass(model).read(rows, ARRAYS)
    assert [isinstance(f, Exception) for f in found] == [r.tokens == bad for r in rows]
    np.testing.assert_allclose(
        arrays(found[0])["h_neg"], naive_states(model, rows[0], ["h_neg"])["h_neg"], atol=2e-5
    )


def test_no_pass_is_larger_than_the_budget_however_many_contexts_there_are(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bounds memory: a batch's tokens; and of contexts nothing is kept but means."""
    largest: list[int] = []

    def counting(model: Any, layout: Any, *rest: Any) -> torch.Tensor:
        largest.append(len(layout.ids))
        return forward(model, layout, *rest)

    monkeypatch.setattr(steering, "forward", counting)
    for contexts in (1, 24):
        rows = [
            Reading((5, 6), (7, 8, 9), (), tuple((5, 6, 7, i) for i in range(3, 3 + contexts)))
            for _ in range(4)
        ]
        found = TeacherPass(model, 40).read(rows, ARRAYS)
        assert max(largest) <= 40
        assert all(arrays(f)["h_pos"].shape == (3, model.config.hidden_size) for f in found)
    alone = [Reading(tuple(range(3, 60)), (5,), ())]
    assert isinstance(TeacherPass(model, 40).read(alone, ["h0"])[0], States)  # larger than the budget: alone


def test_tokens_of_the_teacher_are_the_spec_s_sums() -> None:
    """P = 300, R = 8,192, T = 1,024, five wrong of eight, nine contexts: 434,840 naive, 127,928 shared."""
    p, r, t, wrong, contexts = 300, 8192, 1024, 5, 9
    prompt = tuple(range(p))
    pool = tuple((k, *range(p + r - 1)) for k in range(contexts))
    rows = [Reading(prompt, tuple(range(k, k + t)), (), pool) for k in range(wrong)]
    some: list[Any] = ["h0", "h_pos"]
    assert teacher_tokens(rows, some, shares=False) == wrong * (contexts * (p + r + t) + p + t)
    assert teacher_tokens(rows, some, shares=True) == contexts * (p + r) + p + wrong * (contexts + 1) * t
    assert teacher_tokens(rows, some, True) == 127_928
    assert teacher_tokens(rows, some, False) == 434_840


CAPPED = [("llama", True), ("qwen3", True), ("gemma2", False), ("cohere", True), ("gpt2", True)]


@pytest.mark.parametrize(("kind", "expected"), CAPPED)
def test_a_capped_projection_is_told_from_a_linear_one_and_keeps_every_context(
    kind: str, expected: bool
) -> None:
    model = tiny_model_of(kind)
    teacher = TeacherPass(model)
    assert teacher.proof.head.is_linear() == teacher.takes_means == expected
    rows = [Reading((5, 6), (7, 8, 9), (), ((5, 9), (6, 8, 7)), ((9, 9),)) for _ in range(2)]
    for states in teacher.read(rows, ARRAYS):
        assert isinstance(states, States)
        assert len(states.arrays["h_pos"]) == (1 if expected else 2)
        pooled = states.arrays["h_pos"].mean(axis=0)
        np.testing.assert_allclose(pooled, naive_states(model, rows[0], ["h_pos"])["h_pos"], atol=5e-5)


def test_a_model_that_allows_neither_sharing_nor_padding_reads_one_text_a_pass(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Reading((5, 6), (7, 8, 9), (), ((5, 9, 4), (6, 8)), ((9,),)) for _ in range(2)]
    proof = prove(model, SCORING)
    assert proof.allows("padding")
    refused = replace(proof, fallbacks=proof.fallbacks | {"sharing": "said here", "padding": "said here"})
    monkeypatch.setattr("selection.steering.prove", lambda model, wanted: refused)
    teacher = TeacherPass(model)
    sizes: list[int] = []
    read = TeacherPass._read_batch
    monkeypatch.setattr(
        TeacherPass, "_read_batch", lambda self, batch: sizes.append(len(batch)) or read(self, batch)
    )
    for states in teacher.read(rows, ARRAYS):
        assert isinstance(states, States)
        expected = naive_states(model, rows[0], ARRAYS)
        for name, array in states.arrays.items():
            np.testing.assert_allclose(array.mean(axis=0), expected[name], atol=5e-5)
    assert set(sizes) == {1}
    assert len(sizes) == 2 * 4
