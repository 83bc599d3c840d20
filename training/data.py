"""Token data for training: examples in a file that is mapped into memory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.storage import Place, local_copy

SUFFIX = ".arrow"
ALONE = -1  # the group number of an example that belongs to no group
GROUPS = b"groups"  # in the file's metadata: the number of groups; an example of no group counts as one
WIDTHS = b"widths"  # in the metadata of a file whose examples have further arrays: their widths by name
GAPS = "gaps"  # the column of gaps, in a file with any: begin and end of each, one after another
ARRAY = "array "  # before an array's name: its column, and in a micro-batch the array [C, N, D]
TREES = "trees"  # in a micro-batch with shared beginnings: the places of each group's parts, see `MicroBatch`
COUNTS = "count "  # before an array's name, in a micro-batch: how many of C each of its N tokens has
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
    """One conversation. Tokens [loss_start, loss_end) of `ids` have a loss, multiplied by `weight`.

    Examples of one `group`, such as a pair or the rollouts of one question, are drawn together and are in one
    micro-batch. They are neighbours in the file.

    Attributes:
        arrays: values for each token with a loss, which the objective reads: float32 [C, T, D] by name. C may
            differ between examples, and an example may have no array.
        gaps: ranges of tokens within [loss_start, loss_end) that have no loss: what others say between the
            turns of a trajectory. An example with gaps has no arrays.
    """

    ids: tuple[int, ...]
    loss_start: int
    loss_end: int
    weight: float = 1.0
    group: int = ALONE
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def length(self) -> int:
        """The number of tokens in the forward pass. Tokens after the last one with a loss are not needed."""
        return self.loss_end

    @property
    def loss_tokens(self) -> int:
        return self.loss_end - self.loss_start - sum(end - start for start, end in self.gaps)


def write_examples(
    place: Place, examples: Sequence[Example], widths: Mapping[str, int] | None = None
) -> None:
    """Write examples as one uncompressed Arrow file, which can be mapped into memory. It appears whole or not
    at all.

    Args:
        widths: the widths of arrays that the objective reads, in case no example has any.

    Raises:
        ValueError: a group's examples are not neighbours, or there are gaps and arrays.
    """
    groups = [e.group for e in examples]
    has_gaps = any(e.gaps for e in examples)
    if has_gaps and (widths or any(e.arrays for e in examples)):
        raise ValueError("examples have gaps and arrays")
    found = {name: array.shape[2] for e in examples for name, array in e.arrays.items()}
    widths = {**(widths or {}), **found}
    schema = _counted_schema(np.array(groups, dtype=np.int64), widths, has_gaps)
    columns: dict[str, Any] = {
        "ids": [list(e.ids) for e in examples],
        "loss_start": [e.loss_start for e in examples],
        "loss_end": [e.loss_end for e in examples],
        "weight": [e.weight for e in examples],
        "group": groups,
    }
    if has_gaps:
        columns[GAPS] = [[place for gap in e.gaps for place in gap] or None for e in examples]
    for name in sorted(widths):
        arrays = (e.arrays.get(name) for e in examples)
        columns[ARRAY + name] = [
            None if a is None else np.ascontiguousarray(a, "<f4").tobytes() for a in arrays
        ]
    place.write_with(partial(_write, pa.table(columns, schema), schema))


def _starts(groups: np.ndarray) -> np.ndarray:
    """The first example of each group. An example of no group is a group of its own."""
    if len(groups) == 0:
        return np.empty(0, dtype=np.int64)
    goes_on = (groups[1:] == groups[:-1]) & (groups[1:] != ALONE)
    return np.flatnonzero(np.concatenate([[True], ~goes_on]))


def join_examples(pieces: Sequence[Place], place: Place, widths: Mapping[str, int] | None = None) -> int:
    """Write the examples of several files into one, in order. The bytes are those of `write_examples` on all
    of them. Returns their number.

    Args:
        widths: the widths of arrays that the objective reads, in case no example has any.

    Raises:
        ValueError: a group's examples are not neighbours, or the files' arrays differ.
    """
    tables = [pa.ipc.open_file(_opened(piece)).read_all() for piece in pieces]
    tables = [t for t in tables if t.num_rows] or tables[:1]
    found = {name: width for t in tables for name, width in _widths(t.schema).items()}
    if any(own and own != found for own in (_widths(t.schema) for t in tables)):
        raise ValueError("the files' examples have different arrays")
    has_gaps = any(GAPS in t.column_names for t in tables)
    groups = np.concatenate([t["group"].to_numpy() for t in tables])
    schema = _counted_schema(groups, {**(widths or {}), **found}, has_gaps)
    table = pa.concat_tables([_with_arrays(t, schema) for t in tables])
    place.write_with(partial(_write, table.combine_chunks(), schema))
    return int(table.num_rows)


def _with_arrays(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with all columns of the schema. Its examples lack the gaps and arrays that it has no column
    for.
    """
    for field_ in schema:
        if field_.name not in table.column_names:
            table = table.append_column(field_, pa.nulls(table.num_rows, field_.type))
    return table.select(schema.names).replace_schema_metadata(schema.metadata)


def _opened(place: Place) -> Any:
    """An open file. It is mapped into memory if it is local."""
    system, path = place.opened()
    return pa.memory_map(path) if place.is_local else system.open_input_file(path)


def _widths(schema: pa.Schema) -> dict[str, int]:
    """Widths of the arrays in a file, by name."""
    return dict(json.loads((schema.metadata or {}).get(WIDTHS, b"{}")))


