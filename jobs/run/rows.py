"""Making rows. This is the only module that claims tables, finds missing rows, runs the pool and writes
views.

A caller passes a request, a table's owner and a handler that makes rows in an actor. One call makes rows of
many tables. Tables with the same handler share its actors.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pandas as pd

from cluster.job import Job
from cluster.metrics import Tally
from cluster.placement import Needs
from cluster.storage import Place
from jobs.run.mismatch import mismatch_of
from jobs.run.quarantine import forget_attempts, run_isolated
from jobs.run.run import Planned, Run
from jobs.run.sliced_views import LaterPart, Part, find_parts, finish_by_slice
from jobs.run.store import write_fallbacks
from jobs.run.tables import SlicedRequest, part_name
from jobs.run.under_way import Note, followed
from jobs.run.usage import usage_of
from jobs.run.views import View

# A folder in a table's directory, where a handler keeps results until their part is written. A restart reads
# them.
JOURNAL = "journal"


class RowHandler(Protocol):
    """Makes rows. It is loaded once in an actor."""

    @property
    def fallbacks(self) -> Mapping[str, str]:
        """Shortcuts that the handler's model does not allow, each with what is done instead."""

    def compute(self, items: Sequence[Any], /) -> pd.DataFrame:
        """Compute one row for each item, in the same order."""

    def give_up(self, item: Any, reason: str, /) -> pd.DataFrame:
        """Make the one row of an item that is set aside."""

    def tally(self, table: pd.DataFrame, /) -> Tally:
        """Count finished rows for the metrics."""


@dataclass(frozen=True)
class Want:
    """The rows that a view has to hold, and how to make those that are missing.

    Attributes:
        kind: the work as users see it, such as generate, verify, score or steer.
        label: for which teacher or student, as shown to users.
        handler: makes the `RowHandler` in its actor.
        shard_size: about how many rows a part has.
        workers: the most actors at once. `needs` has the resources of each.
        columns: the columns of a view without any row.
        count: computes from the rows what the view records of them.
        is_isolated: whether rows that kill their actor are found and set aside.
        estimate: what a plan prints about the items that are left.
        place: what a plan prints about where they would be made.
        settle: called when the view is finished, while its table is still locked.
        counted: the columns that `count` reads, if whole rows are too large for this process.
    """

    kind: str
    label: str
    view: View
    handler: "partial[Any]"
    shard_size: int
    workers: int
    needs: Needs
    columns: Sequence[str]
    count: Callable[[pd.DataFrame], Mapping[str, Any]]
    is_isolated: bool = True
    estimate: Callable[[Sequence[Any]], object] = lambda left: f"{len(left):,} rows"
    place: str = ""
    settle: Callable[[], None] = lambda: None
    counted: Sequence[str] | None = None


def make_rows(run: Run, wants: Sequence[Want], unit: str) -> None:
    """Make the rows that these views lack, and finish the views. A plan notes what is missing instead.

    Args:
        unit: the name of rows on the progress bar.
    """
    for want in wants:
        run.note(want.kind, want.label, want.view)
    if run.mode == "plan":
        first = {want.view.id: want for want in reversed(wants)}
        run.planned += [_planned(want, want is first[want.view.id]) for want in wants]
        return
    with run.claimed(want.view for want in wants):
        unfinished = {w.view.id: w for w in reversed(wants) if not w.view.is_finished}
        _make(run, list(reversed(unfinished.values())), unit)


def _planned(want: Want, is_first: bool) -> Planned:
    """What is left to make of a view. If several wants share a view, only the first counts it."""
    if want.view.is_finished:
        return Planned(want.kind, want.label, None, want.place)
    if isinstance(want.view.request, SlicedRequest):
        return Planned(want.kind, want.label, f"at most {want.view.request.rows:,} rows", want.place)
    items = want.view.asked.items
    left = want.estimate([items[k] for k in want.view.missing()] if is_first else [])
    return Planned(want.kind, want.label, left, want.place, mismatch_of(want.view))


