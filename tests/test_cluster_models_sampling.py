"""Sampling: greedy equals transformers' own, batches do not matter, a seed decides, temperature follows the
distribution.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.models.loading import ModelSource, load_model
from cluster.models.proof import SAMPLING, prove
from cluster.models.proof_of_decoding import refuse_shared_beginning
from cluster.models.sampling import Completion, Sampling, choose_at, sample
from cluster.progress import listening

STOP = frozenset({2})


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return load_model(ModelSource(str(tiny_model)))


def complete(
    model: Any,
    rows: list[list[int]],
    tokens: int,
    stop: frozenset[int] = STOP,
    seeds: Any = None,
    **more: Any,
) -> list[Completion]:
    """Sample the way the model's proof says; no row may fail."""
    found = sample(model, rows, Sampling(tokens, stop, way=prove(model, SAMPLING).way, **more), seeds)
    assert all(isinstance(c, Completion) for c in found), found
    return found  # type: ignore[return-value]


def prompts(count: int) -> list[list[int]]:
    g = torch.Generator().manual_seed(5)
    return [torch.randint(3, 300, (3 + i * 7 % 20,), generator=g).tolist() for i in range(count)]


def test_greedy_equals_generate_row_by_row(model: Any) -> None:
    rows = prompts(6)
    got = complete(model, rows, 12)
    for row, completion in zip(rows, got, strict=True):
        out = model.generate(
            torch.tensor([row]), max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=0
        )[0, len(row) :].tolist()
        expected = out[: out.index(2)] if 2 in out else out
        assert list(completion.ids) == expected
        assert completion.finish == ("stop" if 2 in out else "length")


@pytest.mark.parametrize("way", ["batched", "alone", "recomputed"])
def test_logprobs_are_the_models_own_before_temperature_and_top_p(model: Any, way: Any) -> None:
    rows = prompts(8)
    settings = Sampling(12, frozenset(range(2, 30)), 1.3, 0.8, way=way, logprobs=True)
    found = sample(model, rows, settings, list(range(8)))
    assert {c.finish for c in found if isinstance(c, Completion)} == {"stop", "length"}
    for row, said in zip(rows, found, strict=True):
        assert isinstance(said, Completion)
        assert len(said.logprobs) == len(said.ids) + (said.finish == "stop")
        for k, token in enumerate(said.ids):
            logits = model(torch.tensor([[*row, *said.ids[:k]]])).logits[0, -1].detach().float()
            assert said.logprobs[k] == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-4)
    bare = sample(model, rows, replace(settings, logprobs=False), list(range(8)))
    assert [c.ids for c in bare] == [c.ids for c in found]  # type: ignore[union-attr]
    assert all(c.logprobs == () for c in bare)  # type: ignore[union-attr]


def test_rows_that_stop_leave_the_batch_and_the_others_go_on_unchanged(model: Any) -> None:
    rows = prompts(8)
    free = complete(model, rows, 10)
    # now the first row stops at its third token, others perhaps later or never
    stop = frozenset({free[0].ids[2]})
    got = complete(model, rows, 10, stop)
    for before, after in zip(free, got, strict=True):
        cut = next((i for i, t in enumerate(before.ids) if t in stop), None)
        assert after.ids == (before.ids if cut is None else before.ids[:cut])
        assert after.finish == ("length" if cut is None else "stop")
    assert got[0].finish == "stop"


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gpt2", "bloom"])
def test_long_greedy_answers_equal_generate_beyond_the_caches_room(kind: str) -> None:
    """More tokens than the cache grows by at once, rows leaving in between, sliding layers and models without
    positions.
    """
    from tests.test_cluster_models_loading import random_model

    model = random_model(
        kind,
        **({} if kind in ("gpt2", "bloom") else {"sliding_window": 9}),
        **({"n_positions": 256} if kind == "gpt2" else {}),
    )
    g = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, 64, (3 + 2 * i,), generator=g).tolist() for i in range(9)]
    stop = frozenset({7, 11})
    for row, completion in zip(rows, complete(model, rows, 100, stop), strict=True):
        out = model.generate(
            torch.tensor([row]), max_new_tokens=100, do_sample=False, eos_token_id=[7, 11], pad_token_id=0
        )[0, len(row) :].tolist()
        assert list(completion.ids) == out[: next((k for k, i in enumerate(out) if i in stop), len(out))]


def test_a_sampled_row_depends_on_its_seed_and_not_on_its_batch(model: Any) -> None:
    rows = prompts(5)
    seeds = list(range(5))
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9}
    together = complete(model, rows, 8, seeds=seeds, **options)
    alone = [
        complete(model, [row], 8, seeds=[seed], **options)[0] for row, seed in zip(rows, seeds, strict=True)
    ]
    assert together == alone
    tight = complete(model, rows, 8, seeds=seeds, token_budget=1, **options)
    assert tight == together
    assert complete(model, rows, 8, seeds=[s + 100 for s in seeds], **options) != together
    for way in ("alone", "recomputed"):
        drawn = Sampling(8, STOP, 1.0, 0.9, way=way)  # type: ignore[arg-type]
        assert sample(model, rows, drawn, seeds) == together


def test_a_model_with_learned_positions_stops_each_row_at_its_own_last_one() -> None:
    from tests.test_cluster_models_loading import random_model

    model = random_model("gpt2")  # 64 positions
    rows = [[5] * 60, [5] * 70, [5] * 5]
    got = complete(model, rows, 10, frozenset())
    assert [(len(c.ids), c.finish) for c in got] == [(4, "length"), (0, "length"), (10, "length")]
    assert got == [complete(model, [row], 10, frozenset())[0] for row in rows]


