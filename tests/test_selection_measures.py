"""Costs beyond one forward pass over question and answer: each against a slow version of its own that shares
no code with it, on random models of several architectures, and by hand.
"""

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from cluster.errors import BadInput
from cluster.models.rendering import Rendered
from selection import gradients
from selection.answer_alone import Unconditioned, UnconditionedStatistics
from selection.costs import CostSettings, compute_cost
from selection.gradients import Gradients, GradientStatistics, SketchStatistics
from selection.scoring import EmptySpan, Scorer
from selection.steps import Steps, StepStatistics
from selection.teacher_costs import casl, grace, grace_of
from selection.windows import LocalStatistics, Windows, sentence_ends, texts_of
from tests.test_cluster_models_loading import random_model

SPECIAL = frozenset({0, 1})
KINDS = ("llama", "gpt2", "gemma2")


class Words:
    """A vocabulary in which every fifth token ends a sentence."""

    def get_vocab(self) -> dict[str, int]:
        return {"Ġ": 0}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return ["Ġw." if i % 5 == 2 else "Ġw" for i in ids]


def draw_row(seed: int, prompt: int, answer: int) -> Rendered:
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 64, (prompt + answer + 2,), generator=rng).tolist()
    return Rendered(tuple(ids), prompt, prompt + answer)


def losses(model: Any, ids: Sequence[int]) -> list[float]:
    """-log p of every token but the first, from one plain forward pass in float64; the first has NaN."""
    with torch.no_grad():
        log_p = torch.log_softmax(model.double()(input_ids=torch.tensor([list(ids)])).logits[0], -1)
    return [math.nan, *(-float(log_p[t - 1, ids[t]]) for t in range(1, len(ids)))]


def slow_local(model: Any, row: Rendered, window: int) -> float:
    """Every sentence alone behind the prompt and those before it."""
    said = list(row.ids[row.prompt_length : row.answer_end])
    sentences: list[list[int]] = [[]]
    for token in said:
        sentences[-1].append(token)
        if token % 5 == 2:
            sentences.append([])
    sentences = [one for one in sentences if one]
    means = []
    for k, sentence in enumerate(sentences):
        before = [t for one in sentences[max(0, k - window) : k] for t in one]
        head = [*row.ids[: row.prompt_length], *before]
        own = losses(model, [*head, *sentence])[len(head) :]
        kept = [loss for loss, token in zip(own, sentence, strict=True) if token not in SPECIAL]
        if kept:
            means.append(sum(kept) / len(kept))
    return sum(means) / len(means)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [0, 1, 3])
def test_sentences_are_read_behind_the_question_and_those_before_them(kind: str, window: int) -> None:
    rows = [draw_row(seed, 3 + seed, 5 + 6 * seed) for seed in range(5)]
    got = Windows(Scorer(random_model(kind), SPECIAL), Words(), window).score(rows)
    model = random_model(kind)
    for one, row in zip(got, rows, strict=True):
        assert isinstance(one, LocalStatistics)
        assert one.local_loss == pytest.approx(slow_local(model, row, window), rel=1e-5)


def slow_first(model: Any, row: Rendered) -> tuple[float, int]:
    """The loss of the first counted token of every sentence, and how many there are."""
    own = losses(model, row.ids[: row.answer_end])
    total, count, is_open = 0.0, 0, True
    for t in range(row.prompt_length, row.answer_end):
        token = row.ids[t]
        if is_open and token not in SPECIAL:
            total, count, is_open = total + own[t], count + 1, False
        if token % 5 == 2:
            is_open = True
    return total, count


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_token_of_every_step_is_told_apart(kind: str) -> None:
    rows = [draw_row(seed, 3 + seed, 5 + 6 * seed) for seed in range(5)]
    got = Steps(random_model(kind), Words(), SPECIAL).score([*rows, Rendered((5, 6, 0, 1), 2, 4)])
    assert isinstance(got.pop(), EmptySpan)
    model = random_model(kind)
    for one, row in zip(got, rows, strict=True):
        assert isinstance(one, StepStatistics)
        loss, count = slow_first(model, row)
        assert one.n_first == count
        assert one.first_loss == pytest.approx(loss, rel=1e-5)


