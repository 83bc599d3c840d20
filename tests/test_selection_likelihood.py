"""How likely a model finds whole texts: against one text in a pass of the model's own forward, in float64."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from cluster.models.branching import Layout
from cluster.models.rendering import Rendered
from selection import likelihood
from selection.likelihood import Likelihood, Likelihoods
from tests.architectures import tiny_model
from tests.test_architectures import DOZEN, texts


def rows_of() -> list[Rendered]:
    """Answers after three prompts, not side by side, and a text without a prompt."""
    rows = []
    for prompt, *answers in (texts([9, 14, 3, 8]), texts([23, 5, 1], 5), texts([2, 30], 6)):
        rows += [Rendered((*prompt, *a, 5), len(prompt), len(prompt) + len(a)) for a in answers]
    (alone,) = texts([12], 7)
    rows.append(Rendered(tuple(alone), 0, 12))
    return [rows[i] for i in (4, 0, 6, 3, 1, 5, 2)]


def plain(model: Any, row: Rendered) -> float:
    start = max(1, row.prompt_length)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids[: row.answer_end]]), use_cache=False).logits[0]
    told = torch.log_softmax(logits.double(), -1)[range(start - 1, row.answer_end - 1)]
    return float(told[range(len(told)), list(row.ids[start : row.answer_end])].sum())


@pytest.mark.parametrize("kind", DOZEN)
def test_every_texts_likelihood_is_that_of_a_pass_of_its_own(kind: str) -> None:
    model, rows = tiny_model(kind), rows_of()
    for found in (Likelihoods(model).score(rows), Likelihoods(model, token_budget=20).score(rows)):
        for row, got in zip(rows, found, strict=True):
            assert isinstance(got, Likelihood), got
            assert got.tokens == row.answer_end - max(1, row.prompt_length)
            assert got.logprob == pytest.approx(plain(model, row), rel=1e-4, abs=1e-4)


def test_texts_after_one_prompt_share_a_pass_up_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    run = likelihood.forward

    def counted(model: Any, layout: Layout, shared: bool) -> torch.Tensor:
        passes.append(len(layout.ids))
        return run(model, layout, shared)

    monkeypatch.setattr(likelihood, "forward", counted)
    model, rows = tiny_model("llama"), rows_of()
    Likelihoods(model).score(rows)
    assert sorted(passes) == sorted([9 + 14 + 3 + 8, 23 + 5 + 1, 2 + 30, 12])
    passes.clear()
    Likelihoods(model, token_budget=27).score(rows)
    assert sum(passes) > sum([9 + 14 + 3 + 8, 23 + 5 + 1, 2 + 30, 12])
    assert max(passes) == 32  # a text that is longer by itself


def test_a_text_that_fails_costs_itself_alone() -> None:
    model, rows = tiny_model("llama"), rows_of()
    expected = Likelihoods(model).score(rows)
    beyond = replace(rows[1], ids=(*rows[1].ids[:-3], 10**6, *rows[1].ids[-2:]))
    found = Likelihoods(model).score([*rows, beyond])
    assert isinstance(found[-1], Exception)
    for one, other in zip(found[:-1], expected, strict=True):
        assert isinstance(one, Likelihood)
        assert isinstance(other, Likelihood)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
