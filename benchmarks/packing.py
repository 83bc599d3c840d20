"""How many passes of a training step are empty, and how unequal the others are, on long-tailed lengths. And
how long a pass takes: over short examples in one wide row and in the rows that training lays them in, and
over pairs whose texts each have their own prompt and whose prompt is there once.

    python -m benchmarks.packing             # seconds
    python -m benchmarks.packing --passes    # also the passes, on four layers of the 135M shape: minutes

Lengths are log-normal with a median of 1,500 tokens and at most 12,000; a global batch of 64 on 8 workers,
micro-batches of 4,096 tokens. `before` is what this project did: every worker packed its own share, and every
step made as many passes as the longest.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measurement import finish, timed
from benchmarks.scoring_cases import SHAPE_135M
from cluster.storage import Place
from training.batches import Layout, Rows, collate, deal, deal_groups, fold, global_batches
from training.data import TREES, Example, Examples, write_examples

LAYERS = 4  # of the 135M shape
SHORT = {"8 of 80 to 170": (8, 80, 170), "24 of 80 to 170": (24, 80, 170), "8 of 300 to 500": (8, 300, 500)}
# pairs, the tokens of their prompts, and those of their texts
PAIRS = {
    "prompts of 90, texts of 60 to 220": (8, 90, 60, 220),
    "prompts of 230, texts of 40 to 80": (8, 230, 40, 80),
}
MEDIAN, SPREAD, MOST, BATCH, WORKERS, BUDGET, STEPS = 1500, 0.9, 12_000, 64, 8, 4096, 200


def shares_before(batch: Sequence[int], lengths: np.ndarray) -> list[list[int]]:
    """Token counts of each worker's micro-batches: examples dealt longest first to the emptiest worker, each
    share packed alone.
    """
    shares: list[list[int]] = [[] for _ in range(WORKERS)]
    totals = [0] * WORKERS
    for i in sorted(batch, key=lambda i: (-lengths[i], i)):
        emptiest = totals.index(min(totals))
        shares[emptiest].append(int(lengths[i]))
        totals[emptiest] += int(lengths[i])
    return [_pack_before(share) for share in shares]


def _pack_before(share: Sequence[int]) -> list[int]:
    """Rows as wide as the longest example, filled best-fit, as many to a micro-batch as the budget holds."""
    rows: list[int] = []
    width = max(share, default=0)
    for length in sorted(share, reverse=True):
        fitting = [r for r, used in enumerate(rows) if used + length <= width]
        if fitting:
            rows[max(fitting, key=lambda r: rows[r])] += length
        else:
            rows.append(length)
    several = max(1, BUDGET // max(1, width))
    return [width * len(rows[k : k + several]) for k in range(0, len(rows), several)]


def describe(steps: list[list[list[int]]]) -> dict[str, Any]:
    """From tokens [steps][workers][passes], 0 for an empty pass: the share of empty passes, and of time that
    workers wait.

    Workers wait for the slowest in every pass (as with ZeRO-3), counted in tokens.
    """
    empty = passes = spent = used = 0
    for workers in steps:
        most = max(len(w) for w in workers)
        padded = [[*w, *[0] * (most - len(w))] for w in workers]
        passes += most * len(workers)
        empty += sum(t == 0 for w in padded for t in w)
        spent += sum(max(w[k] for w in padded) for k in range(most)) * len(workers)
        used += sum(t for w in padded for t in w)
    return {
        "empty_passes": round(empty / passes, 4),
        "waiting": round(1 - used / spent, 4),
        "passes_a_step": passes / len(steps) / WORKERS,
    }


def compare_passes(turns: int) -> dict[str, Any]:
    """Seconds of forward and backward passes over short examples, in one row and folded, in turns."""
    import torch

    model = four_layers()
    found: dict[str, Any] = {}
    for name, (count, low, high) in SHORT.items():
        rng = np.random.default_rng(0)
        lengths = rng.integers(low, high, count)
        ids = [tuple(rng.integers(3, 40_000, length).tolist()) for length in lengths]
        examples = [Example(i, len(i) // 2, len(i)) for i in ids]
        wide: Rows = [list(range(count))]
        folded = fold(wide, lengths, BUDGET, 3.0 * SHAPE_135M["hidden_size"])

        def work(rows: Rows, examples: list[Example] = examples) -> None:
            batch = collate(rows, examples)
            tensors = {key: torch.tensor(value) for key, value in batch.inputs("packed").items()}
            model.model(**tensors, use_cache=False).last_hidden_state.sum().backward()

        found[name] = in_turns(partial(work, wide), partial(work, folded), turns) | {"rows": len(folded)}
    return found


def compare_pairs(turns: int) -> dict[str, Any]:
    """Seconds of forward and backward passes over pairs, packed with both prompts and with the prompt once,
    in turns.
    """
    import torch

    from cluster.models.vocabulary import Head
    from training.objectives.objective import Tensors, hidden_states, trees_of

    model = four_layers()
    head, found = Head(model, SHAPE_135M["vocab_size"]), dict[str, Any]()
    for name, (count, prompt, low, high) in PAIRS.items():
        rng = np.random.default_rng(0)
        rows = list[Example]()
        for pair in range(count):
            asked = rng.integers(3, 40_000, prompt).tolist()
            for size in rng.integers(low, high, 2):
                ids = (*asked, *rng.integers(3, 40_000, size).tolist())
                rows.append(Example(ids, prompt, len(ids), group=pair))
        with tempfile.TemporaryDirectory() as folder:
            write_examples(Place(f"{folder}/e.arrow"), rows)
            examples = Examples(Place(f"{folder}/e.arrow"))

        def laid(layout: Layout, examples: Examples = examples) -> Tensors:
            even = 3.0 * SHAPE_135M["hidden_size"]
            groups = range(len(examples.group_lengths))
            ((rows,),) = deal_groups(groups, examples, 1, 2 * BUDGET, layout, even_width=even)
            batch = collate(rows, examples, examples.common if layout == "shared" else None)
            given = {key: torch.tensor(value) for key, value in batch.inputs(layout).items()}
            return given | ({TREES: trees_of(batch)} if layout == "shared" else {})

        def work(batch: Tensors) -> None:
            hidden_states(head, batch).sum().backward()  # type: ignore[no-untyped-call]

        both, once = laid("packed"), laid("shared")
        tokens = [int(t["input_ids"].numel()) for t in (both, once)]
        found[name] = in_turns(partial(work, both), partial(work, once), turns) | {"tokens": tokens}
    return found


def four_layers() -> Any:
    """Four layers of the 135M shape. The backward pass reaches every layer, as with adapters."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(**SHAPE_135M | {"num_hidden_layers": LAYERS}), dtype=torch.float32
    )
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    return model


