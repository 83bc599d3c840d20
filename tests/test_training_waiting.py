"""What a training waits for is said, with what is wanted and who holds it, and has a deadline."""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from cluster.models.loading import ModelSource
from cluster.placement import Needs
from cluster.session import Cluster
from cluster.storage import Place
from training import waiting
from training.job import TrainJob
from training.settings import TrainSettings
from training.trainer import WorkerGroup, train_jobs
from training.waiting import GroupPlace, NotBegun, Start, place_of


class Tenant:
    """Somebody else's actor."""

    def pid(self) -> int:
        return os.getpid()


def job(model: Path, folder: Path) -> TrainJob:
    settings = TrainSettings(steps=1, batch_size=8, learning_rate=1e-3)
    return TrainJob(
        "one", ModelSource(str(model)), str(folder / "none.arrow"), str(folder / "one"), 7, settings
    )


def alive(class_name: str) -> list[int]:
    return [row.pid for row in waiting._actors() if row.class_name == class_name]


@pytest.fixture
def tenant(ray_cluster: Cluster) -> Iterator[int]:
    """The pid of an actor that holds one of two CPUs."""
    import ray

    actor = ray.remote(Tenant).options(num_cpus=1, name="neighbour").remote()
    yield ray.get(actor.pid.remote())
    ray.kill(actor)


@pytest.mark.long
def test_a_training_without_room_says_what_it_waits_for_and_ends(
    tenant: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers beside a tenant on one of two CPUs waited for ever behind "0 of 2 steps"."""
    monkeypatch.setattr(waiting, "FIRST_NOTICE_S", 0.1)
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.1)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if "no room for" in text:
            hours.append(1)

    hours = time_that_jumps(monkeypatch)
    with pytest.raises(NotBegun) as found:
        train_jobs(
            [job(tiny_model, tmp_path)],
            name="q",
            storage=Place(str(tmp_path / "ray")),
            group=WorkerGroup(2, start_deadline_s=1800.0),
            on_wait=tell,
        )
    assert told
    for text in (told[-1], str(found.value)):
        assert "no room for 2 workers with 1 CPU each; the cluster has 2 CPU (1 free)" in text
        assert f"Tenant neighbour, process {tenant} on 127.0.0.1 (1 CPU)" in text
        assert "end what holds the room, or ask for less (placement.train_workers" in text
    assert "training did not begin within 1800 s" in str(found.value)
    assert "placement.train_start_deadline_s" in str(found.value)
    until(lambda: not alive("TrainController"))
    # a place that was not given yet was given later, to nobody, and kept
    until(lambda: not any("placement group" in holder for holder in waiting.holders()))


@pytest.mark.long
def test_a_worker_that_stops_while_it_starts_is_named_and_nothing_of_it_is_left(
    ray_cluster: Cluster, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []
    ended = threading.Event()
    hours = time_that_jumps(monkeypatch)

    def stop_it() -> None:
        until(lambda: any(alive("RayTrainWorker")))
        stopped.extend(pid for pid in alive("RayTrainWorker") if pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in stopped))
        while not ended.wait(0.5):  # the first look may come after the first hour, and count from there
            hours.append(1)

    stopper = threading.Thread(target=stop_it)
    stopper.start()
    try:
        with pytest.raises(NotBegun, match="and have not begun: process") as found:
            train_jobs(
                [job(tiny_model, tmp_path)],
                name="q",
                storage=Place(str(tmp_path / "ray")),
                group=WorkerGroup(1, start_deadline_s=1800.0),
            )
    finally:
        ended.set()
        stopper.join()
    assert stopped
    assert re.search(rf"process {stopped[0]} on 127\.0\.0\.1 \(\w+, STOPPED\)", str(found.value))
    until(lambda: not any(psutil.pid_exists(pid) for pid in stopped))


def time_that_jumps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list: the time of a training's deadline is one hour ahead for each of its items."""
    hours: list[int] = []
    ahead = partial(Start, now=lambda: time.monotonic() + 3600.0 * len(hours))
    monkeypatch.setattr("training.trainer.Start", ahead)
    return hours


def until(holds, limit_s: float = 120.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Clock:
    """A time that a test sets, and what it says a training's place is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.place = 0.0, GroupPlace("", False)
        monkeypatch.setattr(waiting, "place_of", lambda controller: self.place)
        monkeypatch.setattr(waiting, "describe_cluster", lambda: "the cluster has nothing")
        monkeypatch.setattr(waiting, "workers_of", lambda controller: [])


def test_a_group_that_is_at_work_may_take_its_time_and_one_that_starts_again_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What rank 0 of a lost group said counts for that group alone; silences between notices grow."""
    monkeypatch.setattr(waiting, "FIRST_NOTICE_S", 10.0)
    clock, told, begun = Clock(monkeypatch), [], Place(str(tmp_path / "BEGUN"))
    start = Start(2, Needs(), begun, 100.0, lambda text: told.append(clock.now), lambda: clock.now)

    def pass_time(seconds: float) -> None:
        for _ in range(int(seconds)):
            clock.now += 1.0
            start.look(None)

    pass_time(95)  # one place after another is asked for in vain: the clock goes on
    assert told == [pytest.approx(t, abs=3) for t in (11, 31, 71)]
    clock.place = GroupPlace("a", True)
    begun.write_bytes(b"a")
    pass_time(10_000)
    clock.place = GroupPlace("b", True)  # the group was lost, and another is starting
    pass_time(90)
    begun.write_bytes(b"b")
    pass_time(1_000)
    clock.place = GroupPlace("c", False)
    pass_time(99)
    with pytest.raises(NotBegun, match="no room for 2 workers"):
        pass_time(4)


def test_there_is_no_place_before_there_is_a_controller() -> None:
    assert place_of(None) is None


def test_a_stopped_process_is_called_so() -> None:
    with contextlib.closing(os.fdopen(os.pipe()[0])) as pipe, contextlib.suppress(ProcessLookupError):
        child = os.fork()
        if child == 0:
            pipe.read(1)
            os._exit(0)
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        assert waiting.describe_process("127.0.0.1", child, "ALIVE") == (
            f"process {child} on 127.0.0.1 (alive, STOPPED)"
        )
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert waiting.describe_process("1.2.3.4", child, "ALIVE") == f"process {child} on 1.2.3.4 (alive)"
    assert waiting.describe_process("1.2.3.4", 0, "PENDING_CREATION") == "a process that is starting"
