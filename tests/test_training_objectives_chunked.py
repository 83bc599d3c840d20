"""The chunked loss: the plain loss's value and gradients for every kind of head, and memory that does not
grow with the answers.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from cluster.models.proof import prove
from cluster.models.vocabulary import Head
from tests.architectures import tiny_model
from training.objectives import chunked as objectives
from training.objectives.chunked import chunked_loss


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes that were allocated at once on top of what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    every = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    events = [e for e in every if e.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top


def with_lora_on_the_head(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    wrapped = get_peft_model(
        model, LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
    )
    return wrapped.eval()


# plain, scaled, scaled, capped, with a bias, through the model's own forward twice, tied, wrapped by peft
HEADS = (
    "llama",
    "granite",
    "cohere",
    "gemma2",
    "phi",
    "modernbert-decoder",
    "recurrent_gemma",
    "gpt2",
    "lora",
)


@pytest.mark.parametrize("kind", HEADS)
def test_chunks_give_the_plain_loss_and_its_gradients_through_every_kind_of_head(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "granite": {"logits_scaling": 3.0},
        "cohere": {"logit_scale": 0.3},
        "gemma2": {"final_logit_softcapping": 5.0},
    }
    model = tiny_model("llama" if kind == "lora" else kind, **changes.get(kind, {}))
    head = prove(model, ("projection",)).head
    if kind == "lora":
        head = Head(with_lora_on_the_head(model), head.size)
    assert head.is_one_matrix == (kind not in ("lora", "modernbert-decoder", "recurrent_gemma"))
    torch.manual_seed(0)
    hidden = torch.randn(53, model.config.hidden_size, requires_grad=True)
    labels, weights = torch.randint(0, head.size, (53,)), torch.rand(53)

    def loss_of(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return (
            torch.nn.functional.cross_entropy(logits, labels[part], reduction="none") * weights[part]
        ).sum()

    wanted = [hidden, *(p for p in head.model.get_output_embeddings().parameters() if p.requires_grad)]
    plain = loss_of(head.logits(hidden), slice(0, 53))
    expected = torch.autograd.grad(plain * 0.7, wanted)
    for positions in (1, 7, 53, 1000):
        monkeypatch.setitem(objectives.CHUNK_BYTES, "cpu", 4 * head.size * positions)
        got = chunked_loss(head, hidden, loss_of)
        assert float(got.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
        for a, b in zip(torch.autograd.grad(got * 0.7, wanted), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_no_answer_token_gives_a_loss_of_zero_and_gradients_of_zero() -> None:
    head = prove(tiny_model("llama"), ("projection",)).head
    hidden = torch.randn(5, 32, requires_grad=True)
    loss = chunked_loss(head, hidden[:0], lambda logits, part: logits.sum()) + hidden.sum() * 0.0
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(head.weight.grad.abs().sum()) == 0.0


@pytest.mark.parametrize("kind", ["llama", "modernbert-decoder"])
def test_the_loss_takes_at_most_15_percent_of_the_plain_ones_memory_backward_included(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 4,096 answer tokens x 152,000 words do (`python -m benchmarks.loss` measures those), with everything
    ten times smaller.
    """
    model = tiny_model(kind, vocab_size=8000)
    head = prove(model, ("projection",)).head
    hidden = torch.randn(1024, 32, requires_grad=True)
    labels = torch.randint(0, 8000, (1024,))
    monkeypatch.setitem(objectives.CHUNK_BYTES, "cpu", 4 * 8000 * 1024 // 40)  # 64 MiB of 2.5 GB
    for parameter in (hidden, *model.parameters()):
        parameter.grad = torch.zeros_like(parameter)

    def loss_of(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels[part], reduction="sum")

    plain = peak_bytes(lambda: loss_of(head.logits(hidden), slice(0, 1024)).backward())
    chunked = peak_bytes(lambda: chunked_loss(head, hidden, loss_of).backward())
    assert plain > 2 * 4 * 8000 * 1024, "the profiler saw no logits"
    assert chunked <= 0.15 * plain, f"{chunked / plain:.2f}"
