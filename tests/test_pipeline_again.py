"""Runs on what others left: plans, restarts after a kill, two at once, an object store."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.locks import is_held
from cluster.storage import Place
from jobs.experiment.parsing import parse_experiment
from jobs.plan import make_plan
from jobs.results.summary import summarise, verdict_lines
from jobs.run.run import Run
from jobs.run.store import Stage, Store
from tests.fault_proxy import FaultProxy
from tests.patience import end_of, wait_until
from tests.runs import open_here, run, tutelage, write_experiment

ROOT = Path(__file__).resolve().parents[1]


KINDS = ("train", "evaluate")


def test_of_two_runs_that_need_the_same_stage_one_waits_and_finds_it_made(tmp_path: Path) -> None:
    store, said = Store(tmp_path), list[str]()
    stage, other = (store.stage("score", 1, {"k": k}, {}) for k in (1, 2))
    entered = threading.Event()

    def second() -> None:
        with store.claimed([other, stage], lambda s: said.append(s.id)):
            assert stage.is_finished
            entered.set()

    with store.claimed([stage], lambda s: said.append("nobody was here before")):
        thread = threading.Thread(target=second)
        thread.start()
        wait_until(lambda: said, 30)
        assert not entered.is_set()
        stage.finish([])
    thread.join()
    assert entered.is_set()
    assert said == [stage.id]
    assert not [lock for lock in (tmp_path / "locks").iterdir() if is_held(lock)]


def test_a_lock_that_a_killed_process_left_behind_holds_nobody_up(tmp_path: Path) -> None:
    stage = Store(tmp_path).stage("score", 1, {}, {})
    code = f"import os, signal; from jobs.run.store import Store; s = Store({str(tmp_path)!r}); " + (
        "c = s.claimed([s.stage('score', 1, {}, {})], print); c.__enter__(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "locks").iterdir())) == 1
    said: list[Stage] = []
    with Store(tmp_path).claimed([stage], said.append):
        assert said == []
    assert not [lock for lock in (tmp_path / "locks").iterdir() if is_held(lock)]


def test_plan_starts_nothing_and_knows_what_is_cached(small_world: dict[str, Any], tmp_path: Path) -> None:
    small_world["teachers"].append(
        {"name": "live", "path": small_world["students"][0]["path"], "num_cpus": 3}
    )
    file = write_experiment(small_world, tmp_path)
    done = tutelage("plan", file)
    assert done.returncode == 0, done.stderr
    assert "24 answers, " in done.stdout
    assert "DOES NOT FIT" in done.stdout
    assert "2 trainings of at most 2 steps" in done.stdout
    assert not (tmp_path / "store").exists()


@pytest.mark.long
@pytest.mark.ray
def test_a_signal_in_the_middle_loses_nothing_and_the_next_run_goes_on(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """A run in a process of its own, ended once a score part is there, then run again to the end. SIGTERM
    goes where Ctrl-C goes; Ray's own handlers of it ended the run with a C++ trace.
    """
    small_world["train"]["steps"] = 1
    file = write_experiment(small_world, tmp_path)
    command = [sys.executable, "-m", "jobs", "run", str(file)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    scored = (tmp_path / "store" / "tables" / "statistics").glob
    wait_until(lambda: process.poll() is not None or list(scored("*/*.parquet")), 200)
    assert process.poll() is None, process.communicate()[0]
    begun = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    output = end_of(process, 60)[0]
    assert process.returncode == 130, output
    assert begun
    assert not psutil.wait_procs(begun, timeout=60)[1]
    assert "run the same command again to go on" in output
    assert "Traceback" not in output
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("view.json")}
    assert kept
    again = tutelage("run", file)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (tmp_path / "runs" / "small" / "report.html").is_file()
    assert all(p.stat().st_mtime_ns == when for p, when in kept.items())
    links = list((tmp_path / "runs" / "small" / "stages").glob("*/*"))
    assert links
    assert all((link / "manifest.json").is_file() or (link / "view.json").is_file() for link in links)

    report = tutelage("report", "small", "--runs", tmp_path / "runs")
    assert report.returncode == 0, report.stderr
    other = tutelage("run", file, "seed=5")
    assert other.returncode == 2
    assert "was made by a different experiment; got other values under seed" in other.stderr


def state_of(store: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder of a store with its inode and the time of its last change."""
    return {p.as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in store.rglob("*")}


