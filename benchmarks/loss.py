"""Memory and time of the training loss at a real vocabulary: chunk by chunk against all logits at once.

    python -m benchmarks.loss            # 4,096 answer tokens x 152,000 words, width 576: 8 GiB, two minutes
    python -m benchmarks.loss --quick    # 1,024 tokens

Peak is counted over weights and their gradients, which both sides have, the backward pass included.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measurement import finish, timed
from cluster.models.loading import import_transformers
from cluster.models.vocabulary import Head
from training.objectives.chunked import chunked_loss

VOCABULARY, WIDTH, TURNS = 152_000, 576, 3


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes that were allocated at once on top of what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    now = top = 0
    recorded = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    events = [e for e in recorded if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top


def make_head() -> Head:
    """A vocabulary projection of random weights."""
    transformers = import_transformers()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    return Head(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32), VOCABULARY)


def measure(tokens: int) -> dict[str, Any]:
    """Both sides in turns: first their peaks and gradients, then their seconds."""
    head = make_head()
    hidden = torch.randn(tokens, WIDTH, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (tokens,))

    def loss_of(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels[part], reduction="sum")

    def step(side: Callable[[], torch.Tensor]) -> None:
        (side() / tokens).backward()  # type: ignore[no-untyped-call]

    def forget() -> None:
        head.weight.grad, hidden.grad = torch.zeros_like(head.weight), torch.zeros_like(hidden)

    sides = {
        "whole": lambda: loss_of(head.logits(hidden), slice(0, tokens)),
        "chunks": lambda: chunked_loss(head, hidden, loss_of),
    }
    peaks, seconds, gradients = {}, dict[str, list[float]](whole=[], chunks=[]), {}
    for name, side in sides.items():
        forget()
        peaks[name] = peak_bytes(partial(step, side))
        gradients[name] = [found.clone() for found in (head.weight.grad, hidden.grad) if found is not None]
    for _ in range(TURNS):
        for name, side in sides.items():
            forget()
            seconds[name].append(timed(partial(step, side)))
    return {"peaks": peaks, "seconds": seconds, "gradients": gradients}


def main() -> None:
    """Measure both sides in turns and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    tokens = 1024 if parser.parse_args().quick else 4096
    found = measure(tokens)
    peaks, seconds, gradients = found["peaks"], found["seconds"], found["gradients"]
    apart = [
        float((a - b).norm() / a.norm()) for a, b in zip(gradients["whole"], gradients["chunks"], strict=True)
    ]
    faster = [w / c for w, c in zip(seconds["whole"], seconds["chunks"], strict=True)]
    figures = {
        "answer_tokens": tokens,
        "peak_mib": {name: round(peak / 2**20) for name, peak in peaks.items()},
        "share_of_the_whole_ones_peak": round(peaks["chunks"] / peaks["whole"], 4),
        "times_as_fast": round(statistics.median(faster), 2),
        "gradients_apart": apart,
    }
    finish("loss", figures)


if __name__ == "__main__":
    main()