def _make(run: Run, wants: Sequence[Want], unit: str) -> None:
    """Run the missing shards through the pool, and finish the views."""
    todo: list[tuple[Want, Part | LaterPart]] = []
    for want in wants:
        forget_attempts(want.view.table.directory)
        todo += [(want, part) for part in parts_of(run, want)]
    if todo:
        rows = sum(len(p.keys) if isinstance(p, Part) else 1 for _, p in todo)
        is_here = all(isinstance(part, Part) for _, part in todo)
        tables = list({want.view.table.path: want.view.table.directory for want, _ in todo}.values())
        with (
            run.terminal.bar(_named(wants), rows, unit if is_here else "shards") as bar,
            followed(bar, tables, is_here) as all_of_it,
        ):
            for result in run.host.pool.run(jobs_of(todo, run.registration.id)):
                all_of_it.advance(result.value.items if is_here else 1)
    for want in wants:
        if isinstance(want.view.request, SlicedRequest):
            finish_by_slice(run, want.kind, want.label, want.view, want.count, want.columns, want.counted)
        else:
            want.view.finish(partial(_counted, want), want.counted)
        want.settle()
        run.say_fallbacks(f"{want.kind} {want.label}", want.view.table.directory)


def _named(wants: Sequence[Want]) -> str:
    """The name of the work on these views: `generate ada and 2 more`. The wants come last first."""
    name = f"{wants[-1].kind} {wants[-1].label}"
    return f"{name} and {len(wants) - 1} more" if len(wants) > 1 else name


def _counted(want: Want, rows: pd.DataFrame) -> Mapping[str, Any]:
    """What a view records of its rows. A view without rows still has their columns."""
    return want.count(pd.DataFrame(columns=list(want.columns)) if rows.empty else rows)


def parts_of(run: Run, want: Want) -> Sequence[Part | LaterPart]:
    """The parts that have to be made for a view. Writes the view's cut first."""
    view = want.view
    if isinstance(view.request, SlicedRequest):
        return find_parts(run, want.kind, want.label, view, want.shard_size, want.is_isolated)
    missing = view.missing()
    ranges = view.cut(missing, want.shard_size)
    view.write_cut(ranges)  # also if there are none: it tells garbage collection whose rows this view needs
    if not ranges:
        return []
    view.table.introduce()
    lacking, items = set(missing), view.asked.items
    parts = []
    for first, last in ranges:
        keys = [key for key in view.asked.within(first, last) if key in lacking]
        if keys:
            name = part_name(keys, view.wanted)
            parts.append(Part(name, view.table, keys, [items[key] for key in keys], want.is_isolated))
    return parts


def jobs_of(todo: Sequence[tuple[Want, Part | LaterPart]], run_id: str) -> list[Job]:
    """The pool's jobs, one for each distinct handler. Its actors make the rows of all wants with that
    handler.
    """
    groups: list[list[tuple[Want, Part | LaterPart]]] = []
    for want, part in todo:
        group = next((g for g in groups if _is_same(g[0][0].handler, want.handler)), None)
        if group is None:
            groups.append([(want, part)])
        else:
            group.append((want, part))
    jobs = []
    for group in groups:
        first = group[0][0]
        shards = [(f"{want.label} {part.name}", part) for want, part in group]
        name = f"{first.kind} {first.label} {first.view.id[:8]}"
        workers = min(first.workers, len(shards))
        make = partial(PartWriter, first.handler, first.needs, run_id)
        jobs.append(Job(name, make, shards, workers, first.needs, first.kind))
    return jobs


def _is_same(one: "partial[Any]", other: "partial[Any]") -> bool:
    return (one.func, one.args, one.keywords) == (other.func, other.args, other.keywords)


class PartWriter:
    """Runs in an actor. Loads a handler once and writes each shard as a part of its table."""

    def __init__(self, handler: Callable[[], RowHandler], needs: Needs, run_id: str) -> None:
        self.handler, self.needs, self.run_id = handler(), needs, run_id

    def __call__(self, wanted: Part | LaterPart) -> Tally:
        began = time.monotonic()
        part = wanted if isinstance(wanted, Part) else wanted.part()
        if part is None:  # another run made it meanwhile
            return Tally(0)
        directory: Place = part.table.directory
        write_fallbacks(directory, self.handler.fallbacks)
        note = Note(directory, part.name, len(part.items))
        compute = note.counts(self.handler.compute)
        rows = self._isolated(part, compute) if part.is_isolated else compute(part.items)
        note.remove()
        tally = self.handler.tally(rows)
        reserved = usage_of(
            self.needs, time.monotonic() - began, self.run_id, tally.spend_usd, tally.waited_s
        )
        engine = getattr(self.handler, "engine_version", "")  # of a handler that has an engine
        record = reserved.record() | ({"engine": engine} if engine else {})
        part.table.write_part(part.name, part.keys, rows, record)
        return tally

    def _isolated(self, part: Part, compute: Callable[[Sequence[Any]], pd.DataFrame]) -> pd.DataFrame:
        return run_isolated(
            part.table.directory,
            part.name,
            part.items,
            lambda place: part.keys[place].hex(),
            compute,
            self.handler.give_up,
        )
