"""Slices: the rows of a run, divided by ranges of question keys. One worker makes and reads each slice, so
that no process holds all rows.

Keys are digests, so ranges of equal width hold about equally many questions. Work that is done question by
question can be done slice by slice: the same function gets a tenth of a pool or all of it. A small run has
one slice, which is made in the driver's own process. Its parts have no number.
"""

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.job import Job
from cluster.placement import Needs
from cluster.storage import Place
from jobs.run.run import Run, Unmade
from jobs.run.store import Stage, digest

ROWS = 40_000  # about how many rows a slice has: some 40 MB of texts
MOST_WORKERS = 1000  # so in effect one for each slice, if the cluster has room
COUNTS = b"counts"  # the name of the counts in a part's metadata

Counts = Mapping[str, Any]


def slices_for(rows: int, size: int | None = None) -> int:
    """The number of slices for this many rows. It is a power of two, so that a pool that grows keeps its old
    bounds.

    Args:
        size: about how many rows a slice has at most. `ROWS` if not given.

    >>> slices_for(1_000), slices_for(50_000), slices_for(3_000_000)
    (1, 2, 128)
    """
    count = 1
    while rows > (size or ROWS) * count:
        count *= 2
    return count


def slice_of(key: bytes, count: int) -> int:
    """The number of the slice that a key belongs to. It follows from the key's first bytes.

    >>> slice_of(bytes.fromhex("00ff"), 2), slice_of(bytes.fromhex("8000"), 2)
    (0, 1)
    """
    return int.from_bytes(key[:4], "big") * count >> 8 * len(key[:4])


@dataclass(frozen=True)
class Made:
    """One slice: its tables by name, and its counts. Counts are numbers (added up over all slices), texts
    (joined into one digest), or mappings of these.
    """

    tables: Mapping[str, pd.DataFrame]
    counts: Counts = field(default_factory=dict)


class MakeSlice(Protocol):
    """Makes one slice in a worker. Has to be picklable."""

    def __call__(self, number: int, /) -> Made: ...


