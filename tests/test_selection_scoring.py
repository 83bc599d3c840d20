"""Forward statistics: the published numbers, an independent slow version, and invariance to batches and
padding.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cluster.models import attention, attention_plan
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.rendering import Rendered, Renderer
from selection.costs import CostSettings, lark, rsr, scas, scas_parts
from selection.scoring import Scorer, Statistics
from tests.test_cluster_models_loading import ARCHITECTURES, random_model

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


@pytest.mark.parametrize("rival", ["rsr", "lark"])
def test_the_published_numbers_of_the_rivals_are_reproduced_on_their_spans(golden: Path, rival: str) -> None:
    """RSR's span stops before the end-of-turn token, LARK's runs to the end of the text; every token counts
    in both.
    """
    source = ModelSource(str(golden / "student"))
    tokenizer = load_tokenizer(source)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    renderer = Renderer(tokenizer, compat="reference")
    expected = [json.loads(line) for line in (golden / "expected_scores.jsonl").read_text().splitlines()]
    rows = {}
    for file in (golden / "candidates").glob("*.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            whole = renderer.conversation(row["instruction"], row["teacher_output"])
            end = len(whole.ids) if rival == "lark" else whole.ids.index(end_of_turn, whole.prompt_length)
            rows[row["id"], file.stem] = Rendered(whole.ids, whole.prompt_length, end)
    scored = Scorer(load_model(source), frozenset()).score(
        [rows[e["id"], e["teacher_name"]] for e in expected]
    )
    table = pd.DataFrame([asdict(s) for s in scored])  # type: ignore[call-overload]
    table["question_id"] = [e["id"] for e in expected]
    n, loss = table["n_answer"], table["answer_loss"]
    got = {
        "rsr": {
            "rsr": rsr(table, CostSettings()),
            "rsr_avg_rank_clip": table["clipped_rank"] / n,
            "rsr_avg_surprisal": loss / n,
            "rsr_tokens": n,
        },
        "lark": {
            "lark_L": loss / n,
            "lark_brier": table["brier"] / n,
            "lark_rho": table["brier"] / loss,
            "lark_g_hat": -lark(table, CostSettings()),
        },
    }
    for name, values in got[rival].items():
        for value, row in zip(values, expected, strict=True):
            assert value == pytest.approx(row[name], rel=1e-5), (name, row["id"])


def slow_statistics(model: Any, row: Rendered, special: frozenset[int], layer: str) -> dict[str, float]:
    """One row, full log-softmax, full cosine matrix, in float64: written from the formulas, sharing no code
    with the engine.
    """
    seen: list[torch.Tensor] = []
    handle = dict(model.named_modules())[layer].register_forward_hook(
        lambda _m, _i, out: seen.append(out[0].double())
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    handle.remove()
    log_p = torch.log_softmax(logits, -1)
    written = row.spans or ((row.prompt_length, row.answer_end),)
    a = [t for start, end in written for t in range(start, end) if row.ids[t] not in special]
    q = [t for t in range(row.prompt_length) if row.ids[t] not in special]
    loss = {t: -float(log_p[t - 1, row.ids[t]]) for t in [*a, *q] if t > 0}
    u = seen[0] / seen[0].norm(dim=-1, keepdim=True)
    cosine = u @ u.T
    ranks, briers, entropies = [], [], []
    for t in [t for t in a if t > 0]:
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
        "answer_loss": sum(loss.get(t, 0.0) for t in a),
        "question_loss": sum(loss.get(t, 0.0) for t in q),
        "answer_norm_sq": float(cosine[a][:, a].sum()),
        "cross_dot": float(cosine[a][:, q].sum()),
        "clipped_rank": sum(ranks),
        "brier": sum(briers),
        "entropy": sum(entropies),
        "max_loss": max(loss[t] for t in a if t in loss),
    }


LAST_LAYER = {"gpt2": "transformer.h.1.mlp.c_fc", "gpt_neox": "gpt_neox.layers.1.mlp.dense_h_to_4h"}


def random_pool(vocabulary: int = 64) -> list[Rendered]:
    """Answers to prompts short and long, several to a prompt and alone, one prompt empty, with text after the
    turn's end.
    """
    g = torch.Generator().manual_seed(4)
    draw = lambda n: torch.randint(0, vocabulary, (n,), generator=g).tolist()  # noqa: E731
    rows = []
    for prompt_size, answers in ((4, (8, 3, 13)), (25, (2, 5, 4, 30)), (0, (6,)), (11, (1, 9))):
        prompt = draw(prompt_size)
        rows += [Rendered(tuple(prompt + draw(n) + draw(2)), prompt_size, prompt_size + n) for n in answers]
    return rows


def assert_equals_slow_version(
    model: Any, scorer: Scorer, rows: list[Rendered], special: frozenset[int], layer: str
) -> None:
    for row, statistics in zip(rows, scorer.score(rows), strict=True):
        assert isinstance(statistics, Statistics), statistics
        expected = slow_statistics(model, row, special, layer)
        for name, value in asdict(statistics).items():
            assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-5), (name, row)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_statistic_equals_the_slow_version_on_every_architecture_with_shared_prompts(
    kind: str, tied: bool
) -> None:
    model = random_model(kind, tie_word_embeddings=tied)
    special = frozenset({0, 1})
    scorer = Scorer(model, special)
    assert scorer.shares
    assert_equals_slow_version(
        model, scorer, random_pool(), special, LAST_LAYER.get(kind, "model.layers.1.mlp.up_proj")
    )


WINDOWED = {
    "mistral": {},
    "gemma2": {},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 0},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 1},
    "gemma3_text": {},
}


@pytest.mark.parametrize("kind", WINDOWED)
def test_a_sliding_window_shorter_than_the_answers_is_honoured_with_shared_prompts(kind: str) -> None:
    model = random_model(kind, sliding_window=7, **WINDOWED[kind])
    unlimited = random_model(kind, sliding_window=500, **WINDOWED[kind])
    scorer, rows = Scorer(model, frozenset()), random_pool()
    assert scorer.shares
    assert_equals_slow_version(model, scorer, rows, frozenset(), "model.layers.1.mlp.up_proj")
    wide = Scorer(unlimited, frozenset()).score(rows)
    assert any(
        abs(a.answer_loss - b.answer_loss) > 1e-4 for a, b in zip(scorer.score(rows), wide, strict=True)
    )  # type: ignore[union-attr]


def test_heads_whose_values_are_narrower_than_their_keys_share_prompts_too() -> None:
    model = random_model("deepseek_v3")
    scorer = Scorer(model, frozenset({0}))
    assert scorer.shares
    assert_equals_slow_version(model, scorer, random_pool(), frozenset({0}), "model.layers.1.mlp.up_proj")


def test_a_window_that_a_model_keeps_in_its_mask_is_found_though_the_probe_is_shorter() -> None:
    model = random_model("phimoe")
    assert Scorer(model, frozenset()).proof.fallbacks["sharing"] == "its sliding window is in its mask only"


def test_bfloat16_logits_are_made_in_float32(tiny_model: Path) -> None:
    """Ranks and losses follow from the model's bfloat16 hidden states and weights by an exact product, not by
    rounded logits.
    """
    model = load_model(ModelSource(str(tiny_model), "bfloat16"))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(40)
    g = torch.Generator().manual_seed(1)
    row = Rendered(tuple(torch.randint(3, 300, (40,), generator=g).tolist()), 10, 40)
    (got,) = Scorer(model, frozenset()).score([row])
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([row.ids])).last_hidden_state[0, 9:39]
        logits = hidden.double() @ model.get_output_embeddings().weight.double().t()
    target = torch.tensor(row.ids[10:])
    own = logits.gather(1, target[:, None])
    assert isinstance(got, Statistics)
    assert got.answer_loss == pytest.approx(float((torch.logsumexp(logits, -1) - own[:, 0]).sum()), rel=2e-3)
    ranks = (1 + (logits > own).sum(-1)).clamp(max=100)
    assert abs(got.clipped_rank - int(ranks.sum())) <= 0.02 * int(ranks.sum())


@pytest.mark.parametrize("kind", ["bloom", "falcon_h1", "llama4_text"])
def test_a_student_that_cannot_share_prompts_is_scored_row_by_row_with_the_same_numbers(kind: str) -> None:
    model = random_model(kind)
    layer = {
        "bloom": "transformer.h.1.mlp.dense_h_to_4h",
        "falcon_h1": "model.layers.1.feed_forward.up_proj",
    }.get(kind, "model.layers.1.feed_forward.up_proj")
    scorer = Scorer(model, frozenset({0}), layer)
    assert not scorer.shares
    rows = [r for r in random_pool() if r.prompt_length]
    assert_equals_slow_version(model, scorer, rows, frozenset({0}), layer)


def test_rope_that_depends_on_the_batch_is_computed_alone_beyond_its_original_length() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    make = lambda: random_model("llama", max_position_embeddings=16, rope_parameters=rope)  # noqa: E731
    rows = [Rendered(r.ids[: r.answer_end], r.prompt_length, r.answer_end) for r in random_pool()]
    for row, statistics in zip(rows, Scorer(make(), frozenset()).score(rows), strict=True):
        expected = slow_statistics(make(), row, frozenset(), "model.layers.1.mlp.up_proj")
        assert asdict(statistics) == pytest.approx(expected, rel=1e-5, abs=1e-5)  # type: ignore[call-overload]


def test_blocks_of_masked_attention_and_padded_groups_keep_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "BLOCK_SCORES", 40)
    monkeypatch.setattr(attention_plan, "GROUP_KEYS", 64)
    for kind in ("mistral", "gemma2"):
        model = random_model(kind, sliding_window=9)
        assert_equals_slow_version(
            model, Scorer(model, frozenset()), random_pool(), frozenset(), "model.layers.1.mlp.up_proj"
        )


def test_a_prompt_is_fed_once_for_all_its_answers(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    rows = [Rendered((*range(5, 45), 50 + k, 70 + k, 61), 40, 43) for k in range(6)]
    fed: list[int] = []
    scorer = Scorer(model, frozenset({61}))
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _m, inputs, _o: fed.append(inputs[0].numel())
    )
    scorer.score(rows)
    handle.remove()
    assert fed == [40 + 6 * 2]  # the end-of-turn token is in no span, so nothing is asked of it


def test_a_row_does_not_depend_on_its_batch_its_padding_or_the_order(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    g = torch.Generator().manual_seed(1)
    rows = [
        Rendered(tuple(torch.randint(3, 300, (n,), generator=g).tolist()), n // 3, n - 1)
        for n in (40, 9, 23, 31, 12)
    ]
    special = frozenset({0, 1, 2})
    together = Scorer(model, special).score(rows)
    alone = Scorer(model, special, token_budget=1).score(rows)
    backwards = Scorer(model, special, token_budget=64).score(rows[::-1])[::-1]
    for one, two, three in zip(together, alone, backwards, strict=True):
        for name, value in asdict(one).items():  # type: ignore[call-overload]
            assert value == pytest.approx(getattr(two, name), rel=1e-5), name
            assert value == pytest.approx(getattr(three, name), rel=1e-5), name


def test_bfloat16_stays_within_its_bound_of_float32(golden: Path) -> None:
    """Losses in float32 from bfloat16 weights: mean answer loss within 2 % of float32's on real answers."""
    rows = [
        json.loads(line)
        for line in (golden / "candidates" / "6b_finetuning.jsonl").read_text().splitlines()[:24]
    ]
    source = ModelSource(str(golden / "student"))
    renderer = Renderer(load_tokenizer(source))
    rendered = [renderer.conversation(r["instruction"], r["teacher_output"]) for r in rows]
    full = Scorer(load_model(source), renderer.special_ids).score(rendered)
    half = Scorer(load_model(ModelSource(source.path, "bfloat16")), renderer.special_ids).score(rendered)
    for a, b in zip(full, half, strict=True):
        assert isinstance(a, Statistics)
        assert isinstance(b, Statistics)
        assert math.isclose(a.answer_loss, b.answer_loss, rel_tol=0.02)
