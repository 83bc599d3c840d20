"""Forward statistics: the published numbers, an independent slow version, and invariance to batches and padding."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cluster.errors import BadInput
from cluster.loading import ModelSource, load_model, load_tokenizer
from cluster.rendering import Rendered, Renderer
from selection.costs import CostSettings, scas, scas_parts
from selection.statistics import EmptySpan, Scorer, Statistics, find_layer_module
from tests.test_cluster_loading import ARCHITECTURES, random_model

PARTS = (
    "answer_answer_similarity",
    "answer_question_similarity",
    "answer_mean_nll",
    "question_mean_nll",
    "answer_answer_block",
    "answer_question_block",
)


def test_the_published_scas_numbers_are_reproduced(golden: Path) -> None:
    source = ModelSource(str(golden / "student"))
    renderer = Renderer(load_tokenizer(source), compat="reference")
    expected = [json.loads(line) for line in (golden / "expected_scores.jsonl").read_text().splitlines()]
    answers = {}
    for file in (golden / "candidates").glob("*.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            answers[row["id"], file.stem] = renderer.conversation(row["instruction"], row["teacher_output"])
    assert len(expected) == len(answers) == 480
    keys = [(e["id"], e["teacher_name"]) for e in expected]
    scored = Scorer(load_model(source), renderer.special_ids).score([answers[k] for k in keys])
    table = pd.DataFrame([asdict(s) for s in scored])  # type: ignore[call-overload]
    parts = scas_parts(table).assign(scas_score=scas(table, CostSettings()))
    for name in (*PARTS, "scas_score"):
        for got, row in zip(parts[name], expected, strict=True):
            assert got == pytest.approx(row[name], rel=1e-5), (name, row["id"])


def slow_statistics(model: Any, row: Rendered, special: frozenset[int], layer: str) -> dict[str, float]:
    """One row, full log-softmax, full cosine matrix, in float64: written from the formulas, sharing no code with the engine."""
    seen: list[torch.Tensor] = []
    handle = dict(model.named_modules())[layer].register_forward_hook(lambda _m, _i, out: seen.append(out[0].double()))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    handle.remove()
    log_p = torch.log_softmax(logits, -1)
    a = [t for t in range(row.prompt_length, row.answer_end) if row.ids[t] not in special]
    q = [t for t in range(row.prompt_length) if row.ids[t] not in special]
    loss = {t: -float(log_p[t - 1, row.ids[t]]) for t in [*a, *q] if t > 0}
    u = seen[0] / seen[0].norm(dim=-1, keepdim=True)
    cosine = u @ u.T
    ranks, briers, entropies = [], [], []
    for t in a:
        ranks.append(min(100, 1 + int((logits[t - 1] > logits[t - 1, row.ids[t]]).sum())))
        k = min(50, logits.shape[-1])
        top = logits[t - 1].topk(k)
        p = torch.softmax(top.values, -1)
        own = float(p[top.indices == row.ids[t]].sum())
        briers.append(1 - 2 * own + float((p**2).sum()))
        entropies.append(-float((log_p[t - 1].exp() * log_p[t - 1]).sum()))
    return {
        "n_answer": len(a),
        "n_question": len(q),
        "answer_loss": sum(loss[t] for t in a),
        "question_loss": sum(loss.get(t, 0.0) for t in q),
        "answer_norm_sq": float(cosine[a][:, a].sum()),
        "cross_dot": float(cosine[a][:, q].sum()),
        "clipped_rank": sum(ranks),
        "brier": sum(briers),
        "entropy": sum(entropies),
        "max_loss": max(loss[t] for t in a),
    }


LAST_LAYER = {"gpt2": "transformer.h.1.mlp.c_fc", "gpt_neox": "gpt_neox.layers.1.mlp.dense_h_to_4h"}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_statistic_equals_the_slow_version_on_every_architecture(kind: str) -> None:
    model = random_model(kind)
    g = torch.Generator().manual_seed(4)
    special = frozenset({0, 1})
    rows = [
        Rendered(tuple(torch.randint(0, 64, (n,), generator=g).tolist()), p, e)
        for n, p, e in ((12, 4, 11), (20, 9, 20), (7, 1, 6), (20, 3, 9))
    ]
    got = Scorer(model, special).score(rows)
    for row, statistics in zip(rows, got, strict=True):
        assert isinstance(statistics, Statistics)
        expected = slow_statistics(model, row, special, LAST_LAYER.get(kind, "model.layers.1.mlp.up_proj"))
        for name, value in asdict(statistics).items():
            assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name


def test_a_row_does_not_depend_on_its_batch_its_padding_or_the_order(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    g = torch.Generator().manual_seed(1)
    rows = [Rendered(tuple(torch.randint(3, 300, (n,), generator=g).tolist()), n // 3, n - 1) for n in (40, 9, 23, 31, 12)]
    special = frozenset({0, 1, 2})
    together = Scorer(model, special).score(rows)
    alone = Scorer(model, special, token_budget=1).score(rows)
    backwards = Scorer(model, special, token_budget=64).score(rows[::-1])[::-1]
    for one, two, three in zip(together, alone, backwards, strict=True):
        for name, value in asdict(one).items():  # type: ignore[call-overload]
            assert value == pytest.approx(getattr(two, name), rel=1e-5), name
            assert value == pytest.approx(getattr(three, name), rel=1e-5), name


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
    rows = [Rendered(tuple(range(5, 5 + n)), 2, n) for n in (30, 8, 8, 8, 8)]
    expected = scorer.score(rows)
    whole = scorer._score_batch

    def tight(batch: list[Rendered]) -> list[Statistics | Exception]:
        if sum(r.length for r in batch) > 16:
            raise torch.OutOfMemoryError("out of memory")
        return whole(batch)

    scorer._score_batch = tight  # type: ignore[method-assign]
    got = scorer.score(rows)
    assert isinstance(got[0], torch.OutOfMemoryError)
    for a, b in zip(got[1:], expected[1:], strict=True):
        assert asdict(a)["answer_loss"] == pytest.approx(asdict(b)["answer_loss"], rel=1e-5)  # type: ignore[call-overload]


def test_a_model_that_gives_nan_quarantines_its_rows_instead_of_winning(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    scorer = Scorer(model, frozenset())
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")  # tied to the vocabulary projection: every loss is broken
    result = scorer.score([Rendered((5, 6, 7, 8), 2, 4)])[0]
    assert isinstance(result, ArithmeticError)
    assert "not finite" in str(result)


def test_the_hook_is_gone_after_scoring_even_when_the_forward_raises(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    scorer = Scorer(model, frozenset())
    with pytest.raises(IndexError):
        scorer.score([Rendered((10**6, 5, 6), 1, 3)])
    assert not scorer.module._forward_hooks


def test_a_layer_that_is_not_there_and_a_mixture_of_experts_are_refused() -> None:
    with pytest.raises(BadInput, match="no such layer"):
        find_layer_module(random_model("llama"), "model.layers.9.mlp.up_proj")
    from cluster.loading import import_transformers

    t = import_transformers()
    config = t.MixtralConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    with pytest.raises(BadInput, match="no single up projection"):
        find_layer_module(t.AutoModelForCausalLM.from_config(config))


def test_bfloat16_stays_within_its_bound_of_float32(golden: Path) -> None:
    """Losses in float32 from bfloat16 weights: mean answer loss within 2 % of float32's on real answers."""
    rows = [json.loads(line) for line in (golden / "candidates" / "6b_finetuning.jsonl").read_text().splitlines()[:24]]
    source = ModelSource(str(golden / "student"))
    renderer = Renderer(load_tokenizer(source))
    rendered = [renderer.conversation(r["instruction"], r["teacher_output"]) for r in rows]
    full = Scorer(load_model(source), renderer.special_ids).score(rendered)
    half = Scorer(load_model(ModelSource(source.path, "bfloat16")), renderer.special_ids).score(rendered)
    for a, b in zip(full, half, strict=True):
        assert isinstance(a, Statistics)
        assert isinstance(b, Statistics)
        assert math.isclose(a.answer_loss, b.answer_loss, rel_tol=0.02)
