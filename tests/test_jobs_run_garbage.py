"""`tutelage gc`: what no registered run names goes, and nothing that one needs."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BadInput
from cluster.locks import held
from cluster.storage import Place
from jobs.doors.gc import lines_of
from jobs.experiment.parsing import parse_experiment
from jobs.pipeline import look, run_pipeline
from jobs.run.garbage import PARTS, Item, find_garbage, remove_garbage
from jobs.run.progress import Terminal
from jobs.run.registry import Registration
from jobs.run.run import Mode, Run
from jobs.run.store import Stage, Store
from jobs.run.views import View
from jobs.stages.evaluate import evaluate_students
from jobs.systems.paths import judging_of
from tests.conftest import make_small_world
from tests.in_process import InProcess
from tests.runs import tutelage


def run_in(
    tree: dict[str, Any], directory: Path, mode: Mode = "make"
) -> tuple[dict[tuple[str, str], Stage | View], int]:
    """A whole run with this directory: its stages, and how many of them it found made."""
    host = InProcess()
    with Run(Store(tree["store"]), Place(str(directory)), Terminal(), host, mode) as run:
        directory.mkdir(exist_ok=True)
        run_pipeline(run, parse_experiment(tree))
    return run.stages, run.cached


@dataclass(frozen=True)
class Runs:
    """Two runs on one store, of other questions and arms: their experiments, on this copy of the store."""

    first: dict[str, Any]
    second: dict[str, Any]
    folder: Path

    @property
    def root(self) -> Place:
        return Place(self.first["store"])

    @property
    def forgotten(self) -> list[str]:
        return [str(self.folder / "two")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    world = make_small_world(folder, tiny_model) | {"train": {"steps": 1}}
    first = world | {"limit": 8, "arms": [{"name": "scas", "rule": "minimum", "cost": "scas"}]}
    second = world | {"limit": 14, "arms": [{"name": "random", "rule": "random"}]}
    run_in(first, folder / "one")
    run_in(second, folder / "two")
    return Runs(first, second, folder)


@pytest.fixture
def runs(made: Runs, tmp_path: Path) -> Runs:
    shutil.copytree(made.first["store"], tmp_path / "copy")
    store = {"store": str(tmp_path / "copy")}
    return Runs(made.first | store, made.second | store, made.folder)


def test_what_a_forgotten_run_alone_used_goes_and_the_other_run_misses_nothing(
    runs: Runs, tmp_path: Path
) -> None:
    root, forget = runs.root, runs.forgotten
    assert find_garbage(root, 0).items == []
    found = find_garbage(root, 0, forget)
    kinds = {item.kind for item in found.items}
    assert {"select", "examples", "train", "evaluate", "views", PARTS} <= kinds
    removed = remove_garbage(root, found.items, forget)
    assert removed == found.items
    assert find_garbage(root, 0).items == []
    stages, cached = run_in(runs.first, runs.folder / "one", "read")  # which refuses what is not there
    assert cached == len(stages)
    for (kind, _), stage in stages.items():
        assert kind in ("examples", "train") or len(stage.read())
    trainings, again = run_in(runs.second, tmp_path / "again")
    assert again < len(trainings)  # what went is made anew


def test_the_young_and_the_held_are_spared(runs: Runs, tmp_path: Path) -> None:
    root, forget = runs.root, runs.forgotten
    found = find_garbage(root, 7, forget)
    assert found.items == []
    assert len(found.spared) == len(find_garbage(root, 0, forget).items)
    training = next(i for i in found.spared if i.kind == "train")
    week_ago = time.time() - 8 * 86400
    for name in (root / training.paths[0]).files():
        os.utime((root / training.paths[0] / name).path, (week_ago, week_ago))
    assert [i.paths for i in find_garbage(root, 7, forget).items] == [training.paths]
    with held((root / "locks" / training.lock).path):
        assert remove_garbage(root, [training], forget) == []
    assert (root / training.paths[0]).exists()


def test_what_a_run_names_between_the_look_and_the_removal_stays(runs: Runs, tmp_path: Path) -> None:
    root, forget = runs.root, runs.forgotten
    found = find_garbage(root, 0, forget)
    stages, cached = run_in(runs.second, tmp_path / "three")
    assert cached == len(stages)
    assert remove_garbage(root, found.items, forget) == []


def test_a_run_that_was_stopped_keeps_what_it_had_made(small_world: dict[str, Any], tmp_path: Path) -> None:
    tree = small_world | {"store": str(tmp_path / "store")}
    store = Store(tree["store"])
    here = Run(store, Place(str(tmp_path / "run")), Terminal(), InProcess())
    with pytest.raises(KeyboardInterrupt), here:
        evaluate_and_stop(here, tree)
    assert any((tmp_path / "store" / "tables" / "answers").glob("*/*.parquet"))
    assert find_garbage(store.root, 0).items == []


def evaluate_and_stop(run: Run, tree: dict[str, Any]) -> None:
    """As far as the answers of the students as they are, whose view is then as if its run had been stopped
    before it could write it.
    """
    e = parse_experiment(tree)
    looked = look(run, e)
    evaluate_students(run, looked.students, looked.held_out, judging_of(e), e.placement)
    for view in run.stages.values():
        view.reopen()
    raise KeyboardInterrupt


def test_a_view_that_was_named_and_not_yet_cut_keeps_its_table(runs: Runs, tmp_path: Path) -> None:
    """As of a run that was killed while it waited for the table."""
    view = next(iter((runs.root / "views" / "verdicts").path.iterdir()))
    table = f"tables/verdicts/{json.loads((view / 'view.json').read_text())['owner']['id']}"
    shutil.rmtree(view)
    unneeded = [item for item in find_garbage(runs.root, 0).items if item.paths[0].startswith(table)]
    assert unneeded == []


def test_a_place_where_no_run_is_registered_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "checkpoints" / "queue-0123456789abcdef"
    mine.mkdir(parents=True)
    with pytest.raises(BadInput, match="no run is registered there"):
        find_garbage(Place(str(tmp_path)), 0)


def test_a_damaged_registration_stops_it(runs: Runs, tmp_path: Path) -> None:
    next(iter((runs.root / "runs").path.glob("*.json"))).write_text("{")
    with pytest.raises(BadInput, match="registration is damaged"):
        find_garbage(runs.root, 0)


def test_the_command_lists_and_removes_and_says_what_it_cannot_see(runs: Runs, tmp_path: Path) -> None:
    store, gone = str(runs.root), tmp_path / "gone"
    registration = next(p for p in (runs.root / "runs").path.glob("*.json") if '/two"' in p.read_text())
    registration.write_text(registration.read_text().replace(runs.forgotten[0], str(gone)))
    listed = tutelage("gc", store, "--days", 0)
    assert f"{gone} cannot be seen from here" in listed.stdout.replace("\n", "")
    assert "0 things are named by no run" in listed.stdout
    forget = ("--forget", gone)
    assert "nothing was removed; with --delete this is" in tutelage("gc", store, "--days", 0, *forget).stdout
    removed = tutelage("gc", store, "--days", 0, *forget, "--delete")
    assert "removed " in removed.stdout, removed.stderr
    assert "0 things are named by no run" in tutelage("gc", store, "--days", 0).stdout


def test_checkpoints_stay_while_a_named_training_is_not_finished(runs: Runs, tmp_path: Path) -> None:
    root = runs.root
    (root / "checkpoints" / "queue-0123456789abcdef" / "x").write_bytes(b"x")
    assert [i.kind for i in find_garbage(root, 0).items] == ["checkpoints"]
    training = next((root / "train").path.iterdir())
    (training / "manifest.json").unlink()
    assert find_garbage(root, 0) == find_garbage(root, 0)
    assert not [i for i in find_garbage(root, 0).items if isinstance(i, Item) and i.kind == "checkpoints"]


def test_checkpoints_stay_while_a_named_world_is_being_made(runs: Runs, tmp_path: Path) -> None:
    """A world's trainings are its own, and no `train/` names them: a live build lost its checkpoints."""
    root = runs.root
    (root / "checkpoints" / "queue-0123456789abcdef-0-2" / "x").write_bytes(b"x")
    assert [i.kind for i in find_garbage(root, 0).items] == ["checkpoints"]
    world = Registration(root, Place(str(tmp_path / "runs" / "world")))
    world.name("miniature/0123456789abcdef01234567")
    world.save()
    assert not [i for i in find_garbage(root, 0).items if isinstance(i, Item) and i.kind == "checkpoints"]


