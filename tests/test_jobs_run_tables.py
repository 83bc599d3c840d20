"""Rows that belong to whoever made them: found again by content, made once, the same bytes however work was
cut short.
"""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import BadInput
from cluster.metrics import Tally
from cluster.models.messages import plain
from cluster.placement import Needs
from cluster.storage import Place
from jobs.run.keys import HALF, question_key, row_key
from jobs.run.progress import Terminal
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.store import Store
from jobs.run.tables import GOOD, KEY, POOR, USELESS, Owner, Request, Table, Wanted, part_name
from jobs.run.views import View, cut_ranges
from tests.in_process import InProcess

SQUARES = Owner("squares", 1, {"of": "numbers"})
COLUMNS = ["value", "limit"]


class Squares:
    """A handler that squares numbers up to a limit, and writes down what it is given."""

    def __init__(self, calls: str, limit: int) -> None:
        self.calls, self.limit = Path(calls), limit
        self.fallbacks: dict[str, str] = {}

    def compute(self, items: Sequence[int]) -> pd.DataFrame:
        with open(self.calls, "a") as file:
            file.write("".join(f"{n}\n" for n in items))
        return pd.DataFrame([(min(n * n, self.limit), self.limit) for n in items], columns=COLUMNS)

    def give_up(self, item: int, reason: str) -> pd.DataFrame:
        return pd.DataFrame([(-1, self.limit)], columns=COLUMNS)

    def tally(self, table: pd.DataFrame) -> Tally:
        return Tally(len(table))


def key_of(number: int) -> bytes:
    """Numbers with the same tens are rows of one question."""
    return row_key(question_key(plain(f"q{number // 10}")), number)


def request(numbers: Sequence[int]) -> Request:
    return Request({key_of(n): n for n in numbers})


def worth(limit: int, rows: pd.DataFrame) -> np.ndarray:
    cut = rows["value"] >= rows["limit"]
    return np.where(~cut & (rows["value"] < limit) | (rows["limit"] == limit), GOOD, USELESS)


def under(limit: int) -> Wanted:
    return Wanted({"limit": limit}, ("value", "limit"), partial(worth, limit))


def squared(
    folder: Path,
    numbers: Sequence[int],
    size: int = 4,
    limit: int = 10**9,
    calls: str = "calls",
    **changes: Any,
) -> View:
    """The squares of some numbers, from the table in a folder; what was computed is in a file beside it."""
    with Run(Store(folder), Place(str(folder / "run")), Terminal(), InProcess(), **changes) as run:
        view = run.view(SQUARES, request(numbers), under(limit))
        handler = partial(Squares, str(folder / calls), limit)
        count = lambda table: {"rows": len(table)}  # noqa: E731
        make_rows(run, [Want("square", "them", view, handler, size, 2, Needs(), COLUMNS, count)], "numbers")
        return view


def computed(folder: Path, calls: str = "calls") -> list[int]:
    file = folder / calls
    return sorted(map(int, file.read_text().split())) if file.exists() else []


def values(view: View) -> dict[bytes, int]:
    rows = view.read()
    return dict(zip(rows[KEY], rows["value"], strict=True))


def parts(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("tables/squares/*/*.parquet")}


many = st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True)


@settings(max_examples=12)
@given(st.lists(st.tuples(many, st.integers(1, 12)), min_size=1, max_size=4))
def test_whatever_is_asked_in_whatever_order_every_row_is_made_once(
    history: list[tuple[list[int], int]],
) -> None:
    """Requests that overlap, in other orders and with other shard sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder, asked = Path(name), set[int]()
        for numbers, size in history:
            view = squared(folder, numbers, size)
            assert values(view) == {key_of(n): n * n for n in numbers}
            asked |= set(numbers)
            assert computed(folder) == sorted(asked)
            assert view.manifest()["counts"] == {"rows": len(numbers)}
            again = squared(folder, list(reversed(numbers)), size + 1)
            assert again.id == view.id
            assert computed(folder) == sorted(asked)
        for file in folder.glob("tables/squares/*/*.parquet"):
            keys = list(pd.read_parquet(file)[KEY])
            assert keys == sorted(keys)
            assert file.stem == part_name(keys, under(10**9))


@given(many, st.integers(1, 10))
def test_a_range_never_parts_a_question(numbers: list[int], size: int) -> None:
    keys = request(numbers).keys
    ranges = cut_ranges(keys, size)
    cut = [[k for k in keys if first <= k <= last] for first, last in ranges]
    assert [k for part in cut for k in part] == keys
    questions = [{k[:HALF] for k in part} for part in cut]
    assert sum(map(len, questions)) == len(set().union(*questions)) if questions else True
    assert all(len(part) >= size for part in cut[:-1])


def test_a_larger_limit_makes_only_what_was_cut_off_and_a_smaller_one_only_what_is_too_long(
    tmp_path: Path,
) -> None:
    numbers = list(range(20))
    squared(tmp_path, numbers, limit=100, calls="first")
    assert computed(tmp_path, "first") == numbers
    wider = squared(tmp_path, numbers, limit=200, calls="second")
    assert computed(tmp_path, "second") == list(range(10, 20))
    assert values(wider)[key_of(12)] == 144
    narrow = squared(tmp_path, numbers, limit=50, calls="third")
    assert computed(tmp_path, "third") == list(range(8, 20))
    assert values(narrow)[key_of(9)] == 50
    assert values(narrow)[key_of(5)] == 25
    # a view that was finished stays as it is
    assert values(wider)[key_of(12)] == 144
    squared(tmp_path, numbers, limit=100, calls="fourth")
    assert computed(tmp_path, "fourth") == []


def test_a_run_that_was_killed_at_any_moment_makes_the_same_parts_in_the_end(tmp_path: Path) -> None:
    """The state a kill leaves: a cut, some of its parts, maybe half a temporary file; with another shard size
    in the second attempt.
    """
    numbers = list(range(0, 200, 3))
    whole = squared(tmp_path / "calm", numbers, 7)
    expected = parts(tmp_path / "calm")
    assert len(expected) > 5
    rng = random.Random(5)
    for lost in range(1, len(expected)):
        folder = tmp_path / f"killed-{lost}"
        shutil.copytree(tmp_path / "calm", folder)
        (folder / "calls").unlink()
        for file in rng.sample(sorted(folder.glob("tables/squares/*/*.parquet")), lost):
            file.unlink()
        (folder / whole.directory.path.relative_to(tmp_path / "calm") / "view.json").unlink()
        again = squared(folder, numbers, 3)
        assert parts(folder) == expected
        assert values(again) == values(whole)
        assert 0 < len(computed(folder)) < len(numbers)


def test_a_torn_part_is_made_again_and_no_other(tmp_path: Path) -> None:
    numbers = list(range(60))
    view = squared(tmp_path, numbers, 6)
    expected = parts(tmp_path)
    torn = sorted(view.table.directory.path.glob("*.parquet"))[2]
    torn.write_bytes(torn.read_bytes()[:40])
    with pytest.raises(BadInput, match="is damaged or gone"):
        view.table.read(torn.stem)
    (view.directory.path / "view.json").unlink()
    (tmp_path / "calls").unlink()
    squared(tmp_path, numbers, 6)
    assert parts(tmp_path) == expected
    assert 0 < len(computed(tmp_path)) < 20


def test_a_part_that_went_missing_after_a_later_request_was_cut_is_made_again(tmp_path: Path) -> None:
    """The later request's cut holds only what was missing then."""
    squared(tmp_path, list(range(12)), 4)
    more = squared(tmp_path, list(range(17)), 4)
    lost = sorted(tmp_path.glob("tables/squares/*/*.parquet"))[0]
    lost.unlink()
    more.reopen()
    again = squared(tmp_path, list(range(17)), 4)
    assert values(again) == {key_of(n): n * n for n in range(17)}


