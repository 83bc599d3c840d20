"""Rows that are found, made and read slice by slice: the same rows as all at once, each made once, and the
same parts whoever was stopped on the way.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.placement import Needs
from cluster.storage import Place
from jobs.run.keys import digest_keys
from jobs.run.progress import Terminal
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run, Unmade
from jobs.run.slices import Made, Sliced, added, make_slices, slice_of, slices_for
from jobs.run.store import Store
from jobs.run.tables import KEY, SlicedRequest, request_by_slice
from jobs.run.views import View
from tests.in_process import InProcess
from tests.test_jobs_run_tables import COLUMNS, SQUARES, Squares, computed, key_of, squared, under, values
from training.data import Example, join_examples, write_examples


@dataclass(frozen=True)
class Numbers:
    """Numbers by slice, as a pool's answers lie in files."""

    numbers: tuple[int, ...]
    count: int

    def items(self, number: int) -> Mapping[bytes, int]:
        return {k: n for n in self.numbers if slice_of(k := key_of(n), self.count) == number}

    def keys(self, number: int) -> Sequence[bytes]:
        return sorted(self.items(number))


def count_rows(table: pd.DataFrame) -> dict[str, int]:
    return {"rows": len(table)}


def squared_by_slice(
    folder: Path, numbers: Sequence[int], count: int, size: int = 4, limit: int = 10**9, calls: str = "calls"
) -> View:
    """As `squared`, read by slice."""
    lying = Numbers(tuple(numbers), count)
    identity = digest_keys(sorted(map(key_of, numbers)))
    wanted = SlicedRequest(identity, len(numbers), count, lying.keys, lying.items)
    with Run(Store(folder), Place(str(folder / "run")), Terminal(), InProcess()) as run:
        view = run.view(SQUARES, wanted, under(limit))
        handler = partial(Squares, str(folder / calls), limit)
        make_rows(run, [Want("square", "them", view, handler, size, 2, Needs(), COLUMNS, count_rows)], "")
        return view


def values_by_slice(view: View, count: int) -> dict[bytes, int]:
    rows = pd.concat([view.read_slice(number) for number in range(count)])
    return dict(zip(rows[KEY], rows["value"], strict=True))


many = st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True)
counts = st.sampled_from([1, 2, 4, 16])


