"""Rows that kill their worker end in quarantine; all others get their result, and a worker that merely went
away changes nothing.
"""

import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from cluster.job import Job
from cluster.metrics import Tally
from cluster.pool import ActorPool
from cluster.session import Cluster
from cluster.storage import Place
from jobs.run.quarantine import SHARD_DEATHS, forget_attempts, run_isolated
from jobs.run.store import read_table, write_table


class Doubler:
    """Doubles numbers; dies of some of them, and once of nothing at all where it is told so."""

    def __init__(self, directory: str, poison: tuple[int, ...], dies_once: bool = False) -> None:
        self.directory, self.poison, self.dies_once = Place(directory), poison, dies_once

    def __call__(self, shard: tuple[str, list[int]]) -> Tally:
        part, rows = shard
        table = run_isolated(self.directory, part, rows, lambda k: str(rows[k]), self._run, self._give_up)
        write_table(self.directory / f"{part}.parquet", table)
        return Tally(len(rows))

    def _run(self, rows: Sequence[int]) -> pd.DataFrame:
        with open(f"{self.directory}/calls.txt", "a") as file:
            file.write(f"{len(rows)}\n")
        mark = Path(f"{self.directory}/died")
        if self.dies_once and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for row in rows:
            if row in self.poison:
                os.kill(os.getpid(), signal.SIGKILL)
        return pd.DataFrame({"row": rows, "value": [2 * r for r in rows], "reason": ""})

    def _give_up(self, row: int, reason: str) -> pd.DataFrame:
        return pd.DataFrame({"row": [row], "value": [-1], "reason": [reason]})


def doubled(cluster: Cluster, folder: Path, poison: tuple[int, ...], dies_once: bool = False) -> pd.DataFrame:
    folder.mkdir()
    make = partial(Doubler, str(folder), poison, dies_once)
    with ActorPool(retries=SHARD_DEATHS) as pool:
        shards = [(f"s{k}", (f"s{k}", list(range(6 * k, 6 * k + 6)))) for k in range(2)]
        assert len(list(pool.run([Job("double", make, shards, 1)]))) == 2
    assert not list(folder.glob(".*"))
    return pd.concat([read_table(folder / f"s{k}.parquet") for k in range(2)], ignore_index=True)


@pytest.mark.long
def test_rows_that_kill_their_worker_are_set_aside_and_the_others_done(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    table = doubled(ray_cluster, tmp_path / "a", poison=(2, 4)).set_index("row")
    assert table.index.tolist() == list(range(12))
    assert table[table["value"] == -1].index.tolist() == [2, 4]
    assert set(table.loc[[2, 4], "reason"]) == {"the worker died 2 times while it computed this row"}
    assert table.drop([2, 4])["value"].tolist() == [2 * r for r in range(12) if r not in (2, 4)]


def test_a_worker_that_went_away_changes_nothing(ray_cluster: Cluster, tmp_path: Path) -> None:
    table = doubled(ray_cluster, tmp_path / "a", poison=(), dies_once=True)
    assert table["value"].tolist() == [2 * r for r in range(12)]
    assert (tmp_path / "a" / "calls.txt").read_text().split() == [
        "6",
        "6",
        "6",
    ]  # whole shards, never row by row


def test_attempts_of_an_earlier_run_do_not_count(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    (place / ".s.attempts.tmp").write_bytes(b'{"attempts": 7, "deaths": {"1": 5}, "at": "2"}')
    sizes: list[int] = []

    def run(rows: Sequence[int]) -> pd.DataFrame:
        sizes.append(len(rows))
        return pd.DataFrame({"row": rows})

    def give_up(row: int, reason: str) -> pd.DataFrame:
        return pd.DataFrame({"row": [-row]})

    def isolated(part: str, rows: list[int]) -> list[int]:
        table = run_isolated(place, part, rows, lambda k: str(rows[k]), run, give_up)
        return list(table["row"].tolist())

    assert isolated("s", [1, 2, 3]) == [-1, 2, 3]  # in the same run they do
    assert sizes == [1, 1]
    (place / ".s.attempts.tmp").write_bytes(b'{"attempts": 7, "deaths": {"1": 5}, "at": "2"}')
    forget_attempts(place)
    assert isolated("s", [3, 1, 2]) == [3, -1, 2]  # what is known to kill stays known
    assert sizes == [1, 1, 2]
    (place / ".t.attempts.tmp").write_bytes(b'{"attempts": 7, "deaths": {"1": 1}, "at": "1"}')
    forget_attempts(place)
    assert isolated("t", [1, 2, 3]) == [1, 2, 3]
    assert sizes == [1, 1, 2, 3]
