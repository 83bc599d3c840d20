"""Views of more rows than one process should hold. Workers find, make and count these rows slice by slice.
The driver sees only ranges of keys, names of parts and sums.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jobs.run.run import Run
from jobs.run.slices import Task, added, do_tasks, without_collecting
from jobs.run.tables import Request, SlicedRequest, Table, part_name
from jobs.run.views import Ranges, View, cut_between


@dataclass(frozen=True)
class Part:
    """A part of a table that is to be written: its name, its keys, and the items that its rows are made
    from.
    """

    name: str
    table: Table
    keys: Sequence[bytes]
    items: Sequence[Any]
    is_isolated: bool


@dataclass(frozen=True)
class LaterPart:
    """A part whose missing rows are found by the worker that makes it.

    Attributes:
        slice: the slice in which its range of keys lies.
    """

    view: View
    slice: int
    first: bytes
    last: bytes
    is_isolated: bool

    @property
    def name(self) -> str:
        return f"{self.first.hex()}-{self.last.hex()}"

    def part(self) -> Part | None:
        """The rows that are still missing, with the items that they are made from. None if nothing is
        missing.
        """
        with without_collecting():
            whole = items_of(self.view, self.slice)
        items = {key: whole.items[key] for key in whole.within(self.first, self.last)}
        missing = View(self.view.table, Request(items), self.view.wanted).missing()
        if not missing:
            return None
        name = part_name(missing, self.view.wanted)
        return Part(name, self.view.table, missing, [items[key] for key in missing], self.is_isolated)


_KEPT: dict[tuple[str, int], Request] = {}  # the slice that this process read last


def items_of(view: View, number: int) -> Request:
    """A slice with the items that its rows are made from. Only the first shard of a slice reads it; others
    use the kept one.
    """
    key = (view.id, number)
    kept = _KEPT.get(key)
    if kept is None:
        kept = sliced(view).slice(number)
        _KEPT.clear()
        _KEPT[key] = kept
    return kept


def sliced(view: View) -> SlicedRequest:
    """The request of a view that is processed by slice.

    Raises:
        TypeError: the view is not sliced.
    """
    if not isinstance(view.request, SlicedRequest):
        raise TypeError(f"the view {view.path} is to be read at once")
    return view.request


def find_slice(view: View, number: int, size: int) -> list[tuple[bytes, bytes, int]]:
    """Runs in a worker. The ranges of a slice that have to be made, each with the number of its missing rows.
    They are the ranges that an earlier attempt wrote down, and new ones of about `size` rows.
    """
    missing = view.slice(number).missing()
    known = view.known_cut()
    lacking = Request(dict.fromkeys(missing))
    ranges = sorted([*known, *cut_between(known, missing, size)])
    counted = [(first, last, len(lacking.within(first, last))) for first, last in ranges]
    return [found for found in counted if found[2]]


def find_parts(run: Run, kind: str, label: str, view: View, size: int, is_isolated: bool) -> list[LaterPart]:
    """The parts of a view that have to be made. Writes the view's cut first. Each part counts its missing
    rows again when it is made.
    """
    count = sliced(view).count
    tasks = [(f"{label} {k}", Task(find_slice, (view, k, size))) for k in range(count)]
    found = do_tasks(run, kind, f"{kind} {label}: find missing rows", tasks)
    ranges: dict[tuple[bytes, bytes], int] = {}
    for k in range(count):
        ranges |= {(first, last): k for first, last, _ in found[f"{label} {k}"]}
    settled: Ranges = sorted({*view.known_cut(), *ranges})
    view.write_cut(settled)
    if ranges:
        view.table.introduce()
    return [LaterPart(view, k, first, last, is_isolated) for (first, last), k in sorted(ranges.items())]


def count_slice(
    view: View,
    number: int,
    count: Callable[[pd.DataFrame], Mapping[str, Any]],
    columns: Sequence[str],
    counted: Sequence[str] | None,
) -> tuple[list[str], dict[str, Any], int]:
    """Runs in a worker. Returns the parts that serve a slice, what `count` computes from its rows, and the
    number of rows.

    Args:
        columns: the columns of a slice without rows.
        counted: the columns that `count` reads, if rows are too large to be read whole.
    """
    names, rows = view.slice(number).found(counted)
    counts = dict(count(pd.DataFrame(columns=list(columns)) if rows.empty else rows))
    return names, counts, len(rows)


def finish_by_slice(
    run: Run,
    kind: str,
    label: str,
    view: View,
    count: Callable[[pd.DataFrame], Mapping[str, Any]],
    columns: Sequence[str],
    counted: Sequence[str] | None = None,
) -> None:
    """Count the rows of a view slice by slice, and finish the view with the counts."""
    tasks = [
        (f"{label} {k}", Task(count_slice, (view, k, count, columns, counted)))
        for k in range(sliced(view).count)
    ]
    found = do_tasks(run, kind, f"{kind} {label}: count rows", tasks)
    every = [found[name] for name, _ in tasks]
    names = sorted({name for own, _, _ in every for name in own})
    view.write_finished(names, added([counts for _, counts, _ in every]), sum(rows for _, _, rows in every))