def test_what_is_dated_in_the_future_is_told_apart_and_goes_when_nothing_is_spared(runs: Runs) -> None:
    """A clock that was wrong once would keep it for ever without a word."""
    for file in Path(str(runs.root)).rglob("*"):
        os.utime(file, (4e9, 4e9), follow_symlinks=False)
    found = find_garbage(runs.root, 7, runs.forgotten)
    assert found.items == []
    assert found.spared == []
    assert "dated in the future" in lines_of(runs.root, found, 7, set(runs.forgotten))[-1]
    assert find_garbage(runs.root, 0, runs.forgotten).items == found.undated


@pytest.mark.parametrize("days", [float("nan"), -1.0, float("-inf")])
def test_a_number_of_days_that_is_none_removes_nothing(runs: Runs, days: float) -> None:
    with pytest.raises(BadInput, match="--days"):
        find_garbage(runs.root, days, runs.forgotten)


def test_a_damaged_manifest_stops_it_since_nobody_knows_what_its_stage_uses(runs: Runs) -> None:
    manifest = next(Path(str(runs.root)).glob("evaluate/*/manifest.json"))
    manifest.write_text("[]")
    with pytest.raises(BadInput, match=r"manifest is damaged.*manifest\.json"):
        find_garbage(runs.root, 0)


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"parts": null, "owner": null}'])
def test_a_damaged_view_keeps_its_whole_table(runs: Runs, content: str) -> None:
    for view in Path(str(runs.root)).glob("views/*/*/view.json"):
        view.write_text(content)
    assert not [item for item in find_garbage(runs.root, 0).items if item.kind == PARTS]