def _counted_schema(groups: np.ndarray, widths: Mapping[str, int], has_gaps: bool) -> pa.Schema:
    """The schema with the number of groups, and with columns for gaps and arrays if there are any.

    Raises:
        ValueError: a group's examples are not neighbours.
    """
    starts = _starts(groups)
    named = groups[starts][groups[starts] != ALONE]
    if len(named) != len(np.unique(named)):
        raise ValueError("examples of one group are not neighbours")
    told = {GROUPS: str(len(starts)).encode()}
    base = [*SCHEMA, *([pa.field(GAPS, pa.list_(pa.int32()))] if has_gaps else [])]
    if not widths:
        return pa.schema(base).with_metadata(told)
    schema = pa.schema([*base, *(pa.field(ARRAY + name, pa.large_binary()) for name in sorted(widths))])
    return schema.with_metadata(told | {WIDTHS: json.dumps(dict(sorted(widths.items()))).encode()})


def _write(table: pa.Table, schema: pa.Schema, sink: Any) -> None:
    with pa.ipc.new_file(sink, schema) as file:
        file.write_table(table)


class Examples(Sequence[Example]):
    """The examples of a file that `write_examples` wrote. It is mapped into memory: four bytes a token,
    shared by all workers of a machine.

    Attributes:
        lengths: int64, the tokens of each example in the forward pass.
        loss_tokens: int64, tokens of each with a loss.
        longest_turn: int64, the most of them without a gap between: the longest turn of a trajectory.
        weight: float64, of each example.
        group: int64, the group of each example; -1 for none.
        group_lengths: int64, the tokens of each group. An example of no group is a group of its own.
        common: int64, how many tokens each example has in common with the beginnings of all others of its
            group. The last token before a loss is not counted: its state predicts each example's own next
            token. 0 in a group of one.
        widths: the widths of the examples' arrays, by name. Empty if there are none.
    """

    def __init__(self, place: Place) -> None:
        """Open the file. A URI is fetched once per machine."""
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
        self._gaps: dict[int, tuple[tuple[int, int], ...]] = {}
        if GAPS in table.column_names:
            self._gaps = {i: _paired(own) for i, own in enumerate(table[GAPS].to_pylist()) if own}
        self.longest_turn: np.ndarray = self.loss_tokens.copy()
        for i, gaps in self._gaps.items():
            self.loss_tokens[i] -= sum(end - start for start, end in gaps)
            begins, ends = zip(*gaps, strict=True)
            turns = zip([int(self._start[i]), *ends], [*begins, int(self._end[i])], strict=True)
            self.longest_turn[i] = max(end - start for start, end in turns)
        self.widths = _widths(table.schema)
        self._arrays = {name: _chunk(table[ARRAY + name]) for name in self.widths}
        starts = _starts(self.group)
        self._bounds = np.append(starts, len(self.group))
        sums = np.add.reduceat(self.lengths, starts) if len(starts) else self.lengths
        self.group_lengths: np.ndarray = sums

    def __len__(self) -> int:
        return len(self._end)

    def __getitem__(self, i: int) -> Example:  # type: ignore[override]
        ids = self._tokens[self._offsets[i] : self._offsets[i + 1]]
        span = int(self._start[i]), int(self._end[i])
        arrays = {
            name: array for name in self.widths for array in [self._array(name, i)] if array is not None
        }
        weight, group, gaps = float(self.weight[i]), int(self.group[i]), self._gaps.get(i, ())
        return Example(tuple(ids.tolist()), *span, weight, group, arrays, gaps)

    def _array(self, name: str, i: int) -> np.ndarray | None:
        """One array of one example [C, T, D], as it lies in the file."""
        value = self._arrays[name][i]
        if not value.is_valid:
            return None
        numbers = np.frombuffer(value.as_buffer(), "<f4")
        return numbers.reshape(-1, int(self.loss_tokens[i]), self.widths[name])

    @cached_property
    def common(self) -> np.ndarray:
        found = np.zeros(len(self), dtype=np.int64)
        for number in np.flatnonzero(np.diff(self._bounds) > 1):
            members = self.members(int(number))
            size = max(0, min(int(self._start[i]) for i in members) - 1)
            first, *others = (self._tokens[self._offsets[i] : self._offsets[i] + size] for i in members)
            for other in others:
                differs = np.flatnonzero(first[:size] != other[:size])
                size = int(differs[0]) if len(differs) else size
            found[members.start : members.stop] = size
        return found

    @cached_property
    def shared_lengths(self) -> np.ndarray:
        """The tokens of each group if its common beginning is there once, int64."""
        starts, further = self._bounds[:-1], np.diff(self._bounds) - 1
        shared: np.ndarray = self.group_lengths - further * (self.common[starts] if len(starts) else 0)
        return shared

    @property
    def has_groups(self) -> bool:
        """Whether any group has more than one example."""
        return len(self.group_lengths) < len(self)

    def members(self, number: int) -> range:
        """The examples of a group, by its number in the file."""
        return range(int(self._bounds[number]), int(self._bounds[number + 1]))


def _paired(places: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Begins and ends, one after another, as ranges."""
    return tuple(zip(places[::2], places[1::2], strict=True))


def _chunk(column: Any) -> Any:
    """A column as one chunk."""
    return column.chunk(0) if column.num_chunks else pa.array([], pa.large_binary())


def count_groups(place: Place) -> int:
    """The number of groups in a file. An example of no group counts as one.

    Raises:
        FileNotFoundError: nothing there.
    """
    system, path = place.opened()
    with system.open_input_file(path) as file:
        return int(pa.ipc.open_file(file).schema.metadata[GROUPS])


def count_examples(place: Place) -> int:
    """The number of examples in a file.

    Raises:
        FileNotFoundError: nothing there.
        pyarrow.ArrowInvalid: it is damaged.
    """
    with _opened(place) as file:  # mapped, since a batch that is read is read whole
        reader = pa.ipc.open_file(file)
        return sum(reader.get_batch(k).num_rows for k in range(reader.num_record_batches))
