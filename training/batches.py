"""The order in which examples are seen, and their micro-batches.

Everything here is a pure function of (examples, seed, step): a step's global batch does not depend on how
many workers share it, so a resumed or resized run sees the same data in the same order.

Shapes: B rows, T tokens of the longest row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cluster.errors import BadInput
from training.data import ALONE, Example, Examples

IGNORED = -100
WIDER = 4  # each width that `fold` tries is wider than the one before by this part of it
# packed: several examples in a row, separated by their positions. padded: one right-padded example in a row.
# alone: one example in a pass. shared: all groups in one row, the common beginning of each group once.
Layout = Literal["packed", "padded", "alone", "shared"]
Rows = list[list[int]]  # a micro-batch: rows of example numbers


@dataclass(frozen=True)
class MicroBatch:
    """Rows as nested lists [B, T]. Positions restart at 0 with each example. Labels are IGNORED outside the
    answer.

    `real` is 1 on tokens of examples and 0 on padding. `owners` is the example of each token and `groups` the
    group of that example, -1 for none. `arrays` has the further arrays of each example, in the order of the
    examples' tokens. `lengths` has the number of tokens with a loss of each.

    `trees` is empty unless beginnings are shared. For each group it then has the places in the row where the
    common beginning starts, where the first example goes on alone, and where each example ends.
    """

    input_ids: list[list[int]]
    position_ids: list[list[int]]
    labels: list[list[int]]
    weights: list[list[float]]
    real: list[list[int]]
    owners: list[list[int]]
    groups: list[list[int]]
    arrays: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    trees: list[list[int]] = field(default_factory=list)

    def inputs(self, layout: Layout) -> dict[str, list[list[int]]]:
        """The model's inputs besides the token ids: positions that separate packed examples, or a mask that
        hides padding.
        """
        if layout in ("packed", "shared"):
            return {"input_ids": self.input_ids, "position_ids": self.position_ids}
        several = {"attention_mask": self.real} if len(self.input_ids) > 1 else {}
        return {"input_ids": self.input_ids, **several}


def stacked(batch: MicroBatch, name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One array of all examples joined [C, N, D] over the N tokens with a loss, and how many of the C each
    token has [N]. It is 0 if its example has no such array.
    """
    every = [own.get(name) for own in batch.arrays]
    most = max((len(a) for a in every if a is not None), default=1)
    found = np.zeros((most, sum(batch.lengths), width), dtype=np.float32)
    counts = np.zeros(sum(batch.lengths), dtype=np.int64)
    at = 0
    for array, length in zip(every, batch.lengths, strict=True):
        if array is not None:
            found[: len(array), at : at + length] = array
            counts[at : at + length] = len(array)
        at += length
    return found, counts