@pytest.mark.parametrize("kind", ["falcon_h1", "lfm2"])
def test_a_model_with_a_recurrent_state_keeps_finished_rows_and_the_right_text(kind: str) -> None:
    from tests.test_cluster_models_loading import random_model

    model, stop = random_model(kind), frozenset({7, 11, 13, 17})
    g = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, 64, (12,), generator=g).tolist() for _ in range(9)]
    got = complete(model, rows, 30, stop)
    for row, completion in zip(rows, got, strict=True):
        out = model.generate(
            torch.tensor([row]), max_new_tokens=30, do_sample=False, eos_token_id=sorted(stop), pad_token_id=0
        )[0, 12:].tolist()
        assert list(completion.ids) == out[: next((k for k, i in enumerate(out) if i in stop), len(out))]


def test_a_token_that_the_model_does_not_know_fails_its_own_row_alone(model: Any) -> None:
    """An IndexError out of one row ended the whole run."""
    rows = prompts(5)
    good = complete(model, rows, 6)
    got = sample(model, [*rows[:2], [5, 10**6], *rows[2:]], Sampling(6, STOP))
    assert isinstance(got[2], Exception)
    assert [*got[:2], *got[3:]] == good


def test_memory_that_runs_out_halves_the_batch_and_changes_no_answer(model: Any) -> None:
    rows = prompts(9)
    expected = complete(model, rows, 8)
    fed: list[int] = []

    def tight(_module: Any, inputs: Any) -> None:
        fed.append(len(inputs[0]))
        if fed[-1] > 3:
            raise torch.OutOfMemoryError("out of memory")

    handle = model.get_input_embeddings().register_forward_pre_hook(tight)
    heard: list[float] = []
    with listening(heard.append):
        got = sample(model, rows, Sampling(8, STOP))
    handle.remove()
    assert got == expected
    assert sum(heard) == pytest.approx(1), "what is computed again is reported once"
    assert max(fed) == 9
    assert 2 in fed


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("way", ["batched", "alone", "recomputed"])
def test_progress_is_told_while_a_batch_is_under_way(
    model: Any, way: Any, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of long answers by a large model takes minutes."""
    monkeypatch.setattr("cluster.models.sampling.lanes_of", lambda _: lanes)
    monkeypatch.setattr("cluster.models.sampling.LEAST_ROWS", 2)
    heard: list[float] = []
    with listening(heard.append):
        sample(model, prompts(4), Sampling(10, frozenset(), way=way))
    assert sum(heard) == pytest.approx(1)
    assert len(heard) >= (4 if way == "alone" else 10)
    assert min(heard) > 0


def test_logits_that_are_not_numbers_fail_their_row() -> None:
    from tests.test_cluster_models_loading import random_model

    broken = random_model("llama")
    with torch.no_grad():
        broken.get_input_embeddings().weight[61] = torch.nan
    got = sample(broken, [[5, 6, 7], [5, 61, 7]], Sampling(4, STOP))
    assert isinstance(got[0], Completion)
    assert isinstance(got[1], ArithmeticError)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_stretch_beyond_a_length_are_as_if_the_row_were_alone_and_new(kind: str) -> None:
    from tests.test_cluster_models_loading import random_model

    half = {
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 16,
        "factor": 4.0,
    }
    rope = {"rope_type": kind, "rope_theta": 100.0, **({"factor": 4.0} if kind == "dynamic" else half)}
    model = random_model(
        "llama", max_position_embeddings=16 if kind == "dynamic" else 64, rope_parameters=rope
    )
    rows = [list(range(5, 5 + n)) for n in (3, 12, 20)]
    got = complete(model, rows, 12, frozenset())
    for row, completion in zip(rows, got, strict=True):
        text = list(row)
        for token in completion.ids:
            fresh = random_model(
                "llama", max_position_embeddings=16 if kind == "dynamic" else 64, rope_parameters=rope
            )
            with torch.no_grad():
                assert (
                    int(fresh(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1].argmax())
                    == token
                )
            text.append(token)


def test_draws_follow_the_distribution_and_top_p_cuts_its_tail() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = torch.bincount(choose_at(logits, draws, 1.0, 1.0), minlength=4) / 4000
    assert (
        shares - torch.tensor([0.5, 0.3, 0.15, 0.05])
    ).abs().max() < 0.03  # three standard errors of a share of one half
    cut = torch.bincount(choose_at(logits, draws, 1.0, 0.7), minlength=4) / 4000
    assert cut[2] == cut[3] == 0
    assert abs(float(cut[0]) - 0.625) < 0.03


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "gemma2", "phi"])
def test_a_beginning_that_all_rows_share_is_computed_once_and_changes_no_answer(kind: str) -> None:
    from tests.architectures import tiny_model as tiny_model_of

    model = tiny_model_of(kind)
    assert refuse_shared_beginning(model) is None
    g = torch.Generator().manual_seed(1)
    known = model.get_input_embeddings().num_embeddings
    beginning = torch.randint(3, known, (21,), generator=g).tolist()
    rows = [beginning + [token % known for token in row] for row in prompts(7)]
    shared = complete(model, rows, 16, shares_beginning=True)
    assert shared == complete(model, rows, 16)


def test_a_shared_beginning_is_read_as_often_as_there_are_batches(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    forward = model.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        read.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    beginning, ends = list(range(5, 45)), [[50 + k] for k in range(6)]
    rows = [beginning + end for end in ends]
    way = prove(model, SAMPLING).way
    monkeypatch.setattr(model, "forward", counting)
    sample(model, rows, Sampling(1, STOP, way=way, shares_beginning=True))
    assert sum(read) == 40 + 6
    read.clear()
    sample(model, rows, Sampling(1, STOP, way=way))
    assert sum(read) == 41 * 6