def test_a_view_is_not_finished_while_a_row_is_in_no_part(tmp_path: Path) -> None:
    view = squared(tmp_path, [1, 2, 3])
    wider = View(view.table, request([1, 2, 3, 4]), view.wanted)
    with pytest.raises(RuntimeError, match="1 rows of the view"):
        wider.finish(lambda rows: {})
    assert not wider.is_finished


def test_of_two_rows_with_one_key_the_part_with_the_first_name_counts_and_views_do_not_change(
    tmp_path: Path,
) -> None:
    """As two runs on an object store leave them, which has no locks."""
    view = squared(tmp_path, [1, 2, 3], 10)
    table, keys = view.table, sorted([key_of(2), key_of(400)])
    other = {key_of(2): 99, key_of(400): 160000}
    table.write_part(
        part_name(keys), keys, pd.DataFrame([(other[k], 10**9) for k in keys], columns=COLUMNS), {}
    )
    assert values(view)[key_of(2)] == 4  # the view names its parts
    both = values(squared(tmp_path, [1, 2, 3, 400], 10))
    names = table.parts([bytes(16), b"\xff" * 16])
    first = min(name for name in names if key_of(2) in set(table.read(name)[KEY]))
    told = table.read(first)
    assert both[key_of(2)] == dict(zip(told[KEY], told["value"], strict=True))[key_of(2)]
    assert both[key_of(400)] == 160000


def test_keys_that_end_in_zero_bytes_are_found(tmp_path: Path) -> None:
    """NumPy drops zero bytes at the end of a text: sample 0 of every question was not found again."""
    table = Table(Place(str(tmp_path)), SQUARES)
    keys = sorted(bytes([k]) * HALF + bytes(HALF) for k in range(1, 6))
    table.write_part(part_name(keys), keys, pd.DataFrame([(k, 9) for k in range(5)], columns=COLUMNS), {})
    view = View(table, Request(dict.fromkeys(keys, 0)))
    assert view.missing() == []
    assert view.read()[KEY].tolist() == keys


def test_a_poor_row_serves_unless_better_is_wanted(tmp_path: Path) -> None:
    table = Table(Place(str(tmp_path)), SQUARES)
    keys = request([1, 2, 3]).keys
    table.write_part(part_name(keys), keys, pd.DataFrame([(k, 9) for k in (0, 5, 0)], columns=COLUMNS), {})

    def poor(rows: pd.DataFrame) -> np.ndarray:
        return np.where(rows["value"] == 0, POOR, GOOD)

    wanted = Wanted({}, ("value",), poor)
    assert View(table, request([1, 2, 3]), wanted).missing() == []
    better = Wanted({"retry": 1}, ("value",), poor, GOOD)
    assert View(table, request([1, 2, 3]), better).missing() == [keys[0], keys[2]]


def test_a_table_tells_in_words_whose_rows_it_holds(tmp_path: Path) -> None:
    view = squared(tmp_path, [1])
    words = json.loads((view.table.directory.path / "owner.json").read_text())
    assert words == {"kind": "squares", "version": 1, "identity": {"of": "numbers"}, "about": {}}
    (registered,) = (place.stem for place in (tmp_path / "runs").glob("*.json"))
    assert sorted(os.listdir(tmp_path / "locks")) == [f"runs-{registered}", f"squares-{SQUARES.id}"]
