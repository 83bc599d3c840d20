"""Every architecture that the installed transformers builds: scored, trained and sampled as the plain way
does, or refused by name.

The plain way is written here without the project: one text in a pass of the model's own forward. A dozen
architectures run in `make test` (half of them where it takes longest), all of them in `make slow`.
"""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.models.proof import SAMPLING, SCORING, TRAINING, Proof, prove
from cluster.models.rendering import Rendered
from cluster.models.sampling import Completion, Sampling, sample
from cluster.storage import Place
from selection.layers import Layer
from selection.scoring import Scorer, Statistics
from tests.architectures import LEFT_OUT, POSITIONS, VOCABULARY, model_types, tiny_model
from training.batches import Layout, MicroBatch, collate, deal, deal_groups
from training.data import TREES, Example, Examples, write_examples
from training.engine import widest
from training.objectives.cross_entropy import weighted_cross_entropy
from training.objectives.objective import trees_of

# Plain, windows, soft caps, experts, latent attention, recurrent states, alibi, learned positions, chunks,
# sinks, no cache of keys, a head of its own.
DOZEN = (
    "qwen3",
    "mistral",
    "gemma2",
    "qwen3_moe",
    "deepseek_v3",
    "qwen3_next",
    "falcon_h1",
    "bloom",
    "opt",
    "llama4_text",
    "gpt_oss",
    "mamba",
    "modernbert-decoder",
)
REFUSED = {
    "prophetnet": "looks at tokens that come later",
    "xlnet": "looks at tokens that come later",
    "xmod": "does not run on text alone",
}
# Of those the ones that sampling and positions tell apart most.
SIX = ("gemma2", "deepseek_v3", "bloom", "qwen3_next", "gpt_oss", "mamba")
KINDS = [pytest.param(k, marks=() if k in DOZEN else pytest.mark.slow) for k in model_types()]
FEWER = [pytest.param(k, marks=() if k in SIX else pytest.mark.slow) for k in model_types()]


def texts(sizes: list[int], seed: int = 4) -> list[list[int]]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (n,), generator=g).tolist() for n in sizes]


def built(kind: str, shortcuts: tuple[str, ...]) -> tuple[Any, Proof | None]:
    """A tiny model with its proof, or None where it is refused as `REFUSED` says."""
    model = tiny_model(kind)
    if kind not in REFUSED:
        return model, prove(model, shortcuts)
    with pytest.raises(BadInput, match=REFUSED[kind]):
        prove(model, shortcuts)
    return model, None


@pytest.mark.slow
def test_enough_architectures_are_built_and_those_left_out_are_known() -> None:
    assert len(model_types()) >= 160
    assert len(LEFT_OUT) <= 25


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_one_text_in_a_pass(kind: str) -> None:
    model, proof = built(kind, SCORING)
    if proof is None:
        return
    special = frozenset({0, 1})
    scorer = Scorer(model, special)
    rows = []
    for prompt, *answers in (texts([4, 8, 3, 13]), texts([25, 2, 5, 30], 5), texts([11, 9], 6)):
        rows += [Rendered((*prompt, *a, 0, 5), len(prompt), len(prompt) + len(a)) for a in answers]
    prompt, turns = texts([9, 24], 7)
    rows.append(Rendered((*prompt, *turns), 9, 33, ((9, 15), (18, 19), (25, 33))))  # an answer of three turns
    for row, got in zip(rows, scorer.score(rows), strict=True):
        assert isinstance(got, Statistics), got
        expected = plain_statistics(model, row, special, scorer.layer)
        for name, value in expected.items():
            assert asdict(got)[name] == pytest.approx(value, rel=2e-4, abs=2e-4), name


