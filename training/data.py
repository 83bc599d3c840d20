"""Token data for training: examples, the order they are seen in, and padding-free micro-batches.

Everything here is a pure function of (examples, seed, step): a step's global batch does not depend on how many
workers share it, so a resumed or resized run sees the same data in the same order.

Shapes: B packed rows, T tokens of the longest packed row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Place

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One conversation: loss falls on tokens [loss_start, loss_end) of `ids`, times `weight`."""

    ids: tuple[int, ...]
    loss_start: int
    loss_end: int
    weight: float = 1.0

    @property
    def length(self) -> int:
        """Tokens that enter the forward pass: nothing after the last one with a loss is needed."""
        return self.loss_end

    @property
    def loss_tokens(self) -> int:
        return self.loss_end - self.loss_start


@dataclass(frozen=True)
class MicroBatch:
    """Packed rows as nested lists [B, T]: positions restart at 0 with each example, labels are IGNORED off the answer."""

    input_ids: list[list[int]]
    position_ids: list[list[int]]
    labels: list[list[int]]
    weights: list[list[float]]


def write_examples(place: Place, examples: Sequence[Example]) -> None:
    """Write examples as one Parquet file that appears whole or not at all."""
    table = pa.table(
        {
            "ids": pa.array([list(e.ids) for e in examples], pa.list_(pa.int32())),
            "loss_start": pa.array([e.loss_start for e in examples], pa.int32()),
            "loss_end": pa.array([e.loss_end for e in examples], pa.int32()),
            "weight": pa.array([e.weight for e in examples], pa.float64()),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    place.write_bytes(sink.getvalue().to_pybytes())


def read_examples(place: Place) -> list[Example]:
    """Read what `write_examples` wrote."""
    rows = pq.read_table(pa.BufferReader(place.read_bytes())).to_pylist()
    return [Example(tuple(r["ids"]), r["loss_start"], r["loss_end"], r["weight"]) for r in rows]


def count_steps(examples: int, batch_size: int, epochs: float, steps: int | None) -> int:
    """Optimizer steps of a run: `steps` if given, else enough for `epochs`, at least one.

    >>> count_steps(examples=100, batch_size=32, epochs=2, steps=None)
    6
    """
    per_epoch = max(1, examples // batch_size)
    return steps if steps is not None else max(1, round(per_epoch * epochs))


def global_batch(examples: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Indices of the examples of one optimizer step.

    Each epoch is a fresh permutation from (seed, epoch); what is left over at its end is not used in that epoch, and
    a set smaller than the batch is used whole at every step.
    """
    per_epoch = max(1, examples // batch_size)
    epoch, at = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(examples)
    return [int(i) for i in order[at * batch_size : (at + 1) * batch_size]]


def split_over_workers(batch: Sequence[int], lengths: Sequence[int], workers: int) -> list[list[int]]:
    """Deal a global batch to workers so that their token counts are close: longest first, to the emptiest worker."""
    shares: list[list[int]] = [[] for _ in range(workers)]
    totals = [0] * workers
    for i in sorted(batch, key=lambda i: (-lengths[i], i)):
        emptiest = totals.index(min(totals))
        shares[emptiest].append(i)
        totals[emptiest] += lengths[i]
    return shares


def pack(share: Sequence[int], lengths: Sequence[int], token_budget: int) -> list[list[list[int]]]:
    """Pack examples into micro-batches of rows; each micro-batch has at most `token_budget` tokens, padding included.

    Rows are as wide as the longest example and filled best-fit, longest first. An example longer than the budget is
    alone in its micro-batch.
    """
    rows: list[list[int]] = []
    space: list[int] = []
    order = sorted(share, key=lambda i: (-lengths[i], i))
    width = lengths[order[0]] if order else 0
    for i in order:
        fitting = [r for r in range(len(rows)) if space[r] >= lengths[i]]
        if fitting:
            best = min(fitting, key=lambda r: (space[r], r))
            rows[best].append(i)
            space[best] -= lengths[i]
        else:
            rows.append([i])
            space.append(width - lengths[i])
    per_batch = max(1, token_budget // max(1, width))
    return [rows[k : k + per_batch] for k in range(0, len(rows), per_batch)]


def collate(rows: Sequence[Sequence[int]], examples: Sequence[Example], pad_id: int) -> MicroBatch:
    """Lay packed rows out side by side. Padding is a sequence of its own after the last example, with no loss."""
    width = max(sum(examples[i].length for i in row) for row in rows)
    batch = MicroBatch([], [], [], [])
    for row in rows:
        ids: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        weights: list[float] = []
        for i in row:
            e = examples[i]
            ids += e.ids[: e.length]
            positions += range(e.length)
            labels += [IGNORED] * e.loss_start + list(e.ids[e.loss_start : e.loss_end])
            weights += [e.weight] * e.length
        padding = width - len(ids)
        batch.input_ids.append(ids + [pad_id] * padding)
        batch.position_ids.append(positions + list(range(padding)))
        batch.labels.append(labels + [IGNORED] * padding)
        batch.weights.append(weights + [0.0] * padding)
    return batch