def count_steps(examples: int, batch_size: int, epochs: float, steps: int | None) -> int:
    """Optimizer steps of a run: `steps` if given, else enough for `epochs`, at least one.

    >>> count_steps(examples=100, batch_size=32, epochs=2, steps=None)
    6
    """
    per_epoch = max(1, examples // batch_size)
    return steps if steps is not None else max(1, round(per_epoch * epochs))


def global_batches(groups: int, batch_size: int, seed: int, start: int, stop: int) -> Iterator[list[int]]:
    """The numbers of the groups (usually single examples) of the optimizer steps [start, stop).

    Each epoch is a new permutation from (seed, epoch). Groups left over at its end are not used in that
    epoch. A set smaller than the batch is used whole at every step.
    """
    per_epoch = max(1, groups // batch_size)
    drawn, order = -1, np.empty(0, dtype=np.int64)
    for step in range(start, stop):
        epoch, at = divmod(step, per_epoch)
        if epoch != drawn:
            drawn, order = epoch, np.random.default_rng([seed, epoch]).permutation(groups)
        yield [int(i) for i in order[at * batch_size : (at + 1) * batch_size]]


def drawn_in(groups: int, batch_size: int, seed: int, steps: int) -> list[int]:
    """The numbers of the groups that the first steps use, in order. Groups left over at an epoch's end are
    not among them.
    """
    return sorted({i for batch in global_batches(groups, batch_size, seed, 0, steps) for i in batch})


def deal_groups(
    batch: Sequence[int],
    examples: Examples,
    workers: int,
    token_budget: int,
    layout: Layout,
    alone_above: float = np.inf,
    even_width: float = np.inf,
) -> list[list[Rows]]:
    """A global batch of groups as micro-batches of examples for each worker; see `deal`.

    A group is never split. Packed, it is one stretch of a row. Padded, it has its own micro-batch. Shared,
    all groups of a micro-batch are in one row.

    Raises:
        BadInput: the student takes one example a pass, or an example is so long that it must be alone.
    """
    lengths = examples.group_lengths
    if not examples.has_groups and layout != "shared":
        return deal(batch, lengths, workers, token_budget, layout, alone_above, even_width)
    longest = max(int(examples.lengths[i]) for g in batch for i in examples.members(g))
    if layout == "alone" or longest > alone_above:
        raise BadInput(
            "this student takes one example a pass, and a group must stay in one pass",
            f"{layout} layout, {longest} tokens, alone above {alone_above}",
            "a student whose examples can share a pass",
            "choose another student or a system without groups",
        )
    if layout == "shared":
        shares = deal(batch, examples.shared_lengths, workers, token_budget)
    else:
        together: Layout = "packed" if layout == "packed" else "alone"
        shares = deal(batch, lengths, workers, token_budget, together, even_width=even_width)
    return [[examples_of(rows, examples, layout) for rows in share] for share in shares]


def examples_of(rows: Rows, examples: Examples, layout: Layout) -> Rows:
    """Rows of groups as rows of their examples. Shared, there is one row."""
    if layout == "shared":
        rows = [[group for row in rows for group in row]] if rows else []
    if layout in ("packed", "shared"):
        return [[i for group in row for i in examples.members(group)] for row in rows]
    return [[i] for row in rows for group in row for i in examples.members(group)]


def deal(
    batch: Sequence[int],
    lengths: Sequence[int] | np.ndarray,
    workers: int,
    token_budget: int,
    layout: Layout = "packed",
    alone_above: float = np.inf,
    even_width: float = np.inf,
) -> list[list[Rows]]:
    """Deal a global batch to the workers as micro-batches, equally many for each worker.

    The batch is packed whole and then dealt. Micro-batches of similar size run at the same time, so workers
    wait for one another as little as possible. If their number is not divisible by the workers, the largest
    ones with several examples are cut in two. Only if none can be cut are some workers' last micro-batches
    empty.

    Args:
        token_budget: the most tokens of a micro-batch, padding included. A longer example is alone.
        alone_above: examples longer than this are alone, even within the budget.
        even_width: see `fold`, which arranges packed rows.

    Returns:
        For each worker its micro-batches in the order of passes. `[]` is an empty one.
    """
    long = [i for i in batch if lengths[i] > alone_above]
    short = [i for i in batch if lengths[i] <= alone_above]
    packed = pack(short, lengths, token_budget, layout) + [
        [[i]] for i in sorted(long, key=lambda i: (-lengths[i], i))
    ]
    micro = sorted(_divisible(packed, lengths, workers), key=lambda rows: (-_tokens(rows, lengths), rows))
    shares: list[list[Rows]] = [[] for _ in range(workers)]
    totals = [0] * workers
    for start in range(0, len(micro), workers):
        emptiest_first = sorted(range(workers), key=lambda w: (totals[w], w))
        for place, worker in enumerate(emptiest_first):
            rows = micro[start + place] if start + place < len(micro) else []
            shares[worker].append(rows)
            totals[worker] += _tokens(rows, lengths)
    if layout == "packed":
        return [[fold(rows, lengths, token_budget, even_width) for rows in share] for share in shares]
    return shares


def fold(rows: Rows, lengths: Sequence[int] | np.ndarray, token_budget: int, even_width: float) -> Rows:
    """Arrange the examples of a micro-batch in narrower rows where this is less work.

    Every token of a row is compared with all tokens of its row, also with those of other examples, which a
    mask then hides. So a row of many examples is more work than the same examples in narrow rows. Narrow rows
    have more padding. A token costs as much as it does alone, plus that much again for each `even_width`
    tokens of its row. Of some widths from the longest example's upwards the cheapest is taken.

    Args:
        even_width: the width of a row at which attention costs as much as the rest of the model. If it is
            infinite, the rows stay as they are.
    """
    examples = [i for row in rows for i in row]
    if len(examples) < 2 or not np.isfinite(even_width):
        return rows
    longest_first = sorted(examples, key=lambda i: (-lengths[i], i))
    longest, total = int(lengths[longest_first[0]]), sum(int(lengths[i]) for i in examples)

    def cost(found: Rows) -> tuple[float, int]:
        tokens = _tokens(found, lengths)
        return tokens * (1 + tokens / len(found) / even_width), len(found)

    best, width = rows, longest
    while width < total:
        found, _ = _fill(longest_first, lengths, len(examples), width)
        if _tokens(found, lengths) <= token_budget and cost(found) < cost(best):
            best = found
        width += max(1, width // WIDER)
    return best


def _tokens(rows: Rows, lengths: Sequence[int] | np.ndarray) -> int:
    """Tokens of a micro-batch, padding included."""
    return len(rows) * max((int(sum(lengths[i] for i in row)) for row in rows), default=0)


def _divisible(micro: list[Rows], lengths: Sequence[int] | np.ndarray, workers: int) -> list[Rows]:
    """Cut micro-batches in two, the largest first, until their number divides by the workers or none has two
    examples.
    """
    whole = sorted(micro, key=lambda rows: (_tokens(rows, lengths), rows))
    single: list[Rows] = []
    while (len(whole) + len(single)) % workers and whole:
        rows = whole.pop()
        examples = [i for row in rows for i in row]
        if len(examples) < 2:
            single.append(rows)
            continue
        if len(rows) > 1:
            halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        else:
            halves = [[examples[: len(examples) // 2]], [examples[len(examples) // 2 :]]]
        whole = sorted([*whole, *halves], key=lambda rows: (_tokens(rows, lengths), rows))
    return whole + single


def pack(
    examples: Sequence[int], lengths: Sequence[int] | np.ndarray, token_budget: int, layout: Layout = "packed"
) -> list[Rows]:
    """Pack examples into micro-batches of rows, each of at most `token_budget` tokens with its padding. A
    longer example is alone.

    The longest remaining example decides how many rows its micro-batch has. Rows are then as wide as the
    budget allows. They are filled best-fit, longest first.
    """
    left = sorted(examples, key=lambda i: (-lengths[i], i))
    micro: list[Rows] = []
    while left:
        count = 1 if layout == "alone" else max(1, token_budget // max(1, int(lengths[left[0]])))
        if layout != "packed":
            micro.append([[i] for i in left[:count]])
            left = left[count:]
            continue
        rows, left = _fill(left, lengths, count, max(token_budget // count, int(lengths[left[0]])))
        micro.append(rows)
    return micro


def _fill(
    left: list[int], lengths: Sequence[int] | np.ndarray, count: int, width: int
) -> tuple[Rows, list[int]]:
    """Up to `count` rows of at most `width` tokens from the longest examples that fit, and the examples that
    did not.
    """
    rows: Rows = []
    space: list[int] = []
    over: list[int] = []
    for i in left:
        fitting = [r for r in range(len(rows)) if space[r] >= lengths[i]]
        if fitting:
            best = min(fitting, key=lambda r: (space[r], r))
            rows[best].append(i)
            space[best] -= int(lengths[i])
        elif len(rows) < count:
            rows.append([i])
            space.append(width - int(lengths[i]))
        else:
            over.append(i)
    return rows, over


def parts_of(
    row: Sequence[int], examples: Mapping[int, Example], common: np.ndarray | None
) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    """The ranges of tokens of which a row consists, as (example, begin, end), and its trees (see
    `MicroBatch`).

    Args:
        common: of every example the tokens that its group begins with. If None, every example is there from
            its beginning, and there are no trees.
    """
    if common is None:
        return [(i, 0, examples[i].length) for i in row], []
    parts, trees, at = list[tuple[int, int, int]](), list[list[int]](), 0
    for place, i in enumerate(row):
        group, size = examples[i].group, int(common[i])
        if place == 0 or group == ALONE or group != examples[row[place - 1]].group:
            parts.append((i, 0, size))
            trees.append([at, at + size])
            at += size
        parts.append((i, size, examples[i].length))
        at += examples[i].length - size
        trees[-1].append(at)
    return [part for part in parts if part[1] < part[2]], trees


def collate(
    rows: Sequence[Sequence[int]], examples: Sequence[Example], common: np.ndarray | None = None
) -> MicroBatch:
    """Arrange rows as a micro-batch. Padding is a sequence of its own after the last example, without a
    loss.

    It repeats the row's first token. In many models the embedding of a padding token is zero, and in some the
    norm of zero has no gradient.

    Args:
        common: as for `parts_of`. There is one row then.
    """
    drawn = {i: examples[i] for row in rows for i in row}
    parted = [parts_of(row, drawn, common) for row in rows]
    width = max(sum(end - begin for _, begin, end in parts) for parts, _ in parted)
    batch = MicroBatch([], [], [], [], [], [], [])
    for parts, trees in parted:
        batch.trees.extend(trees)
        ids: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        weights: list[float] = []
        owners: list[int] = []
        groups: list[int] = []
        for i, begin, stop in parts:
            e = drawn[i]
            ids += e.ids[begin:stop]
            positions += range(begin, stop)
            own = [IGNORED] * e.loss_start + list(e.ids[e.loss_start : e.loss_end])
            for start, end in e.gaps:
                own[start:end] = [IGNORED] * (end - start)
            labels += own[begin:stop]
            weights += [e.weight] * (stop - begin)
            owners += [i] * (stop - begin)
            groups += [e.group] * (stop - begin)
            if stop < e.length:
                continue
            batch.arrays.append(e.arrays)
            batch.lengths.append(e.loss_end - max(1, e.loss_start))  # a row's first token is not predicted
        padding = width - len(ids)
        batch.real.append([1] * len(ids) + [0] * padding)
        batch.input_ids.append(ids + ids[:1] * padding)
        batch.position_ids.append(positions + list(range(padding)))
        batch.labels.append(labels + [IGNORED] * padding)
        batch.weights.append(weights + [0.0] * padding)
        batch.owners.append(owners + [ALONE] * padding)
        batch.groups.append(groups + [ALONE] * padding)
    return batch