def test_gamma_of_casl_is_the_share_of_first_tokens_in_a_regression_of_a_teachers_answers() -> None:
    """Mean losses are made as 0.9 of other tokens', 0.1 of first tokens' and 3 times the share; steps of one
    token and a teacher of few answers say nothing.
    """
    rng = np.random.default_rng(0)
    n, first = rng.integers(20, 60, 40), rng.integers(2, 9, 40)
    of_first, others = rng.uniform(1, 4, 40), rng.uniform(0.1, 1, 40)
    mean = 0.9 * others + 0.1 * of_first + 3 * first / n
    # the mean of other tokens follows from both sums, so it is kept by solving for the other columns
    table = pd.DataFrame({"teacher": "ann", "n_answer": n, "n_first": first, "first_loss": of_first * first})
    table["answer_loss"] = mean * n
    kept = (table["answer_loss"] - table["first_loss"]) / (n - first)
    design = np.column_stack([np.ones(40), kept, of_first, first / n])
    slow = np.linalg.solve(design.T @ design, design.T @ mean)
    alone = pd.DataFrame({"teacher": "bob", "n_answer": [3, 9], "n_first": [3, 2], "answer_loss": 5.0})
    every = pd.concat([table, alone.assign(first_loss=2.0)], ignore_index=True)
    found = casl([every.iloc[:11], every.iloc[11:]], {"ann": 1.0, "bob": 1.0, "cyd": 1.0}, CostSettings())
    assert found == {"ann": pytest.approx(slow[3]), "bob": 0.0, "cyd": 0.0}
    whole = casl([every.sample(frac=1.0, random_state=1)], {"ann": 1.0}, CostSettings())
    assert whole["ann"] == found["ann"], "the order of answers changes no digit"
    costs = compute_cost(table, CostSettings("aslec_casl"), found)
    assert costs.to_numpy() == pytest.approx(mean - slow[3] * first / n)


def test_with_all_sentences_before_it_one_sentence_is_global_naturalness() -> None:
    row = Rendered((5, 6, 8, 9, 10, 11), 2, 6)  # no token ends a sentence
    scorer = Scorer(random_model("llama"), SPECIAL)
    (local,), (whole,) = Windows(scorer, Words(), 4).score([row]), scorer.score([row])
    mean = whole.answer_loss / whole.n_answer  # type: ignore[union-attr]
    assert local.local_loss == pytest.approx(mean, rel=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("texts", "ends"),
    [
        (["It", " is", " 3", ".", "5", ".", " Yes", "\n", "\n", "So"], [6, 9, 10]),
        ([" Ja", "!", " Nein", '?"', " Doch"], [2, 4, 5]),
        (["a", ".\n", "b", "\n\n", "c", "."], [2, 4, 6]),
        (["so.", "”", " He", " left", "."], [2, 5]),
        (["one"], [1]),
        (["你好", "。", "再见", "！", "是"], [2, 4, 5]),
        (["a.", "\n", "\n", "b"], [3, 4]),
        (["x. y. z"], [1]),
    ],
)
def test_where_sentences_end(texts: list[str], ends: list[int]) -> None:
    assert sentence_ends(texts) == ends


@given(st.lists(st.sampled_from(["a", " b", ".", "\n", " ", "3", '?"', "。", "\n\n", ""]), min_size=1))
def test_sentences_cover_an_answer_once(texts: list[str]) -> None:
    ends = sentence_ends(texts)
    assert ends[-1] == len(texts)
    assert ends == sorted(set(ends))
    assert ends[0] > 0


@given(st.text(max_size=60))
def test_tokens_of_a_byte_level_vocabulary_become_the_text_again(text: str) -> None:
    whole = "".join(character for character in text if not 0xD800 <= ord(character) < 0xE000)
    words = ByteLevel(add_prefix_space=False).pre_tokenize_str(whole)
    pieces = [character for word, _ in words for character in word]
    assert "".join(texts_of(pieces, True)) == whole