def read_all(runs: Runs) -> None:
    """Read what a report reads."""
    stages, _ = run_in(runs.first, runs.folder / "one", "read")
    for (kind, _), stage in stages.items():
        if kind not in ("examples", "train"):
            stage.read()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("pattern", "harm"),
    [
        ("select/*/manifest.json", lambda file: file.write_text("[]")),
        ("evaluate/*/manifest.json", lambda file: file.write_bytes(b"")),
        ("views/statistics/*/view.json", lambda file: file.write_text("null")),
        ("select/*/chosen.parquet", flip),
        ("tables/statistics/*/*.parquet", flip),
        ("evaluate/*/results.parquet", Path.unlink),
    ],
)
def test_a_damaged_file_ends_what_reads_it_with_its_name_and_what_to_do(
    runs: Runs, pattern: str, harm: Callable[[Path], None]
) -> None:
    for file in Path(str(runs.root)).glob(pattern):
        harm(file)
    with pytest.raises(BadInput, match="remove") as told:
        read_all(runs)
    assert pattern.rpartition("/")[2].removeprefix("*") in str(told.value)


def test_another_arms_choice_in_this_ones_place_is_not_read(runs: Runs) -> None:
    """It was accepted: what was reported was chosen for somebody else."""
    one, other = sorted(Path(str(runs.root)).glob("select/*/chosen.parquet"))
    was = one.read_bytes(), other.read_bytes()
    one.write_bytes(was[1])
    other.write_bytes(was[0])
    with pytest.raises(BadInput, match=r"chosen\.parquet is damaged.*sha256"):
        read_all(runs)
