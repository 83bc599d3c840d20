"""How many passes of a training step are empty, and how unequal the others are, on long-tailed lengths.

    python -m benchmarks.packing    # seconds

Lengths are log-normal with a median of 1,500 tokens and at most 12,000; a global batch of 64 on 8 workers,
micro-batches of 4,096 tokens. `before` is what this project did: every worker packed its own share, and every
step made as many passes as the longest.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.measurement import finish
from training.batches import deal, global_batches

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


def main() -> None:
    """Draw, deal both ways, and print one JSON line."""
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
    finish(
        "packing",
        {"before": describe(before), "now": describe(after), "ms_a_step_to_plan": round(1000 * seconds, 2)},
    )


if __name__ == "__main__":
    main()