def test_an_added_token_does_not_hide_the_sentences_of_a_byte_level_vocabulary() -> None:
    """DeepSeek's end of turn holds the mark of SentencePiece; all of an answer became one sentence by it."""
    pieces = ["Yes", ".", "ĠNo", ".", "<｜end▁of▁sentence｜>"]
    assert texts_of(pieces, True)[:4] == ["Yes", ".", " No", "."]
    assert sentence_ends(texts_of(pieces[:4], True)) == [2, 4]
    assert sentence_ends(texts_of(pieces, True))[0] == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", [(7,), (0, 5, 9)])
def test_an_answer_alone_is_read_behind_a_head(kind: str, head: tuple[int, ...]) -> None:
    rows = [draw_row(seed, 3, 2 + 3 * seed) for seed in range(4)]
    scorer = Scorer(random_model(kind), SPECIAL)
    got, whole = Unconditioned(scorer, head).score(rows), scorer.score(rows)
    model = random_model(kind)
    for one, other, row in zip(got, whole, rows, strict=True):
        said = [*head, *row.ids[row.prompt_length : row.answer_end]]
        own = losses(model, said)
        kept = [own[t] for t in range(len(head), len(said)) if said[t] not in SPECIAL]
        assert isinstance(one, UnconditionedStatistics)
        assert one.n_alone == len(kept) == other.n_answer  # type: ignore[union-attr]
        assert one.alone_loss == pytest.approx(sum(kept), rel=1e-5)


def test_where_nothing_stands_before_an_answer_it_is_not_read_alone() -> None:
    with pytest.raises(BadInput, match="nothing stands before it"):
        Unconditioned(Scorer(random_model("llama"), SPECIAL), ())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_autograd_and_their_sketches_keep_inner_products(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [draw_row(seed, 4, 9) for seed in range(6)]
    exact = []
    for row in rows:
        model = random_model(kind).double()
        at = [t for t in range(row.prompt_length, row.answer_end) if row.ids[t] not in SPECIAL]
        logits = model(input_ids=torch.tensor([row.ids[: row.answer_end]])).logits[0]
        loss = -torch.stack([torch.log_softmax(logits[t - 1], -1)[row.ids[t]] for t in at]).mean()
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        exact.append(torch.cat([g.reshape(-1) for g in found if g is not None]).numpy())
    monkeypatch.setattr(gradients, "SKETCH", 4096)
    got = Gradients(random_model(kind), SPECIAL).score(rows)
    monkeypatch.setattr(gradients, "PIECE", 1000)
    drawn = Gradients(random_model(kind), SPECIAL, sketches=True).score(rows)
    parameters = sum(p.numel() for p in random_model(kind).parameters())
    told = [one for one in got if isinstance(one, GradientStatistics)]
    norms = [float(np.linalg.norm(g)) for g in exact]
    assert [one.gradient_norm for one in told] == pytest.approx(norms, rel=1e-4)
    kept = [one.gradient_sketch for one in drawn if isinstance(one, SketchStatistics)]
    sketches = np.array([np.frombuffer(sketch, "<f4") for sketch in kept], dtype=float)
    want = np.array(exact) @ np.array(exact).T / parameters
    scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    error = np.abs(sketches @ sketches.T - want) / scale
    assert error.max() < 6 / math.sqrt(4096)  # one standard deviation is about 1 / sqrt(width)


def test_a_row_without_a_gradient_harms_no_other() -> None:
    scorer = Gradients(random_model("llama"), SPECIAL)
    good = draw_row(0, 4, 9)
    got = scorer.score([Rendered((5, 6, 0, 1), 2, 4), Rendered((5, 6, 999), 2, 3), good])
    assert isinstance(got[0], ValueError)
    assert isinstance(got[1], Exception)
    assert got[2] == scorer.score([good])[0]


def test_what_has_no_countable_token_is_an_exception_of_its_own() -> None:
    windows = Windows(Scorer(random_model("llama"), SPECIAL), Words(), 1)
    empty, good = windows.score([Rendered((5, 6, 0, 1), 2, 4), draw_row(1, 4, 9)])
    assert isinstance(empty, EmptySpan)
    assert isinstance(good, LocalStatistics)


def slow_grace(vectors: np.ndarray, questions: list[str], smoothing: float = 1e-3) -> float:
    """With loops, outer products and an inverse; no eigenvectors."""
    names = sorted(set(questions))
    held, width, scores = max(1, len(names) // 10), vectors.shape[1], []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(names))
        test = {names[k] for k in order[len(names) - held :]}
        inside = [v / np.linalg.norm(v) for v, q in zip(vectors, questions, strict=True) if q not in test]
        outside = [v for v, q in zip(vectors, questions, strict=True) if q in test]
        moment = sum(np.outer(v, v) for v in inside) / len(inside)
        smooth = (1 - smoothing) * moment + smoothing * np.trace(moment) / width * np.eye(width)
        held_out = sum(np.outer(v, v) for v in outside) / len(outside)
        scores.append(np.trace(np.linalg.inv(smooth) @ held_out))
    return float(np.mean(scores))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 4), st.integers(1, 12))
