"""Token data for training: examples in a file that is mapped into memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.storage import Place, local_copy

SUFFIX = ".arrow"
ALONE = -1  # the group of an example that belongs to none
GROUPS = b"groups"  # how many there are, examples of none counted one by one; in the file's metadata
SCHEMA = pa.schema(
    [
        ("ids", pa.large_list(pa.int32())),
        ("loss_start", pa.int32()),
        ("loss_end", pa.int32()),
        ("weight", pa.float64()),
        ("group", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Example:
    """One conversation: loss falls on tokens [loss_start, loss_end) of `ids`, times `weight`.

    Examples of one `group`, such as a pair or the rollouts of one question, are drawn together and are in one
    micro-batch; neighbours in the file.
    """

    ids: tuple[int, ...]
    loss_start: int
    loss_end: int
    weight: float = 1.0
    group: int = ALONE

    @property
    def length(self) -> int:
        """Tokens that enter the forward pass: nothing after the last one with a loss is needed."""
        return self.loss_end

    @property
    def loss_tokens(self) -> int:
        return self.loss_end - self.loss_start


def write_examples(place: Place, examples: Sequence[Example]) -> None:
    """Write examples as one uncompressed Arrow file, which can be mapped into memory; it appears whole or not
    at all.

    Raises:
        ValueError: a group's examples are not neighbours.
    """
    groups = [e.group for e in examples]
    schema = _counted_schema(np.array(groups, dtype=np.int64))
    columns = {
        "ids": [list(e.ids) for e in examples],
        "loss_start": [e.loss_start for e in examples],
        "loss_end": [e.loss_end for e in examples],
        "weight": [e.weight for e in examples],
        "group": groups,
    }
    place.write_with(partial(_write, pa.table(columns, schema), schema))


def _starts(groups: np.ndarray) -> np.ndarray:
    """Where each group begins; an example of none is a group of its own."""
    if len(groups) == 0:
        return np.empty(0, dtype=np.int64)
    goes_on = (groups[1:] == groups[:-1]) & (groups[1:] != ALONE)
    return np.flatnonzero(np.concatenate([[True], ~goes_on]))


def join_examples(pieces: Sequence[Place], place: Place) -> int:
    """Write the examples of several files as one, in their order; the bytes are those of `write_examples` on
    all of them. Returns how many they are.

    Raises:
        ValueError: a group's examples are not neighbours.
    """
    tables = [pa.ipc.open_file(_opened(piece)).read_all() for piece in pieces]
    schema = _counted_schema(np.concatenate([t["group"].to_numpy() for t in tables]))
    table = pa.concat_tables([t.replace_schema_metadata(schema.metadata) for t in tables])
    place.write_with(partial(_write, table.combine_chunks(), schema))
    return int(table.num_rows)


def _opened(place: Place) -> Any:
    """A file, mapped into memory where it is on this machine."""
    system, path = place.opened()
    return pa.memory_map(path) if place.is_local else system.open_input_file(path)


def _counted_schema(groups: np.ndarray) -> pa.Schema:
    """The schema with the count of groups.

    Raises:
        ValueError: a group's examples are not neighbours.
    """
    starts = _starts(groups)
    named = groups[starts][groups[starts] != ALONE]
    if len(named) != len(np.unique(named)):
        raise ValueError("examples of one group are not neighbours")
    return SCHEMA.with_metadata({GROUPS: str(len(starts)).encode()})


def _write(table: pa.Table, schema: pa.Schema, sink: Any) -> None:
    with pa.ipc.new_file(sink, schema) as file:
        file.write_table(table)


class Examples(Sequence[Example]):
    """What `write_examples` wrote, mapped into memory: four bytes a token, shared by all workers of a
    machine.

    Attributes:
        lengths: int64, tokens of each example that enter the forward pass.
        loss_tokens: int64, tokens of each with a loss.
        weight: float64, of each example.
        group: int64, of each example; -1 for none.
        group_lengths: int64, tokens of each group; an example of none is a group of its own.
    """

    def __init__(self, place: Place) -> None:
        """Open the file; a URI is fetched once per machine."""
        path = Path(local_copy(str(place)))
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
        ids = table["ids"].chunk(0) if table.num_rows else pa.array([], pa.large_list(pa.int32()))
        self._tokens: np.ndarray = ids.values.to_numpy()
        self._offsets: np.ndarray = ids.offsets.to_numpy()
        self._start, self._end = (table[n].to_numpy() for n in ("loss_start", "loss_end"))
        self.weight: np.ndarray = table["weight"].to_numpy()
        self.group: np.ndarray = table["group"].to_numpy()
        self.lengths: np.ndarray = self._end.astype(np.int64)
        self.loss_tokens: np.ndarray = (self._end - self._start).astype(np.int64)
        starts = _starts(self.group)
        self._bounds = np.append(starts, len(self.group))
        sums = np.add.reduceat(self.lengths, starts) if len(starts) else self.lengths
        self.group_lengths: np.ndarray = sums

    def __len__(self) -> int:
        return len(self._end)

    def __getitem__(self, i: int) -> Example:  # type: ignore[override]
        ids = self._tokens[self._offsets[i] : self._offsets[i + 1]]
        span = int(self._start[i]), int(self._end[i])
        return Example(tuple(ids.tolist()), *span, float(self.weight[i]), int(self.group[i]))

    @property
    def has_groups(self) -> bool:
        """Whether any group has more than one example."""
        return len(self.group_lengths) < len(self)

    def members(self, number: int) -> range:
        """The examples of a group, by its number in the file."""
        return range(int(self._bounds[number]), int(self._bounds[number + 1]))


def count_groups(place: Place) -> int:
    """How many groups a file holds, an example of none counted as one.

    Raises:
        FileNotFoundError: nothing there.
    """
    system, path = place.opened()
    with system.open_input_file(path) as file:
        return int(pa.ipc.open_file(file).schema.metadata[GROUPS])


def count_examples(place: Place) -> int:
    """How many examples a file holds.

    Raises:
        FileNotFoundError: nothing there.
        pyarrow.ArrowInvalid: it is torn.
    """
    with _opened(place) as file:  # mapped, since a batch that is read is read whole
        reader = pa.ipc.open_file(file)
        return sum(reader.get_batch(k).num_rows for k in range(reader.num_record_batches))
