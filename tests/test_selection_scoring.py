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

from cluster.errors import BadInput
from cluster.models import attention, attention_plan
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.rendering import Rendered, Renderer
from selection.costs import CostSettings, lark, rsr, scas, scas_parts
from selection.layers import find_layer
from selection.scoring import EmptySpan, Scorer, Statistics
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
    table = pd.DataFrame([asdict(s) for s in scored]).assign(question_id=[e["id"] for e in expected])  # type: ignore[call-overload]
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
    a = [t for t in range(row.prompt_length, row.answer_end) if row.ids[t] not in special]
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
        assert asdict(a)["answer_loss"] == pytest.approx(asdict(b)["answer_loss"], rel=1e-5)  # type: ignore[call-overload]
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
        assert asdict(a)["answer_loss"] == pytest.approx(asdict(b)["answer_loss"], rel=1e-5)  # type: ignore[call-overload]


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
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _m, _i: 1 / 0)  # type: ignore[func-returns-value]
    assert isinstance(scorer.score([Rendered((4, 5, 6), 1, 3)])[0], ZeroDivisionError)
    handle.remove()
    assert not scorer.layer.module._forward_hooks


LAYERS = {
    "llama": "model.layers.3.mlp.up_proj",
    "glm4": "model.layers.3.mlp.gate_up_proj",
    "phi3": "model.layers.3.mlp.gate_up_proj",
    "phi": "model.layers.3.mlp.fc1",
    "starcoder2": "model.layers.3.mlp.c_fc",
    "opt": "model.decoder.layers.3.fc1",
    "gptj": "transformer.h.3.mlp.fc_in",
    "bloom": "transformer.h.3.mlp.dense_h_to_4h",
    "falcon": "transformer.h.3.mlp.dense_h_to_4h",
    "mamba": "backbone.layers.3.mixer.in_proj",
    "gemma3": "model.language_model.layers.3.mlp.up_proj",
    "qwen3_moe": "model.layers.3.mlp",
    "gpt_oss": "model.layers.3.mlp",
    "mixtral": "model.layers.3.mlp",
    "deepseek_v3": "model.layers.3.mlp",
    "llama4_text": "model.layers.3.feed_forward",
    "granitemoe": "model.layers.3.block_sparse_moe",
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_family_has_a_layer_to_read(kind: str) -> None:
    from tests.architectures import tiny_model as tiny

    layer = find_layer(tiny(kind))
    assert (layer.name, layer.up_half) == (LAYERS[kind], kind in ("glm4", "phi3"))


def test_a_layer_that_is_not_there_or_does_not_give_a_vector_for_each_token_is_refused_by_name() -> None:
    from tests.architectures import tiny_model as tiny

    with pytest.raises(BadInput, match="no such layer"):
        find_layer(random_model("llama"), "model.layers.9.mlp.up_proj")
    for kind, layer in (("mixtral", "model.layers.3.mlp.gate"), ("qwen3_moe", "model.layers.3.mlp.experts")):
        rows = random_pool()[:4]  # 2-D outputs [tokens, width] are one vector for each token too
        assert all(isinstance(s, Statistics) for s in Scorer(tiny(kind), frozenset(), layer).score(rows))
    (refused,) = Scorer(tiny("qwen3"), frozenset(), "model.layers.3.self_attn.q_norm").score(
        random_pool()[:1]
    )
    assert "does not give one vector for each token" in str(refused)


def test_a_student_judged_by_its_loss_is_read_at_the_layer_that_scoring_reads(tiny_model: Path) -> None:
    from jobs.experiment.schema import Evaluate, Student
    from jobs.stages.evaluate import EvaluateHandler, Judging
    from jobs.stages.states import first_state
    from selection.verification import VerifySettings

    state = first_state(Student(name="kid", path=str(tiny_model)))
    judging = Judging(Evaluate(metric="loss"), VerifySettings(), "model.layers.0.mlp.up_proj")
    handler = EvaluateHandler(state, judging, 0.0)
    assert handler.scorer is not None
    assert handler.scorer.layer.name == "model.layers.0.mlp.up_proj"


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