def plain_statistics(model: Any, row: Rendered, special: frozenset[int], layer: Layer) -> dict[str, float]:
    seen: list[torch.Tensor] = []

    def watch(_module: Any, _inputs: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        output = output.reshape(len(row.ids[: row.answer_end]), -1).double()
        seen.append(output.chunk(2, -1)[1] if layer.up_half else output)

    handle = layer.module.register_forward_hook(watch)
    with torch.no_grad():
        logits = (
            model(input_ids=torch.tensor([row.ids[: row.answer_end]]), use_cache=False).logits[0].double()
        )
    handle.remove()
    written = row.spans or ((row.prompt_length, row.answer_end),)
    a = [t for start, end in written for t in range(start, end) if row.ids[t] not in special]
    q = [t for t in range(row.prompt_length) if row.ids[t] not in special]
    loss = {t: -float(torch.log_softmax(logits[t - 1], -1)[row.ids[t]]) for t in [*q, *a] if t}
    unit = seen[-1] / seen[-1].norm(dim=-1, keepdim=True)
    return {
        "n_answer": len(a),
        "answer_loss": sum(loss[t] for t in a),
        "question_loss": sum(loss[t] for t in q if t),
        "answer_norm_sq": float(unit[a].sum(0) @ unit[a].sum(0)),
        "cross_dot": float(unit[a].sum(0) @ unit[q].sum(0)),
        "max_loss": max(loss[t] for t in a),
        "entropy": sum(float(-(p * p.log()).sum()) for t in a for p in [torch.softmax(logits[t - 1], -1)]),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_steps_loss_and_gradient_are_the_sum_of_each_examples_own(kind: str) -> None:
    model, proof = built(kind, TRAINING)
    if proof is None:
        return
    layout = widest(proof)
    rows = [
        Example(tuple(t), len(t) // 3, len(t), 1.0 + k % 2)
        for k, t in enumerate(texts([13, 21, 17, 9, 30, 11]))
    ]
    rows[4] = replace(rows[4], gaps=((14, 19), (22, 23)))  # an answer of three turns
    shares = deal(range(len(rows)), [e.length for e in rows], 2, 60, layout)
    losses = []
    for batch in (collate(rows_of, rows) for share in shares for rows_of in share if rows_of):
        loss, _ = weighted_cross_entropy(proof.head, None, tensors_of(batch, layout))
        loss.backward()
        losses.append(float(loss.detach()))
    compare_with_each_alone(model, rows, sum(losses))


@pytest.mark.parametrize("kind", KINDS)
def test_examples_that_share_their_beginning_learn_as_each_alone(kind: str, tmp_path: Path) -> None:
    model, proof = built(kind, (*TRAINING, "shared prompts"))
    if proof is None or not proof.allows("shared prompts"):
        assert proof is None or "its own copy of the prompt" in proof.lines["shared prompts"]
        return
    prompts = texts([14, 31, 2], 8)
    rows = [
        Example((*prompts[g], *answer), len(prompts[g]), len(prompts[g]) + len(answer), 1.0 + k % 2, g)
        for k, (g, answer) in enumerate(zip((0, 0, 1, 1, 1, 2), texts([9, 33, 5, 17, 1, 12], 9), strict=True))
    ]
    write_examples(Place(str(tmp_path / "e.arrow")), rows)
    examples = Examples(Place(str(tmp_path / "e.arrow")))
    assert examples.shared_lengths.tolist() == [14 + 42 + 1, 31 + 23 + 2, 14]
    (share,) = deal_groups([0, 1, 2], examples, 1, 80, "shared")
    assert len(share) == 2
    losses = []
    for batch in (collate(rows_of, examples, examples.common) for rows_of in share):
        tensors = tensors_of(batch, "shared") | {TREES: trees_of(batch)}
        loss, _ = weighted_cross_entropy(proof.head, None, tensors)
        loss.backward()
        losses.append(float(loss.detach()))
    compare_with_each_alone(model, rows, sum(losses))


def test_dropout_in_attention_keeps_each_its_own_copy_of_the_prompt() -> None:
    """The shared way has no dropout in it. Scoring, where there is none, shares all the same."""
    proof = prove(tiny_model("llama", attention_dropout=0.1), ("sharing", "shared prompts"))
    assert set(proof.lines) == {"shared prompts"}
    assert "dropout" in proof.lines["shared prompts"]


def tensors_of(batch: MicroBatch, layout: Layout) -> dict[str, torch.Tensor]:
    given: dict[str, Any] = {**batch.inputs(layout), "labels": batch.labels, "weights": batch.weights}
    return {name: torch.tensor(value) for name, value in given.items()}


def compare_with_each_alone(model: Any, rows: list[Example], loss: float) -> None:
    """Compare this loss, and the gradients that the model has, with those of one example in a pass."""
    got = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    total = 0.0
    for e in rows:
        learned = [t for t in range(e.loss_start, e.loss_end) if not any(a <= t < b for a, b in e.gaps)]
        logits = model(input_ids=torch.tensor([e.ids]), use_cache=False).logits[0, [t - 1 for t in learned]]
        target = torch.tensor([e.ids[t] for t in learned])
        plain = torch.nn.functional.cross_entropy(logits.float(), target, reduction="sum") * e.weight
        plain.backward()
        total += float(plain.detach())
    assert loss == pytest.approx(total, rel=1e-4)
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    largest = max(float(g.norm()) for g in expected.values())
    for name, gradient in expected.items():
        difference = float((got.get(name, torch.zeros_like(gradient)) - gradient).norm())
        assert difference <= 1e-3 * float(gradient.norm()) + 1e-5 * largest, name


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_gives_the_same_gradients_or_is_not_taken(kind: str) -> None:
    model, proof = built(kind, ("projection", "checkpointing"))
    if proof is None or not proof.allows("checkpointing"):
        assert proof is None or "checkpointing" in proof.lines
        return
    (text,) = texts([19])
    row = collate([[0]], [Example(tuple(text), 6, 19)])
    batch = {
        "input_ids": torch.tensor(row.input_ids),
        "labels": torch.tensor(row.labels),
        "weights": torch.tensor(row.weights),
    }
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train().zero_grad(set_to_none=True)
        torch.manual_seed(0)
        weighted_cross_entropy(proof.head, None, batch)[0].backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(
            found[1][name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()) + 1e-8, msg=name
        )


@pytest.mark.parametrize("kind", FEWER)
def test_greedy_answers_are_those_of_computing_every_text_anew(kind: str) -> None:
    model, proof = built(kind, SAMPLING)
    if proof is None:
        return
    rows = texts([5, 12, 9, 16, 3])
    stop = frozenset({11, 23, 37, 41, 59})
    found = sample(model, rows, Sampling(10, stop, way=proof.way, logprobs=True))
    for row, got in zip(rows, found, strict=True):
        assert isinstance(got, Completion), got
        assert len(got.logprobs) == len(got.ids) + (got.finish == "stop")
        text = list(row)
        for k, token in enumerate([*got.ids, None]):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1]
            if token is None:
                assert len(got.ids) == 10 or int(logits.argmax()) in stop
                break
            assert float(logits.max() - logits[token]) <= 1e-3 * float(logits.abs().max()), (
                "another token is likelier"
            )
            logprob = float(logits.float().log_softmax(-1)[token])
            assert got.logprobs[k] == pytest.approx(logprob, abs=1e-3 * float(logits.abs().max()) + 1e-4)
            text.append(token)


@pytest.mark.parametrize("kind", FEWER)
def test_a_text_longer_than_the_model_knows_positions_for_has_a_name(kind: str) -> None:
    """Beyond its positions a model is refused by name or computes on; never a bare IndexError."""
    model, proof = built(kind, SAMPLING)
    if proof is None:
        return
    (long,) = texts([POSITIONS + 20])
    (got,) = sample(model, [long], Sampling(2, frozenset(), way=proof.way))
    assert isinstance(got, Completion)
    (scored,) = Scorer(model, frozenset()).score([Rendered(tuple(long), 10, len(long))])
    if isinstance(scored, Statistics):
        assert math.isfinite(scored.answer_loss)
    else:
        assert "longer than the model has positions for" in str(scored)
