"""Sampling: greedy equals transformers' own, batches do not matter, a seed decides, temperature follows the distribution."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.loading import ModelSource, load_model
from cluster.sampling import _choose, sample

STOP = frozenset({2})


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return load_model(ModelSource(str(tiny_model)))


def prompts(count: int) -> list[list[int]]:
    g = torch.Generator().manual_seed(5)
    return [torch.randint(3, 300, (3 + i * 7 % 20,), generator=g).tolist() for i in range(count)]


def test_greedy_equals_generate_row_by_row(model: Any) -> None:
    rows = prompts(6)
    got = sample(model, rows, max_new_tokens=12, stop_ids=STOP)
    for row, completion in zip(rows, got, strict=True):
        out = model.generate(torch.tensor([row]), max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=0)[
            0, len(row) :
        ].tolist()
        expected = out[: out.index(2)] if 2 in out else out
        assert list(completion.ids) == expected
        assert completion.finish == ("stop" if 2 in out else "length")


def test_rows_that_stop_leave_the_batch_and_the_others_go_on_unchanged(model: Any) -> None:
    rows = prompts(8)
    free = sample(model, rows, max_new_tokens=10, stop_ids=STOP)
    stop = frozenset({free[0].ids[2]})  # now the first row stops at its third token, others perhaps later or never
    got = sample(model, rows, max_new_tokens=10, stop_ids=stop)
    for before, after in zip(free, got, strict=True):
        cut = next((i for i, t in enumerate(before.ids) if t in stop), None)
        assert after.ids == (before.ids if cut is None else before.ids[:cut])
        assert after.finish == ("length" if cut is None else "stop")
    assert got[0].finish == "stop"


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gpt2", "bloom"])
def test_long_greedy_answers_equal_generate_beyond_the_caches_room(kind: str) -> None:
    """More tokens than the cache grows by at once, rows leaving in between, sliding layers and models without positions."""
    from tests.test_cluster_loading import random_model

    model = random_model(
        kind, **({} if kind in ("gpt2", "bloom") else {"sliding_window": 9}), **({"n_positions": 256} if kind == "gpt2" else {})
    )
    g = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, 64, (3 + 2 * i,), generator=g).tolist() for i in range(9)]
    stop = frozenset({7, 11})
    for row, completion in zip(rows, sample(model, rows, max_new_tokens=100, stop_ids=stop), strict=True):
        out = model.generate(torch.tensor([row]), max_new_tokens=100, do_sample=False, eos_token_id=[7, 11], pad_token_id=0)[
            0, len(row) :
        ].tolist()
        assert list(completion.ids) == out[: next((k for k, i in enumerate(out) if i in stop), len(out))]


def test_a_sampled_row_depends_on_its_seed_and_not_on_its_batch(model: Any) -> None:
    rows = prompts(5)
    seeds = list(range(5))
    options: dict[str, Any] = {"max_new_tokens": 8, "stop_ids": STOP, "temperature": 1.0, "top_p": 0.9}
    together = sample(model, rows, seeds=seeds, **options)
    alone = [sample(model, [row], seeds=[seed], **options)[0] for row, seed in zip(rows, seeds, strict=True)]
    assert together == alone
    tight = sample(model, rows, seeds=seeds, token_budget=1, **options)
    assert tight == together
    assert sample(model, rows, seeds=[s + 100 for s in seeds], **options) != together


def test_a_model_with_learned_positions_stops_each_row_at_its_own_last_one() -> None:
    from tests.test_cluster_loading import random_model

    model = random_model("gpt2")  # 64 positions
    rows = [[5] * 60, [5] * 70, [5] * 5]
    got = sample(model, rows, max_new_tokens=10, stop_ids=frozenset())
    assert [(len(c.ids), c.finish) for c in got] == [(4, "length"), (0, "length"), (10, "length")]
    assert got == [sample(model, [row], max_new_tokens=10, stop_ids=frozenset())[0] for row in rows]


@pytest.mark.parametrize("kind", ["falcon_h1", "lfm2"])
def test_a_model_with_a_recurrent_state_keeps_finished_rows_and_the_right_text(kind: str) -> None:
    from tests.test_cluster_loading import random_model

    model, stop = random_model(kind), frozenset({7, 11, 13, 17})
    g = torch.Generator().manual_seed(2)
    rows = [torch.randint(3, 64, (12,), generator=g).tolist() for _ in range(9)]
    got = sample(model, rows, max_new_tokens=30, stop_ids=stop)
    for row, completion in zip(rows, got, strict=True):
        out = model.generate(torch.tensor([row]), max_new_tokens=30, do_sample=False, eos_token_id=sorted(stop), pad_token_id=0)[
            0, 12:
        ].tolist()
        assert list(completion.ids) == out[: next((k for k, i in enumerate(out) if i in stop), len(out))]


def test_a_model_without_a_key_value_cache_is_refused() -> None:
    from tests.test_cluster_loading import random_model

    with pytest.raises(BadInput, match="cannot sample from a mamba"):
        sample(random_model("mamba"), [[5, 6]], max_new_tokens=4, stop_ids=frozenset())


def test_draws_follow_the_distribution_and_top_p_cuts_its_tail() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = torch.bincount(_choose(logits, draws, 1.0, 1.0), minlength=4) / 4000
    assert (shares - torch.tensor([0.5, 0.3, 0.15, 0.05])).abs().max() < 0.03  # three standard errors of a share of one half
    cut = torch.bincount(_choose(logits, draws, 1.0, 0.7), minlength=4) / 4000
    assert cut[2] == cut[3] == 0
    assert abs(float(cut[0]) - 0.625) < 0.03