def test_grace_is_a_trace_over_splits(seed: int, questions: int, samples: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"q{k}" for k in range(questions) for _ in range(samples)]
    vectors = rng.normal(size=(len(names), width)) * rng.uniform(0.1, 10, size=(len(names), 1))
    assert grace_of(vectors, names) == pytest.approx(slow_grace(vectors, names), rel=1e-6)


def test_grace_by_hand() -> None:
    """Two questions with one gradient each along the same axis: whichever is held out, S has one eigenvalue
    of 0.9995 and one of 0.0005, and H is 4 or 9 along the first.
    """
    found = grace_of(np.array([[2.0, 0.0], [3.0, 0.0]]), ["a", "b"])
    held_out = [4.0 if np.random.default_rng(s).permutation(2)[-1] == 0 else 9.0 for s in range(10)]
    assert found == pytest.approx(np.mean(held_out) / 0.9995)


def test_costs_of_teachers_are_those_of_all_their_answers() -> None:
    two, three = (np.array([length, 0], "<f4").tobytes() for length in (2, 3))
    table = pd.DataFrame({"answer_id": list("abcd"), "teacher": list("xxyy"), "question_id": list("pqpp")})
    table = table.assign(gradient_sketch=[two, three, None, two])
    accuracy = {"x": 0.5, "y": 0.5, "nobody sketched": 0.5}
    costs = grace([table.iloc[:1], table.iloc[1:]], accuracy, CostSettings("grace"))
    own = grace_of(np.array([[2.0, 0.0], [3.0, 0.0]]), ["p", "q"])
    last = 2 * own + 1
    assert costs == {"x": own, "y": last, "nobody sketched": last}
    assert compute_cost(table, CostSettings("grace"), costs).tolist() == [own, own, last, last]
    nothing = grace([table.iloc[2:3]], accuracy, CostSettings("grace"))
    assert set(nothing.values()) == {1.0}


def test_memory_that_ran_out_for_one_answer_keeps_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, seen = Gradients(random_model("llama"), SPECIAL), []

    def fail(self: Gradients) -> float:
        held = torch.zeros(3)
        seen.append(weakref.ref(held))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Gradients, "_norm", fail)
        (failed,) = scorer.score([draw_row(0, 4, 9)])
    assert isinstance(failed, torch.OutOfMemoryError)
    assert [ref() for ref in seen] == [None]


def test_an_error_that_breaks_the_device_is_no_row_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Gradients) -> float:
        raise torch.AcceleratorError("device-side assert triggered")

    monkeypatch.setattr(Gradients, "_norm", fail)
    with pytest.raises(torch.AcceleratorError):
        Gradients(random_model("llama"), SPECIAL).score([draw_row(0, 4, 9)])
