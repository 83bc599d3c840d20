"""The faults: each strikes a run once, at a moment that its seed chooses,
and sees to it that the run ends.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import yaml

from cluster.session import LOOPBACK_ONLY
from tests.chaos.arena import ROOT, STAGES, Failed, Fight, Skipped


def after_parts(fight: Fight, stage: str) -> Callable[[], bool]:
    """Whether a random number of the parts that this run makes of a stage is there: at least one, and not yet
    all.
    """
    there = len(fight.parts(stage))
    total = sum(len(list((fight.arena.reference / p).glob("*.parquet"))) for p in fight.arena.places(stage))
    wanted = fight.random.randint(1, max(1, total - there - 1))
    fight.struck = f"after {wanted} of {total - there} parts"
    return lambda: len(fight.parts(stage)) - there >= wanted


def after_steps(fight: Fight) -> Callable[[], bool]:
    """Whether a random number of training steps is done."""
    steps = fight.arena.steps
    wanted = fight.random.randint(steps // 6, steps * 2 // 3)
    fight.struck = f"after step {wanted} of {steps}"

    def ready() -> bool:
        logs = list(fight.store.glob("train/*/metrics.jsonl"))
        return any(log.read_bytes().count(b"\n") >= wanted for log in logs)

    return ready


def actor_dies(stage: str) -> Callable[[Fight], None]:
    def fault(fight: Fight) -> None:
        process = fight.start()
        fight.wait(process, after_parts(fight, stage))
        fight.note_finished()
        fight.kill_one("ray::Host.run")
        fight.survive(process)

    return fault


def driver_dies(stage: str) -> Callable[[Fight], None]:
    def fault(fight: Fight) -> None:
        process = fight.start()
        is_training = stage in ("train", "align")
        fight.wait(process, after_steps(fight) if is_training else after_parts(fight, stage))
        fight.note_finished()
        time.sleep(fight.random.uniform(0, 0.1))
        process.kill()
        process.wait()
        fight.run_to_the_end()

    return fault


def driver_dies_between_rounds(fight: Fight) -> None:
    process = fight.start()
    fight.wait(process, lambda: bool(list(fight.store.glob("train/*/manifest.json"))))
    fight.note_finished()
    process.kill()
    process.wait()
    fight.struck = "after the first of two rounds"
    fight.run_to_the_end()


def driver_dies_between_harvests(fight: Fight) -> None:
    process = fight.start()
    fight.wait(process, lambda: bool(list(fight.store.glob("train/*/manifest.json"))))
    fight.note_finished()
    process.kill()
    process.wait()
    fight.struck = "after the teacher was aligned"
    fight.run_to_the_end()


def train_worker_dies(fight: Fight) -> None:
    process = fight.start()
    fight.wait(process, after_steps(fight))
    fight.kill_one("RayTrainWorker")
    fight.survive(process)


def train_worker_dies_in_a_checkpoint(fight: Fight) -> None:
    process = fight.start()
    half: list[Path] = []
    wanted = fight.random.randint(1, 4)

    def half_written() -> bool:
        whole = {p.parent for p in fight.store.glob("checkpoints/*/checkpoint_*/COMPLETE.json")}
        half[:] = [p for p in fight.store.glob("checkpoints/*/checkpoint_*") if p not in whole and p.is_dir()]
        return len(whole) >= wanted and bool(half)

    fight.wait(process, half_written)
    for pid in fight.processes("RayTrainWorker"):
        os.kill(pid, signal.SIGKILL)
    fight.struck = f"while {half[0].name[-8:]} was written, {wanted} whole before it"
    fight.survive(process)


def checkpoint_is_torn(fight: Fight) -> None:
    """Kill the driver in training, then cut the newest checkpoint's largest file and Ray's own list of
    checkpoints.
    """
    process = fight.start()
    fight.wait(process, lambda: len(list(fight.store.glob("checkpoints/*/checkpoint_*/COMPLETE.json"))) >= 2)
    process.kill()
    process.wait()
    newest = max(fight.store.glob("checkpoints/*/checkpoint_*/COMPLETE.json")).parent
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, fight.random.randrange(largest.stat().st_size))
    for snapshot in fight.store.glob("checkpoints/*/checkpoint_manager_snapshot.json"):
        os.truncate(snapshot, fight.random.randrange(1, snapshot.stat().st_size))
    fight.struck = f"{largest.name[:24]} and Ray's list cut short"
    fight.run_to_the_end()


def manifest_is_torn(fight: Fight) -> None:
    ends = [*fight.store.glob("*/*/manifest.json"), *fight.store.glob("views/*/*/view.json")]
    manifest = fight.random.choice(sorted(ends))
    os.truncate(manifest, fight.random.randrange(manifest.stat().st_size))
    fight.struck = f"of {manifest.parent.parent.name}"
    fight.note_finished()
    fight.run_to_the_end()


def part_is_torn(fight: Fight) -> None:
    """Take the view of statistics away and cut one of its parts: only that one may be made again."""
    fight.random.choice(sorted(fight.store.glob("views/statistics/*/view.json"))).unlink()
    part = fight.random.choice(fight.parts("score"))
    os.truncate(part, fight.random.randrange(part.stat().st_size))
    fight.struck = f"{part.name[:6]} of score"
    fight.note_finished()
    fight.before.pop(part)
    fight.run_to_the_end()


def disk_is_full(fight: Fight) -> None:
    shutil.rmtree(fight.store, ignore_errors=True)
    fight.store.mkdir()
    pages = sum(
        -(-p.stat().st_size // 4096) + 1
        for kind in fight.keep
        for place in fight.arena.places(kind)
        for p in (fight.arena.reference / place).rglob("*")
    )
    kib = 4 * pages + fight.random.randint(100, 800)
    with tmpfs(fight.store, kib):
        for kind in fight.keep:
            fight.copy(kind)
        if fight.finish(fight.start()) == 0:
            raise Failed("the run ended well on a full disk")
        if "No space left" not in fight.log() or "Traceback" in fight.log():
            raise Failed(f"a full disk is not named in one line: {fight.log()[-400:]}")
        fight.struck = f"{kib} KiB"
        fight.note_finished()
        subprocess.run(["mount", "-o", "remount,size=1g", str(fight.store)], check=True)
        fight.run_to_the_end()
        held = fight.folder / "kept"
        shutil.copytree(fight.store, held)
    same = {held / p.relative_to(fight.store): inode for p, inode in fight.before.items()}
    shutil.rmtree(fight.store)
    held.rename(fight.store)
    fight.before = {}
    fight.notes.append(f"{len(same)} parts kept")


@contextmanager
def tmpfs(place: Path, kib: int) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        raise Skipped("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def endpoint_misbehaves(fight: Fight) -> None:
    plan = [fight.random.choice(["429", "500", "malformed", "empty", "half", "ok"]) for _ in range(24)]
    plan[fight.random.randrange(24)] = "slow"
    fight.arena.proxy.plan[:] = plan
    faults = sum(f != "ok" for f in plan)
    fight.struck = f"{faults} of the first {len(plan)} calls"
    fight.survive(fight.start())
    if fight.arena.proxy.plan:
        raise Failed("not every fault was met")


def lock_is_stale(fight: Fight) -> None:
    locks = fight.store / "locks"
    locks.mkdir(parents=True)
    for lock in (fight.arena.reference / "locks").iterdir():
        (locks / lock.name).write_text("")
    fight.struck = "every lock of the run"
    fight.survive(fight.start())


def two_runs_at_once(fight: Fight) -> None:
    one = fight.start()
    fight.wait(one, after_parts(fight, "score"))
    two = fight.start()
    fight.struck = "the second " + fight.struck
    for process in (one, two):
        fight.survive(process)
    if "another run is making" not in fight.log():
        raise Failed("neither run waited for the other: the fault proved nothing")


def trial_driver_dies(fight: Fight) -> None:
    process = fight.start("sweep", sweep={"parameters": {"arm.lambda": [0.5]}, "max_failures": 2})
    fight.wait(process, after_steps(fight))
    fight.kill_one("ray::ImplicitFunc")
    fight.survive(process)
    trials = pd.read_parquet(fight.folder / "runs" / "small-sweep" / "trials.parquet")
    if trials["state"].tolist() != ["finished"]:
        raise Failed(f"trials ended as {trials['state'].tolist()}")
    fight.run_to_the_end()  # everything is in the store by now; this writes the run's ledger


def node_dies(fight: Fight) -> None:
    """Three nodes in a process of their own; one is killed while students are scored on all of them."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**fight.environment, **LOOPBACK_ONLY, **token}
    nodes = subprocess.Popen(
        [sys.executable, "-m", "tests.three_nodes"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    try:
        address = nodes.stdout.readline().strip()
        os.environ.update({**LOOPBACK_ONLY, **token})
        changes = {"ray": {"address": address}, "placement": {"score_workers": 3}}
        file = fight.folder / "experiment.yaml"
        file.write_text(yaml.safe_dump({**fight.tree, **changes}))
        with open(fight.folder / "log-1.txt", "wb") as log:
            words = [sys.executable, "-m", "jobs", "run", str(file)]
            process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        fight.wait(process, after_parts(fight, "score"))
        fight.note_finished()
        zone = fight.random.choice("bc")
        nodes.stdin.write(f"kill {zone}\n")
        nodes.stdin.flush()
        fight.struck = f"node {zone} {fight.struck}"
        fight.survive(process)
    finally:
        nodes.stdin.close()
        nodes.wait(60)


FAULTS: dict[str, tuple[Callable[[Fight], None], tuple[str, ...]]] = {
    "actor dies, generating": (actor_dies("generate"), ()),
    "actor dies, scoring": (actor_dies("score"), STAGES[:2]),
    "actor dies, evaluating": (actor_dies("answers of"), STAGES[:4]),
    "node dies, scoring": (node_dies, STAGES[:2]),
    "driver dies, generating": (driver_dies("generate"), ()),
    "driver dies, verifying": (driver_dies("verify"), STAGES[:1]),
    "driver dies, scoring": (driver_dies("score"), STAGES[:2]),
    "driver dies, selecting": (driver_dies("select"), STAGES[:3]),
    "driver dies, training": (driver_dies("train"), STAGES[:4]),
    "driver dies, evaluating": (driver_dies("answers of"), STAGES[:6]),
    "train worker dies in a step": (train_worker_dies, STAGES[:4]),
    "train worker dies in a checkpoint": (train_worker_dies_in_a_checkpoint, STAGES[:4]),
    "checkpoint and Ray's list torn": (checkpoint_is_torn, STAGES[:4]),
    "trial's driver dies, training": (trial_driver_dies, STAGES[:4]),
    "manifest torn": (manifest_is_torn, STAGES),
    "part torn": (part_is_torn, STAGES),
    "disk full": (disk_is_full, STAGES[:2]),
    "endpoint misbehaves": (endpoint_misbehaves, ()),
    "stale locks": (lock_is_stale, STAGES[:2]),
    "two runs at once": (two_runs_at_once, STAGES[:2]),
}
ROLLOUT_FAULTS: dict[str, Callable[[Fight], None]] = {
    "driver dies, rolling out": driver_dies("roll out"),
    "driver dies, steering": driver_dies("steer"),
    "actor dies, steering": actor_dies("steer"),
    "driver dies, training on rollouts": driver_dies("train"),
    "driver dies between rounds": driver_dies_between_rounds,
}

WRITING_FAULTS: dict[str, Callable[[Fight], None]] = {
    "driver dies, writing questions": driver_dies("write questions"),
    "actor dies, preferring": actor_dies("score"),
    "driver dies, reading pairs": driver_dies("read pairs"),
    "driver dies, aligning": driver_dies("align"),
    "driver dies between harvests": driver_dies_between_harvests,
}
CALL_FAULTS: dict[str, Callable[[Fight], None]] = {
    "driver dies, asking the teacher": driver_dies("ask the teacher"),
    "actor dies, rolling out with calls": actor_dies("roll out with calls"),
    "driver dies, learning from paths": driver_dies("train"),
    "driver dies between rounds with calls": driver_dies_between_rounds,
}