@dataclass(frozen=True)
class Sliced:
    """A stage whose rows are stored in slices.

    Attributes:
        names: the names of its tables.
        count: the number of slices.
        held: in a plan, which writes nothing, the tables in memory.
        said: in a plan, the counts of all slices, added up.
    """

    stage: Stage
    names: tuple[str, ...]
    count: int
    held: Mapping[str, pd.DataFrame] = field(default_factory=dict, compare=False)
    said: Counts = field(default_factory=dict, compare=False)

    @property
    def id(self) -> str:
        return self.stage.id

    @property
    def is_finished(self) -> bool:
        return self.stage.is_finished

    def part(self, name: str, number: int) -> str:
        """The name of one slice's part."""
        return name if self.count == 1 else f"{name}-{number:05d}"

    def read(self, name: str, number: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read one slice of a table: all columns, or those named."""
        if name in self.held:
            return self.held[name] if columns is None else self.held[name][list(columns)]
        return self.stage.read(self.part(name, number), columns)

    def each(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Read a table slice by slice, in the order of keys."""
        return (self.read(name, number, columns) for number in range(self.count))

    def whole(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read all slices of a table into this process."""
        return joined(self.each(name, columns))

    def counts(self) -> Counts:
        """The counts of all slices, added up."""
        return self.said or dict(self.stage.manifest()["about"])


def joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate frames. Empty frames are left out, because their columns have no types."""
    every = list(frames)
    return pd.concat([frame for frame in every if len(frame)] or every[:1], ignore_index=True)


def make_slices(
    run: Run,
    kind: str,
    label: str,
    sliced: Sliced,
    make: MakeSlice,
    *,
    here: bool = False,
    keeps: Sequence[str] = (),
    before: Callable[[], None] = lambda: None,
    **shown: str,
) -> Sliced:
    """Make the missing slices of a stage, and finish the stage.

    Args:
        before: called before the first slice is made.
        here: whether this process makes all slices, because only it has the data that they are made from.
        keeps: parts that `before` made and that stay when the stage is finished.
        shown: counts for the manifest: each keyword is its name there, and the value the name of the
            count.

    Returns:
        The stage. In a plan, if it does not exist yet, with its one slice in memory.

    Raises:
        Unmade: in a plan, if an unmade stage has more than one slice.
    """
    stage, count = sliced.stage, sliced.count
    run.note(kind, label, stage)
    if run.mode == "plan" and not stage.is_finished:
        if count > 1:
            raise Unmade(label)
        made = make(0)
        return Sliced(stage, sliced.names, 1, made.tables, added([made.counts]))
    with run.claimed([stage]):
        if not stage.is_finished and run.mode == "make":
            parts = {k: [sliced.part(name, k) for name in sliced.names] for k in range(count)}
            left = [k for k, own in parts.items() if not all(map(stage.has, own))]
            before()
            write = WriteSlice(sliced, make)
            tasks = [(f"{label} {k}", Task(write, (k,))) for k in left]
            do_tasks(run, kind, label, tasks, here=here or count == 1)
            said = added([read_counts(stage.part(own[0])) for own in parts.values()])
            names = [name for own in parts.values() for name in own] + [n for n in keeps if stage.has(n)]
            stage.finish(names, about=said, **{name: said[key] for name, key in shown.items()})
    return sliced


@dataclass(frozen=True)
class WriteSlice:
    """Runs in a worker. Makes a slice and writes its parts. The part with the counts is written last."""

    sliced: Sliced
    make: MakeSlice

    def __call__(self, number: int) -> None:
        made = self.make(number)
        for name in reversed(self.sliced.names):
            counts = made.counts if name == self.sliced.names[0] else {}
            place = self.sliced.stage.part(self.sliced.part(name, number))
            write_counted(place, pa.Table.from_pandas(made.tables[name], preserve_index=False), counts)


@dataclass(frozen=True)
class Task:
    """A function call that a worker makes."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> Any:
        return self.function(*self.arguments)


class Doer:
    """The handler of an actor that runs tasks."""

    def __call__(self, task: Task) -> Any:
        with without_collecting():
            return task()


@contextmanager
def without_collecting() -> Iterator[None]:
    """Switch the cyclic garbage collector off while many rows are made. Rows have no cycles, and the
    collector would go through all of them again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def do_tasks(
    run: Run, kind: str, label: str, tasks: Sequence[tuple[str, Task]], here: bool = False
) -> dict[str, Any]:
    """Run tasks in the pool's workers, or in this process if `here`. Returns each task's result by its
    name.
    """
    if here:
        with without_collecting():
            return {name: task() for name, task in tasks}
    found = {}
    if tasks:
        title = label if label.startswith(kind) else f"{kind} {label}"
        with run.terminal.bar(title, len(tasks), "slices") as bar:
            job = Job(f"{kind} {label}", Doer, tasks, min(MOST_WORKERS, len(tasks)), Needs(1.0), kind)
            for result in run.host.pool.run([job]):
                found[result.shard] = result.value
                bar.advance(1)
    return found


def write_counted(place: Place, table: pa.Table, counts: Counts) -> None:
    """Write a part, with its counts in the metadata."""
    told = {**(table.schema.metadata or {}), COUNTS: json.dumps(counts).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(told), sink, compression="zstd")
    place.write_bytes(sink.getvalue().to_pybytes())


def read_counts(place: Place) -> Counts:
    """Read the counts of a part."""
    system, path = place.opened()
    with system.open_input_file(path) as file:
        return dict(json.loads(pq.read_schema(file).metadata[COUNTS]))


def added(counts: Sequence[Counts]) -> dict[str, Any]:
    """Add up the counts of all slices, in their order.

    >>> added([{"rows": 1, "states": {"right": 1}}, {"rows": 2, "states": {"right": 3, "wrong": 1}}])
    {'rows': 3, 'states': {'right': 4, 'wrong': 1}}
    """
    total: dict[str, Any] = {}
    for name in dict.fromkeys(name for own in counts for name in own):
        values = [own[name] for own in counts if name in own]
        if isinstance(values[0], str):
            total[name] = digest(values)
        elif isinstance(values[0], Mapping):
            total[name] = added(values)
        else:
            total[name] = reduce(lambda a, b: a + b, values)
    return total
