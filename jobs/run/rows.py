"""Making rows: the one place that claims, finds what is missing, runs the pool and closes the stages.

Whoever wants rows brings shards of what they are made from and a handler that makes them in an actor. Many
stages are made by one call: those with the same handler share its actors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pandas as pd

from cluster.job import Job
from cluster.metrics import Tally
from cluster.placement import Needs
from cluster.storage import Place
from jobs.run.quarantine import forget_attempts, run_isolated
from jobs.run.run import Planned, Run
from jobs.run.store import Stage, write_fallbacks, write_table

Shards = Sequence[tuple[str, Sequence[Any]]]  # (a part's name, what its rows are made from)


class RowHandler(Protocol):
    """What makes rows, loaded once in an actor."""

    @property
    def fallbacks(self) -> Mapping[str, str]:
        """Shortcuts that its model does not allow, with what is done instead."""

    def identity(self, item: Any, /) -> str:
        """The name of a row, by what it is made from."""

    def compute(self, items: Sequence[Any], /) -> pd.DataFrame:
        """The rows of some items, one for each, in order."""

    def give_up(self, item: Any, reason: str, /) -> pd.DataFrame:
        """The one row of an item that is set aside."""

    def tally(self, table: pd.DataFrame, /) -> Tally:
        """What finished rows amount to."""


@dataclass(frozen=True)
class Want:
    """Rows that a stage is to hold.

    Attributes:
        label: what people call it.
        shards: asked only when the stage is not finished.
        handler: makes the `RowHandler` in its actor.
        workers: the most actors at once; `needs` is what each asks for.
        columns: of the rows, for a stage that has none.
        count: what the manifest says of the finished rows.
        is_isolated: rows that kill their actor are found and set aside.
        estimate: what a plan says of the shards that are left; printed as it is.
        place: what a plan says of where they would be made.
    """

    label: str
    stage: Stage
    shards: Callable[[], Shards]
    handler: "partial[Any]"
    workers: int
    needs: Needs
    columns: Sequence[str]
    count: Callable[[pd.DataFrame], Mapping[str, Any]]
    is_isolated: bool = True
    estimate: Callable[[Shards], object] = lambda left: f"{sum(len(items) for _, items in left):,} rows"
    place: str = ""

    def missing(self, shards: Shards) -> Shards:
        """Those of its shards whose part is not there yet."""
        return [shard for shard in shards if not self.stage.has(shard[0])]


def make_rows(run: Run, wants: Sequence[Want], unit: str) -> None:
    """Make what is missing of these stages, each finished as soon as all of them are made. A plan notes what
    is missing instead.

    Args:
        unit: what rows are called on the progress bar.
    """
    for want in wants:
        run.note(want.label, want.stage)
    if run.mode == "plan":
        run.planned += [_planned(want) for want in wants]
        return
    with run.claimed(want.stage for want in wants):
        unfinished = {w.stage.id: w for w in reversed(wants) if not w.stage.is_finished}
        _make(run, list(reversed(unfinished.values())), unit)


def _planned(want: Want) -> Planned:
    remaining = None if want.stage.is_finished else want.estimate(want.missing(want.shards()))
    return Planned(want.stage, want.label, remaining, want.place)


def _make(run: Run, wants: Sequence[Want], unit: str) -> None:
    """Run the shards that are missing through the pool, and close the stages."""
    for want in wants:
        forget_attempts(want.stage.directory)
    every = [want.shards() for want in wants]
    missing = [want.missing(shards) for want, shards in zip(wants, every, strict=True)]
    todo = [(want, shards) for want, shards in zip(wants, missing, strict=True) if shards]
    if todo:
        jobs = jobs_of(todo)
        rows = sum(len(items) for _, shards in todo for _, items in shards)
        with run.terminal.bar(wants[0].stage.name, rows, unit) as bar:
            for result in run.host.pool.run(jobs):
                bar.advance(result.value.items)
    for want, all_shards in zip(wants, every, strict=True):
        names = [name for name, _ in all_shards]
        tables = [want.stage.read(name) for name in names]
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(want.columns))
        want.stage.finish(names, **want.count(table))
        run.say_fallbacks(want.label, want.stage)


def jobs_of(todo: Sequence[tuple[Want, Shards]]) -> list[Job]:
    """The pool's jobs: one for each distinct handler, whose actors then serve all who want it."""
    groups: list[list[tuple[Want, Shards]]] = []
    for want, shards in todo:
        group = next((g for g in groups if _is_same(g[0][0].handler, want.handler)), None)
        if group is None:
            groups.append([(want, shards)])
        else:
            group.append((want, shards))
    jobs = []
    for group in groups:
        first = group[0][0]
        parts = [
            (f"{want.label} {name}", Part(str(want.stage.directory), name, items, want.is_isolated))
            for want, shards in group
            for name, items in shards
        ]
        name = f"{first.stage.name} {first.label} {first.stage.id[:8]}"
        workers = min(first.workers, len(parts))
        make = partial(PartWriter, first.handler)
        jobs.append(Job(name, make, parts, workers, first.needs, first.stage.name))
    return jobs


def _is_same(one: "partial[Any]", other: "partial[Any]") -> bool:
    return (one.func, one.args, one.keywords) == (other.func, other.args, other.keywords)


@dataclass(frozen=True)
class Part:
    """A part of a stage to be written: where, under which name, and what its rows are made from."""

    directory: str
    name: str
    items: Sequence[Any]
    is_isolated: bool


class PartWriter:
    """In an actor: a handler, loaded once, and the writing of each shard as a part of its stage."""

    def __init__(self, handler: Callable[[], RowHandler]) -> None:
        self.handler = handler()

    def __call__(self, part: Part) -> Tally:
        handler, directory = self.handler, Place(part.directory)
        write_fallbacks(directory, handler.fallbacks)
        if part.is_isolated:
            table = run_isolated(
                directory, part.name, part.items, handler.identity, handler.compute, handler.give_up
            )
        else:
            table = handler.compute(part.items)
        write_table(directory / f"{part.name}.parquet", table)
        return handler.tally(table)