@pytest.mark.long
def test_a_finished_run_with_calls_that_failed_for_good_is_read_planned_and_replayed_and_nothing_is_written(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each planned one more try of the failed calls, and stopped; `plan` took the pool for another."""
    monkeypatch.setenv("FAR_KEY", "sk-anything")
    proxy = FaultProxy("http://127.0.0.1:9", [], after="500")
    far = {"kind": "endpoint", "name": "far", "base_url": proxy.url, "model": "m", "api_key_env": "FAR_KEY"}
    # The names of teachers once collided in the labels of stages.
    small_world["teachers"][0]["name"], small_world["teachers"][1]["name"] = "generate-1", "verify-1"
    tree = small_world | {"teachers": [*small_world["teachers"], far | {"max_retries": 0}]}
    file, store = write_experiment(tree, tmp_path), tmp_path / "store"
    done = tutelage("run", file)
    assert done.returncode == 0, done.stderr
    assert "answers in quarantine" in done.stdout
    again = tutelage("run", file, "--retry-failed")  # asks once more, in vain: a second wave in the store
    assert again.returncode == 0, again.stderr
    proxy.close()
    # two waves of 24; a call on a connection that is being closed never gets there, and is not tried again
    assert 36 < len(proxy.seen) <= 48
    before = state_of(store)
    plan = tutelage("plan", file)
    assert plan.returncode == 0, plan.stderr
    assert " no " not in plan.stdout, plan.stdout
    assert "0 of" not in plan.stdout
    run_directory = tmp_path / "runs" / "small"
    report = tutelage("report", run_directory)
    assert report.returncode == 0, report.stderr
    assert "0 stages made" in report.stdout
    export = tutelage("export", run_directory, "--out", tmp_path / "out")
    assert export.returncode == 0, export.stderr
    assert (tmp_path / "out" / "answers" / "generate-1.jsonl").is_file()
    question = json.loads(Path(small_world["questions"]["train"]).read_text().splitlines()[0])["id"]
    replay = tutelage("replay", run_directory, f"verify-1/{question}/0")
    assert replay.returncode == 0, replay.stderr
    assert "verify: correct" in replay.stdout
    assert state_of(store) == before


def finished(store: Path) -> set[str]:
    ends = [*store.glob("*/*/manifest.json"), *store.glob("views/*/*/view.json")]
    return {end.parent.name for end in ends}


def all_of(done: Run) -> list[tuple[str, Stage]]:
    """Every stage of a run, with its kind."""
    return [(kind, stage) for (kind, _), stage in done.stages.items()]


@pytest.mark.long
def test_what_a_plan_calls_made_is_what_the_run_then_finds(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """Over six states of a store: empty, whole, and with a stage of each kind taken away or an arm added."""
    tree = small_world | {"limit": 8, "train": {"steps": 1}, "evaluate": {"metric": "loss"}, "rounds": 2}
    store = tmp_path / "store"
    wider = [*tree["arms"], {"name": "random", "rule": "random"}]

    def lose(kind: str) -> None:
        """Take away a finished stage, or the views of a table with its rows."""
        if kind == "evaluate":
            sorted(store.glob(f"{kind}/*/manifest.json"))[0].unlink()
            return
        shutil.rmtree(store / "views" / kind)
        shutil.rmtree(store / "tables" / kind)

    changes: list[tuple[Callable[[], None], dict[str, Any]]] = [
        (lambda: None, {}),
        (lambda: None, {}),
        (lambda: lose("evaluate"), {}),
        (lambda: lose("statistics"), {}),
        (lambda: lose("verdicts"), {}),
        (lambda: None, {"arms": wider}),
    ]
    for number, (change, more) in enumerate(changes):
        change()
        with open_here(tree | more, tmp_path, mode="plan") as planned:
            rows = {row.stage: row for row in make_plan(planned, parse_experiment(tree | more))}
        before = finished(store)
        done, _ = run(tree | more, tmp_path)
        found = {kind: [s.id in before for k, s in all_of(done) if k == kind] for kind in KINDS}
        scored = [row for stage, row in rows.items() if stage.startswith("score kid ")]
        if "verify pool" in rows:
            is_verified = next(s.id in before for k, s in all_of(done) if k == "verify")
            assert (rows["verify pool"].cached == "yes") == is_verified, number
        for kind, row in (("train", "train, all rounds"), ("evaluate", "evaluate")):
            made, of = map(int, rows[row].cached.split(" of "))
            assert of == len(found[kind]), (number, kind)
            # beyond what is still to be made a plan gives bounds
            exact = scored and all(row.cached == "yes" for row in scored)
            assert made == sum(found[kind]) if exact else made <= sum(found[kind]), (number, kind)
        if scored:
            first = next(s for k, s in all_of(done) if k == "score")
            assert (scored[0].cached == "yes") == (first.id in before), number


def test_a_plan_of_what_nobody_made_writes_nothing(small_world: dict[str, Any], tmp_path: Path) -> None:
    plan = tutelage("plan", write_experiment(small_world, tmp_path))
    assert plan.returncode == 0, plan.stderr
    assert "at most 72 answers" in plan.stdout
    assert not (tmp_path / "store").exists()


def shas(done: Run) -> dict[str, Any]:
    """sha256 of every part of the stages whose bytes do not hang on training."""
    kinds = ("generate", "verify", "score", "select")
    return {
        label: {n: p["sha256"] for n, p in s.manifest()["parts"].items()}
        for label, s in done.stages.items()
        if s.name in kinds
    }


@pytest.mark.long
def test_a_run_on_an_object_store_is_the_same_run_and_goes_on_there(
    small_world: dict[str, Any], tmp_path: Path, s3_bucket: str
) -> None:
    """A whole run on an object store, against one on this disk. Ray Train's checkpoints there are tested with
    the training loop.
    """
    tree = small_world
    here, _ = run(tree, tmp_path)
    away = {"store": f"{s3_bucket}/store", "students": [{"name": "kid", "path": f"{s3_bucket}/models/kid"}]}
    folder = tmp_path / "copy"
    shutil.copytree(small_world["students"][0]["path"], folder)
    Place(away["students"][0]["path"]).take(folder)
    questions = {k: f"{s3_bucket}/{k}.jsonl" for k in ("train", "evaluate")}
    for kind, place in questions.items():
        Place(place).write_bytes(Path(small_world["questions"][kind]).read_bytes())
    there, outcome = run(tree | away, tmp_path, questions=questions)
    assert shas(there) == shas(here)
    assert {label: s.id for label, s in there.stages.items()} == {
        label: s.id for label, s in here.stages.items()
    }
    assert any("strongest" in line for line in verdict_lines(summarise(there, outcome)))
    log = Place(f"{s3_bucket}/store").glob("train")[0].glob("*")[0] / "metrics.jsonl"
    assert len(log.read_text().splitlines()) == 2
    # A part and a manifest go: only that part is made again, from what is there.
    stage = next(stage for path, _, stage, _ in outcome.choices() if path.arm.name == "scas")
    (stage.view.directory / "view.json").unlink()
    again, _ = run(tree | away, tmp_path, questions=questions)
    assert again.cached == len(again.stages) - 1
    assert shas(again) == shas(here)