def in_turns(before: Callable[[], None], now: Callable[[], None], turns: int) -> dict[str, Any]:
    """How many times as fast `now` is as `before`. The first turn warms up."""
    ratios = [timed(before) / timed(now) for _ in range(turns + 1)][1:]
    return {
        "speedup": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def main() -> None:
    """Draw, deal both ways, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--passes", action="store_true", help="also time passes on the 135M shape")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    lengths = np.minimum(MOST, rng.lognormal(math.log(MEDIAN), SPREAD, STEPS * BATCH)).astype(int)
    batches = list(global_batches(len(lengths), BATCH, 0, 0, STEPS))
    before = [shares_before(batch, lengths) for batch in batches]
    most = max(len(w) for step in before for w in step)
    before = [[[*w, *[0] * (most - len(w))] for w in step] for step in before]
    began = time.monotonic()
    dealt = [deal(batch, lengths, WORKERS, BUDGET) for batch in batches]
    seconds = (time.monotonic() - began) / STEPS
    after = [
        [
            [len(rows) * max(int(sum(lengths[i] for i in row)) for row in rows) if rows else 0 for rows in w]
            for w in step
        ]
        for step in dealt
    ]
    figures: dict[str, Any] = {"before": describe(before), "now": describe(after)}
    figures["ms_a_step_to_plan"] = round(1000 * seconds, 2)
    if options.passes:
        figures["passes"] = compare_passes(turns=3)
        figures["pairs"] = compare_pairs(turns=3)
    finish("packing", figures)


if __name__ == "__main__":
    main()
