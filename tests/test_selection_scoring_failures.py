"""Rows that cannot be scored fail alone, by name, and harm no neighbour."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.models.loading import ModelSource, load_model
from cluster.models.rendering import Rendered
from selection.scoring import EmptySpan, Scorer, Statistics


def loss_of(scored: Statistics | Exception) -> float:
    assert isinstance(scored, Statistics)
    return scored.answer_loss


def test_an_answer_of_special_tokens_only_gets_no_cost_and_harms_no_neighbour(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    good, empty = Rendered((5, 6, 7, 8, 9, 10), 3, 6), Rendered((5, 6, 7, 2, 2, 2), 3, 6)
    results = Scorer(model, frozenset({0, 1, 2})).score([empty, good])
    assert isinstance(results[0], EmptySpan)
    assert isinstance(results[1], Statistics)
    assert results[1].n_answer == 3


def test_out_of_memory_halves_the_batch_and_only_a_row_that_fails_alone_is_given_up(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    scorer = Scorer(model, frozenset({0, 1, 2}))
    rows = [Rendered(tuple(range(5, 5 + n)), p, n) for n, p in ((30, 2), (8, 2), (9, 2), (8, 3), (8, 2))]
    expected = scorer.score(rows)
    fed: list[int] = []

    def tight(_module: Any, inputs: Any) -> None:
        fed.append(inputs[0].numel())
        if fed[-1] > 16:
            raise torch.OutOfMemoryError("out of memory")

    handle = model.get_input_embeddings().register_forward_pre_hook(tight)
    got = scorer.score(rows)
    handle.remove()
    assert isinstance(got[0], torch.OutOfMemoryError)
    for a, b in zip(got[1:], expected[1:], strict=True):
        assert loss_of(a) == pytest.approx(loss_of(b), rel=1e-5)
    assert sum(n <= 16 for n in fed) < len(rows), "every row was computed alone"


def test_one_bad_row_among_good_ones_fails_alone_whatever_it_raises(tiny_model: Path) -> None:
    """An out-of-range token raised an IndexError out of `score` and ended the run; on a GPU it would end the
    process.
    """
    model = load_model(ModelSource(str(tiny_model)))
    scorer = Scorer(model, frozenset())
    rows = [Rendered(tuple(range(5, 5 + n)), 2, n) for n in (9, 12, 8, 15)]
    expected = scorer.score(rows)
    strange = Rendered((10**6, 5, 6, 7), 1, 4)
    odd = Rendered((5, 6, 99, 7), 2, 4)
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda _m, inputs: 1 / int(not (inputs[0] == 99).any()) and None
    )
    got = scorer.score([rows[0], strange, rows[1], odd, *rows[2:]])
    handle.remove()
    assert "outside of the model's vocabulary; got 1000000" in str(got[1])
    assert isinstance(got[3], ZeroDivisionError)
    for a, b in zip((got[0], got[2], *got[4:]), expected, strict=True):
        assert loss_of(a) == pytest.approx(loss_of(b), rel=1e-5)


def test_an_error_that_breaks_the_device_is_not_taken_for_a_rows(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    scorer = Scorer(model, frozenset())

    def broken(_module: Any, _inputs: Any) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    handle = model.get_input_embeddings().register_forward_pre_hook(broken)
    with pytest.raises(torch.AcceleratorError):
        scorer.score([Rendered((5, 6, 7, 8), 2, 4)] * 3)
    handle.remove()


def test_a_model_that_gives_nan_quarantines_its_rows_instead_of_winning(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    scorer = Scorer(model, frozenset())
    with torch.no_grad():
        # tied to the vocabulary projection: every loss is broken
        model.get_input_embeddings().weight[7] = float("nan")
    result = scorer.score([Rendered((5, 6, 7, 8), 2, 4)])[0]
    assert isinstance(result, ArithmeticError)
    assert "not finite" in str(result)


def test_the_hook_is_gone_after_scoring_even_when_the_forward_raises(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    scorer = Scorer(model, frozenset())
    embeddings = model.get_input_embeddings()
    handle = embeddings.register_forward_pre_hook(lambda _m, _i: 1 / 0)  # type: ignore[func-returns-value]
    assert isinstance(scorer.score([Rendered((4, 5, 6), 1, 3)])[0], ZeroDivisionError)
    handle.remove()
    assert not scorer.layer.module._forward_hooks
