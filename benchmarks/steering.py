"""The teacher pass of OGLS-SD against the naive way: every context with its rollout alone, nothing shared.

    python -m benchmarks.steering                      # the 135M shape on the CPU: minutes
    python -m benchmarks.steering --shape small        # seconds
    python -m benchmarks.steering --device cuda --shape 1.7b --dtype bfloat16

One question with eight rollouts, five of them wrong, and a reference: nine contexts. Both ways run in turns
in fresh processes; figures are tokens computed, seconds, tokens of rollouts read a second, and peak memory
beyond the model's.
"""

import argparse
import statistics
from typing import Any

from benchmarks.measurement import (
    emit,
    finish,
    in_fresh_process,
    peak_memory,
    reset_peak_memory,
    spread,
    timed,
)
from benchmarks.scoring_cases import SHAPE_135M, SMALL

SHAPE_17B = {
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}
SHAPES = {"small": SMALL, "135m": SHAPE_135M, "1.7b": SHAPE_17B}
WRONG, RIGHT = 5, 3


def readings(
    vocabulary: int, prompt: int, context: int, scored: int, contexts: int = WRONG + RIGHT + 1
) -> Any:
    """One question's wrong rollouts, each to be read after every context."""
    import numpy as np

    from selection.steering import Reading

    rng = np.random.default_rng(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(3, vocabulary, length))

    question, reference = ids(prompt), ids(prompt + context)
    right = (*(ids(prompt + context) for _ in range(contexts - WRONG - 1)), reference)
    wrong = tuple(ids(prompt + context) for _ in range(WRONG))
    return [Reading(question, ids(scored), reference, right, wrong) for _ in range(WRONG)]


def measure(way: str, shape: str, context: int, scored: int, device: str, dtype: str, contexts: int) -> None:
    """In a fresh process: one way, on a model of random weights."""
    import torch
    import transformers

    from selection.steering import TeacherPass, naive_states, teacher_tokens

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **SHAPES[shape], max_position_embeddings=16_384, tie_word_embeddings=True
    )
    model = (
        transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).to(device).eval()
    )
    rows = readings(config.vocab_size, 120, context, scored, contexts)
    arrays: Any = ("h0", "h_pos", "h_neg")
    teacher = TeacherPass(model) if way == "shared" else None

    def work() -> None:
        if teacher is not None:
            teacher.read(rows, arrays)
        else:
            for row in rows:
                naive_states(model, row, arrays)

    before = reset_peak_memory(device)
    seconds = timed(work, device)
    emit(
        {
            "seconds": seconds,
            "tokens": teacher_tokens(rows, arrays, shares=way == "shared"),
            "read": sum(len(r.tokens) for r in rows),
            "peak_mib": (peak_memory(device) - before) / 2**20,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--way")
    parser.add_argument("--shape", default="135m", choices=SHAPES)
    parser.add_argument("--context", type=int, default=2000)
    parser.add_argument("--scored", type=int, default=256)
    parser.add_argument("--contexts", type=int, default=WRONG + RIGHT + 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--turns", type=int, default=2)
    a = parser.parse_args()
    if a.way:
        measure(a.way, a.shape, a.context, a.scored, a.device, a.dtype, a.contexts)
        return
    about = ["--shape", a.shape, "--context", str(a.context), "--scored", str(a.scored), "--device", a.device]
    about += ["--dtype", a.dtype, "--contexts", str(a.contexts)]
    turns = [
        {way: in_fresh_process("benchmarks.steering", "--way", way, *about) for way in ("naive", "shared")}
        for _ in range(a.turns)
    ]
    rates = [t["naive"]["seconds"] / t["shared"]["seconds"] for t in turns]
    fewer = turns[0]["naive"]["tokens"] / turns[0]["shared"]["tokens"]
    print(f"context {a.context}, scored {a.scored}, shape {a.shape}, {a.device}")
    print(f"teacher tokens: {fewer:.2f} times fewer ({turns[0]['shared']['tokens']:,})")
    print(f"rate: {spread(rates)} times the naive way's")
    for way in ("naive", "shared"):
        peak = statistics.median(t[way]["peak_mib"] for t in turns)
        rate = statistics.median(t[way]["read"] / t[way]["seconds"] for t in turns)
        print(f"{way}: {rate:,.1f} rollout tokens a second, peak {peak:,.0f} MiB")
    finish("steering", {"ratio": statistics.median(rates), "fewer_tokens": fewer, "turns": turns})


if __name__ == "__main__":
    main()
