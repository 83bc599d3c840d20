"""A pool of 300,000 answers survives what a small one does: a killed worker, a full disk, two runs on one
store. Minutes each: `pytest -m slow tests/test_pipeline_size.py`.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests.chaos.arena import Skipped
from tests.chaos.faults import tmpfs
from tests.runs import ROOT

pytestmark = pytest.mark.slow
ROWS = 300_000
PASS = """
import json, sys
from pathlib import Path
from benchmarks.size import run_world
if __name__ == "__main__":
    tree = json.loads(Path(sys.argv[1]).read_text())
    print("CAME TO " + json.dumps(run_world(tree, Path(sys.argv[2]))["came_to"]), flush=True)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from benchmarks.orchestration import make_student
    from benchmarks.size import write_world

    folder = tmp_path_factory.mktemp("size")
    (folder / "pass.py").write_text(PASS)
    return write_world(folder, make_student(folder / "student"), ROWS)


def start(world: dict[str, Any], store: Path, name: str) -> "subprocess.Popen[str]":
    """A process that works through the world into a store."""
    folder = Path(world["store"]).parent
    (folder / f"{name}.json").write_text(json.dumps(world | {"store": str(store)}))
    command = [sys.executable, str(folder / "pass.py"), str(folder / f"{name}.json"), str(folder / name)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def came_to(process: "subprocess.Popen[str]") -> Any:
    """What a pass came to; its whole output where it failed."""
    out, _ = process.communicate()
    told = [line.removeprefix("CAME TO ") for line in out.splitlines() if line.startswith("CAME TO ")]
    return json.loads(told[0]) if told else out


@pytest.fixture(scope="module")
def undisturbed(world: dict[str, Any]) -> Any:
    found = came_to(start(world, Path(world["store"]), "undisturbed"))
    assert not isinstance(found, str), found
    return found


def wait_for(process: "subprocess.Popen[str]", store: Path, pattern: str, count: int) -> None:
    """Wait until so many files of a pattern are in the store."""
    while len(list(store.glob(pattern))) < count:
        assert process.poll() is None, came_to(process)
        time.sleep(0.05)


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return [p for p in psutil.Process(process.pid).children(recursive=True) if "ray::Host" in p.name()]


def verdicts_in(store: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in store.glob("tables/verdicts/*/*.parquet"))


def test_killed_workers_change_nothing(world: dict[str, Any], undisturbed: Any, tmp_path: Path) -> None:
    store = tmp_path / "store"
    process, killed = start(world, store, "killed"), 0
    moments = (("gather/*/*.parquet", 2), ("tables/verdicts/*/*.parquet", 3), ("pool/*/*.parquet", 2))
    for pattern, count in moments:
        wait_for(process, store, pattern, count)
        for worker in workers_of(process)[:1]:
            worker.kill()
            killed += 1
    assert came_to(process) == undisturbed
    assert killed >= 2
    assert verdicts_in(store) == verdicts_in(Path(world["store"]))


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    world: dict[str, Any], undisturbed: Any, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    kib = sum(p.stat().st_size for p in Path(world["store"]).rglob("*") if p.is_file()) // 1024
    try:
        with tmpfs(store, kib // 2):
            said = came_to(start(world, store, "full"))
            assert isinstance(said, str)
            assert "No space left on device" in said
            subprocess.run(["mount", "-o", f"remount,size={4 * kib}k", str(store)], check=True)
            before = {p: p.stat().st_ino for p in store.glob("*/*/*.parquet")}
            assert came_to(start(world, store, "room")) == undisturbed
            kept = [p for p, inode in before.items() if p.exists() and p.stat().st_ino == inode]
            assert len(kept) > len(before) // 2  # what was whole is not made again
    except Skipped as error:
        pytest.skip(str(error))


def test_two_runs_on_one_store_make_everything_once(
    world: dict[str, Any], undisturbed: Any, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    both = [start(world, store, name) for name in ("one", "two")]
    assert [came_to(process) for process in both] == [undisturbed, undisturbed]
    assert verdicts_in(store) == verdicts_in(Path(world["store"]))