@settings(max_examples=25)
@given(many, many, counts, st.integers(1, 9))
def test_slices_give_the_rows_that_one_request_gives_and_make_each_once(
    first: list[int], more: list[int], count: int, size: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        squared(folder, first, size)
        numbers = sorted({*first, *more})
        view = squared_by_slice(folder, numbers, count, size)
        assert values_by_slice(view, count) == {key_of(n): n * n for n in numbers}
        assert view.manifest()["counts"] == {"rows": len(numbers)}
        assert computed(folder) == numbers  # nothing that was there is made again
        # and what slices made serves a request that is held
        assert values(squared(folder, numbers)) == values_by_slice(view, count)
        assert computed(folder) == numbers


def test_rows_that_do_not_serve_are_made_again_and_the_others_are_not(tmp_path: Path) -> None:
    numbers = list(range(60))
    squared_by_slice(tmp_path, numbers, 4, limit=100)
    view = squared_by_slice(tmp_path, numbers, 4, limit=2000, calls="again")
    assert values_by_slice(view, 4) == {key_of(n): min(n * n, 2000) for n in numbers}
    assert computed(tmp_path, "again") == [n for n in numbers if n * n >= 100]


def test_a_run_that_was_stopped_goes_on_in_the_ranges_it_had_cut(tmp_path: Path) -> None:
    numbers = list(range(200))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    squared_by_slice(whole, numbers, 4)
    view = squared_by_slice(stopped, numbers, 4)
    parts = sorted(view.table.directory.path.glob("*.parquet"))
    (view.directory / "view.json").unlink()  # as a driver that was killed leaves it
    for part in parts[::3]:
        part.unlink()
    squared_by_slice(stopped, numbers, 4, size=50)  # another size changes nothing: the ranges are settled
    made = [{p.name: p.read_bytes() for p in f.glob("tables/squares/*/*.parquet")} for f in (whole, stopped)]
    assert made[0] == made[1]


def test_a_slices_part_that_was_lost_is_made_again_alone(tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    def make(number: int) -> Made:
        calls.write_text((calls.read_text() if calls.exists() else "") + f"{number}\n")
        return Made({"rows": pd.DataFrame({"n": [number] * 3})}, {"rows": 3, "content": str(number)})

    def made() -> Sliced:
        with Run(Store(tmp_path), Place(str(tmp_path / "run")), Terminal(), InProcess()) as run:
            stage = run.store.stage("numbers", 1, {}, {})
            return make_slices(run, "numbers", "them", Sliced(stage, ("rows",), 4), make, rows="rows")

    sliced = made()
    said = sliced.counts()
    assert said["rows"] == 12
    assert sliced.whole("rows")["n"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    sliced.stage.reopen()
    sliced.stage.part("rows-00002").unlink()
    assert made().counts() == said
    assert sorted(calls.read_text().split()) == ["0", "1", "2", "2", "3"]
    sliced.stage.reopen()
    with Run(Store(tmp_path), Place(str(tmp_path / "run")), Terminal(), InProcess(), "plan") as run:
        with pytest.raises(Unmade):
            make_slices(run, "numbers", "them", sliced, make)
        one = make_slices(run, "one", "it", Sliced(run.store.stage("one", 1, {}, {}), ("rows",), 1), make)
        assert one.read("rows", 0)["n"].tolist() == [0] * 3  # a plan holds it, and writes nothing
        assert not one.stage.directory.exists()


@given(st.binary(min_size=8, max_size=8), st.sampled_from([1, 2, 8, 1024]))
def test_slices_are_ranges_of_keys_and_of_twice_as_many_each_is_two(key: bytes, count: int) -> None:
    own = slice_of(key, count)
    assert 0 <= own < count
    assert slice_of(key, 2 * count) // 2 == own
    assert int.from_bytes(key, "big") * count // 2**64 == own


def test_a_run_is_cut_by_its_size_and_sums_are_those_of_all_slices() -> None:
    assert [slices_for(n) for n in (0, 40_000, 40_001, 10**7)] == [1, 1, 2, 256]
    assert added([{"a": 1}, {"a": 2, "b": {"x": 1.5}}, {"b": {"x": 1, "y": 2}}]) == {
        "a": 3,
        "b": {"x": 2.5, "y": 2},
    }
    texts: list[Mapping[str, Any]] = [{"id": "x"}, {"id": "y"}]
    assert added(texts) != added(texts[::-1])


def test_a_request_of_one_slice_is_held(tmp_path: Path) -> None:
    lying = Numbers((1, 2, 3), 1)
    one = request_by_slice("any", 3, 1, lying.keys, lying.items)
    assert values(squared(tmp_path, [1, 2, 3])) == {key_of(n): n * n for n in (1, 2, 3)}
    assert not isinstance(one, SlicedRequest)
    assert one.keys == sorted(map(key_of, (1, 2, 3)))


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=6))
def test_examples_of_several_files_are_the_bytes_of_all_in_one(lengths: list[list[int]]) -> None:
    pieces = [
        [
            Example(tuple(range(n + 1)), 1, n + 1, weight=1 / n, group=-1 if n % 2 else 100 * k + n)
            for n in own
        ]
        for k, own in enumerate(map(sorted, lengths))
    ]
    with tempfile.TemporaryDirectory() as name:
        places = [Place(f"{name}/{k}.arrow") for k in range(len(pieces))]
        for place, own in zip(places, pieces, strict=True):
            write_examples(place, own)
        joined, whole = Place(f"{name}/joined.arrow"), Place(f"{name}/whole.arrow")
        assert join_examples(places, joined) == sum(map(len, pieces))
        write_examples(whole, [example for own in pieces for example in own])
        assert joined.read_bytes() == whole.read_bytes()


def test_a_group_in_two_files_is_refused(tmp_path: Path) -> None:
    places = [Place(str(tmp_path / f"{k}.arrow")) for k in range(3)]
    for place, group in zip(places, (5, 6, 5), strict=True):
        write_examples(place, [Example((1, 2), 1, 2, group=group)])
    with pytest.raises(ValueError, match="not neighbours"):
        join_examples(places, Place(str(tmp_path / "all.arrow")))
