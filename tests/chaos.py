"""The chaos suite, `make chaos`: strike a run at random points, start it again, compare it with an undisturbed one.

One reference run first. Every fault then gets a copy of its store with the later stages taken away, is struck at a point that its
seed chooses, and is started again until it ends. It has survived if answers, verdicts, costs and choices are the reference's
byte for byte, the trained weights are its within `TOLERANCE`, the ledger is the same, no half-written file lies around and no lock is held
and no process of it is alive. The table says what was done again.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from cluster.session import LOOPBACK_ONLY
from cluster.storage import is_held
from tests.conftest import make_small_world
from tests.fault_proxy import FaultProxy
from tests.openai_server import serve_model

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("generate", "verify", "score", "select", "train", "evaluate")
EXACT = ("generate", "verify", "score", "select")
TOLERANCE = 1e-6  # weights of a resumed training against an undisturbed one
PATIENCE_S = 240.0
MARK = "TUTELAGE_CHAOS"
STEPS = 120
AGENTS_NOTICE_S = 180.0  # Ray's agents ask their dead head for a minute or two before they give up


class Failed(Exception):
    """A fault was not survived."""


class Skipped(Exception):
    """A fault that this machine does not let us cause."""


@dataclass
class Arena:
    """What all faults share: the experiment, its undisturbed store, and the endpoint's proxy."""

    root: Path
    tree: dict[str, Any]
    reference: Path
    proxy: FaultProxy
    seed: int


@dataclass
class Fight:
    """One fault's own copy of the world."""

    arena: Arena
    name: str
    keep: tuple[str, ...]
    tree: dict[str, Any] = field(default_factory=dict)
    struck: str = ""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.arena.root / self.name.replace(" ", "-")
        self.folder.mkdir()
        self.random = random.Random(f"{self.arena.seed}/{self.name}")
        self.store = self.folder / "store"
        for stage in self.keep:
            shutil.copytree(self.arena.reference / stage, self.store / stage)
        self.tree = {**self.arena.tree, "store": str(self.store), "runs": str(self.folder / "runs"), **self.tree}
        self.mark = secrets.token_hex(8)
        self.before: dict[Path, int] = {}
        self.starts = 0

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return {**kept, "HF_HUB_OFFLINE": "1", "CHAOS_KEY": "sk-chaos", MARK: self.mark}

    def start(self, *command: str, **changes: Any) -> "subprocess.Popen[bytes]":
        file = self.folder / "experiment.yaml"
        file.write_text(yaml.safe_dump({**self.tree, **changes}))
        self.starts += 1
        with open(self.folder / f"log-{self.starts}.txt", "wb") as log:
            words = [sys.executable, "-m", "jobs", *(command or ("run",)), str(file)]
            return subprocess.Popen(words, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    def log(self) -> str:
        return "".join(p.read_text(errors="replace") for p in sorted(self.folder.glob("log-*.txt")))

    def finish(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait for a run to end."""
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise Failed(f"a run hangs: {self.log()[-400:]}") from error

    def parts(self, stage: str) -> list[Path]:
        return sorted(self.store.glob(f"{stage}/*/*.parquet"))

    def wait(self, process: "subprocess.Popen[bytes]", ready: Callable[[], bool]) -> None:
        """Poll until the moment to strike."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            if process.poll() is not None:
                raise Failed(f"the run ended with {process.returncode} before it could be struck: {self.log()[-400:]}")
            if time.monotonic() > deadline:
                raise Failed(f"the moment to strike never came: {self.log()[-400:]}")
            time.sleep(0.002)

    def note_finished(self) -> None:
        """Remember which parts are there when the fault strikes: they must not be made again."""
        self.before = {p: p.stat().st_ino for stage in EXACT for p in self.parts(stage)}

    def processes(self, name: str = "") -> list[int]:
        """Pids of this fight's processes whose command line holds `name`."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    ours = f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes()
                    if ours and name.encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def kill_one(self, name: str) -> int:
        """SIGKILL one of this fight's processes of that name, at a moment up to a tenth of a second away."""
        time.sleep(self.random.uniform(0, 0.1))
        deadline = time.monotonic() + 10
        while not (alive := self.processes(name)):
            if time.monotonic() > deadline:
                raise Failed(f"no process named {name} was there to be killed")
            time.sleep(0.002)
        pid = self.random.choice(alive)
        os.kill(pid, signal.SIGKILL)
        return pid


def after_parts(fight: Fight, stage: str) -> Callable[[], bool]:
    """Whether a random number of the parts that this run makes of a stage is there: at least one, and not yet all."""

    def made(parts: list[Path]) -> int:
        return sum(p.name != "answers.parquet" for p in parts)  # those of file teachers are there at once

    there = made(fight.parts(stage))
    total = made(sorted(fight.arena.reference.glob(f"{stage}/*/*.parquet"))) - there
    wanted = fight.random.randint(1, max(1, total - 1))
    fight.struck = f"after {wanted} of {total} parts"
    return lambda: made(fight.parts(stage)) - there >= wanted


def after_steps(fight: Fight) -> Callable[[], bool]:
    """Whether a random number of training steps is done."""
    wanted = fight.random.randint(STEPS // 6, STEPS * 2 // 3)
    fight.struck = f"after step {wanted} of {STEPS}"

    def ready() -> bool:
        logs = list(fight.store.glob("train/*/metrics.jsonl"))
        return any(log.read_bytes().count(b"\n") >= wanted for log in logs)

    return ready


def check(fight: Fight) -> int:
    """Compare with the reference; returns how many parts were finished when the fault struck, none of which was made again.

    Raises:
        Failed: what differs, or what was left lying around.
    """
    want, have = digests(fight.arena.reference), digests(fight.store)
    if want != have:
        differing = sorted(k for k in want.keys() | have.keys() if want.get(k) != have.get(k))
        raise Failed(f"not the reference's bytes: {', '.join(differing[:4])}")
    compare_weights(fight)
    ledgers = [pd.read_parquet(folder / "ledger.parquet") for folder in (fight.arena.root / "reference" / "runs" / "small", run_of(fight))]
    if not ledgers[0].equals(ledgers[1]):
        raise Failed("the ledger differs from the reference's")
    strays = [p for pattern in ("**/.*.tmp", "**/*.partial", "checkpoints/*", "train/*/step-*") for p in fight.store.glob(pattern)]
    strays += [lock for lock in fight.store.glob("locks/*") if is_held(lock)]
    strays += [p for stage in STAGES for p in fight.store.glob(f"{stage}/*") if not (p / "manifest.json").is_file()]
    if strays:
        raise Failed(f"left behind: {', '.join(str(p.relative_to(fight.store)) for p in strays[:4])}")
    again = [p for p, inode in fight.before.items() if not p.is_file() or p.stat().st_ino != inode]
    again = [p for p in again if p.name != "answers.parquet" and p.parent.parent.name != "select"]  # read from files, or made in no time
    if again:
        raise Failed(f"finished parts were made again: {', '.join(str(p.relative_to(fight.store)) for p in again[:4])}")
    return len(fight.before)


def run_of(fight: Fight) -> Path:
    return fight.folder / "runs" / "small"


def digests(store: Path) -> dict[str, str]:
    """sha256 of every part of the stages that must be the same bytes, as the manifests say."""
    found = {}
    for stage in EXACT:
        for manifest in store.glob(f"{stage}/*/manifest.json"):
            parts = json.loads(manifest.read_text())["parts"]
            found.update({f"{stage}/{manifest.parent.name}/{name}": part["sha256"] for name, part in parts.items()})
    return found


def compare_weights(fight: Fight) -> None:
    from safetensors.numpy import load_file

    for want in fight.arena.reference.glob("train/*/model/model.safetensors"):
        have = fight.store / want.relative_to(fight.arena.reference)
        if not have.is_file():
            raise Failed(f"no trained model {have.parent.parent.name}")
        one, two = load_file(want), load_file(have)
        worst = max(float(abs(one[k] - two[k]).max()) for k in one)
        if worst > TOLERANCE:
            raise Failed(f"weights differ by {worst:.1e}")
        fight.notes.append(f"weights within {worst:.0e}")


def run_to_the_end(fight: Fight, **changes: Any) -> None:
    """Start the same command again until it ends well."""
    if fight.finish(fight.start(**changes)) != 0:
        raise Failed(f"the run started again fails: {fight.log()[-400:]}")


def survive(fight: Fight, process: "subprocess.Popen[bytes]") -> None:
    """The struck run must end well by itself."""
    if fight.finish(process) != 0:
        raise Failed(f"the struck run fails: {fight.log()[-400:]}")


# ---- faults: each strikes once and sees to it that the run ends ----


def actor_dies(stage: str) -> Callable[[Fight], None]:
    def fault(fight: Fight) -> None:
        process = fight.start()
        fight.wait(process, after_parts(fight, stage))
        fight.note_finished()
        fight.kill_one("ray::_Host")
        survive(fight, process)

    return fault


def driver_dies(stage: str) -> Callable[[Fight], None]:
    def fault(fight: Fight) -> None:
        process = fight.start()
        fight.wait(process, after_steps(fight) if stage == "train" else after_parts(fight, stage))
        fight.note_finished()
        time.sleep(fight.random.uniform(0, 0.1))
        process.kill()
        process.wait()
        run_to_the_end(fight)

    return fault


def train_worker_dies(fight: Fight) -> None:
    process = fight.start()
    fight.wait(process, after_steps(fight))
    fight.kill_one("RayTrainWorker")
    survive(fight, process)


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
    survive(fight, process)


def checkpoint_is_torn(fight: Fight) -> None:
    """Kill the driver in training, then cut the newest checkpoint's largest file and Ray's own list of checkpoints."""
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
    run_to_the_end(fight)


def manifest_is_torn(fight: Fight) -> None:
    manifest = fight.random.choice(sorted(fight.store.glob("*/*/manifest.json")))
    os.truncate(manifest, fight.random.randrange(manifest.stat().st_size))
    fight.struck = f"of {manifest.parent.parent.name}"
    fight.note_finished()
    run_to_the_end(fight)


def part_is_torn(fight: Fight) -> None:
    """Take the manifest of a stage away and cut one of its parts: only that one may be made again."""
    manifest = fight.random.choice(sorted(fight.store.glob("score/*/manifest.json")))
    manifest.unlink()
    part = fight.random.choice(sorted(manifest.parent.glob("*.parquet")))
    os.truncate(part, fight.random.randrange(part.stat().st_size))
    fight.struck = f"{part.name[:6]} of score"
    fight.note_finished()
    fight.before.pop(part)
    run_to_the_end(fight)


def disk_is_full(fight: Fight) -> None:
    shutil.rmtree(fight.store, ignore_errors=True)
    fight.store.mkdir()
    pages = sum(-(-p.stat().st_size // 4096) + 1 for stage in fight.keep for p in (fight.arena.reference / stage).rglob("*"))
    kib = 4 * pages + fight.random.randint(100, 800)
    with tmpfs(fight.store, kib):
        for stage in fight.keep:
            shutil.copytree(fight.arena.reference / stage, fight.store / stage)
        if fight.finish(fight.start()) == 0:
            raise Failed("the run ended well on a full disk")
        if "No space left" not in fight.log() or "Traceback" in fight.log():
            raise Failed(f"a full disk is not named in one line: {fight.log()[-400:]}")
        fight.struck = f"{kib} KiB"
        fight.note_finished()
        subprocess.run(["mount", "-o", "remount,size=1g", str(fight.store)], check=True)
        run_to_the_end(fight)
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
    survive(fight, fight.start())
    if fight.arena.proxy.plan:
        raise Failed("not every fault was met")


def lock_is_stale(fight: Fight) -> None:
    locks = fight.store / "locks"
    locks.mkdir(parents=True)
    for stage in ("score", "select", "train", "evaluate"):
        for directory in (fight.arena.reference / stage).iterdir():
            (locks / f"{stage}-{directory.name}").write_text("")
    fight.struck = "every lock of the run"
    survive(fight, fight.start())


def two_runs_at_once(fight: Fight) -> None:
    one = fight.start()
    fight.wait(one, after_parts(fight, "score"))
    two = fight.start()
    fight.struck = "the second " + fight.struck
    for process in (one, two):
        survive(fight, process)
    if "another run is making" not in fight.log():
        raise Failed("neither run waited for the other: the fault proved nothing")


def trial_driver_dies(fight: Fight) -> None:
    process = fight.start("sweep", sweep={"parameters": {"arm.lambda": [0.5]}, "max_failures": 2})
    fight.wait(process, after_steps(fight))
    fight.kill_one("ray::ImplicitFunc")
    survive(fight, process)
    trials = pd.read_parquet(fight.folder / "runs" / "small-sweep" / "trials.parquet")
    if trials["state"].tolist() != ["finished"]:
        raise Failed(f"trials ended as {trials['state'].tolist()}")
    run_to_the_end(fight)  # everything is in the store by now; this writes the run's ledger


def node_dies(fight: Fight) -> None:
    """Three nodes in a process of their own; one is killed while students are scored on all of them."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**fight.environment, **LOOPBACK_ONLY, **token}
    nodes = subprocess.Popen(
        [sys.executable, "-m", "tests.three_nodes"], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
        survive(fight, process)
    finally:
        nodes.stdin.close()
        nodes.wait(60)


FAULTS: dict[str, tuple[Callable[[Fight], None], tuple[str, ...]]] = {
    "actor dies, generating": (actor_dies("generate"), ()),
    "actor dies, scoring": (actor_dies("score"), STAGES[:2]),
    "actor dies, evaluating": (actor_dies("evaluate"), STAGES[:4]),
    "node dies, scoring": (node_dies, STAGES[:2]),
    "driver dies, generating": (driver_dies("generate"), ()),
    "driver dies, verifying": (driver_dies("verify"), STAGES[:1]),
    "driver dies, scoring": (driver_dies("score"), STAGES[:2]),
    "driver dies, selecting": (driver_dies("select"), STAGES[:3]),
    "driver dies, training": (driver_dies("train"), STAGES[:4]),
    "driver dies, evaluating": (driver_dies("evaluate"), STAGES[:5]),
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


@contextmanager
def arena(folder: Path, seed: int) -> Iterator[Arena]:
    """Build the world and run it undisturbed."""
    from jobs.miniature import make_initial_model

    tiny = folder / "tiny"
    make_initial_model(tiny, seed=3)
    with serve_model(tiny, folder / "serve.log") as url:
        proxy = FaultProxy(url, [])
        endpoint = {"kind": "endpoint", "name": "far", "base_url": proxy.url, "model": str(tiny), "api_key_env": "CHAOS_KEY"}
        hosted = {"kind": "model", "name": "dan", "path": str(tiny)}
        tree = make_small_world(folder, tiny)
        tree |= {
            "teachers": [*tree["teachers"], hosted, {**endpoint, "timeout_s": 3.0, "max_retries": 8, "concurrency": 4}],
            "generate": {"max_new_tokens": 24, "shard_size": 4},
            "score": {"shard_size": 6},
            "train": {"steps": STEPS, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 10},
            "evaluate": {"max_new_tokens": 160, "shard_size": 4},
            "placement": {"max_failures": 5},
            "arms": tree["arms"][:1],
        }
        found = Arena(folder, tree, folder / "reference" / "store", proxy, seed)
        calm = Fight(found, "reference", ())
        run_to_the_end(calm)
        try:
            yield found
        finally:
            proxy.close()


def wait_for_processes(fights: list[tuple[Fight, list[str]]]) -> None:
    """Every process must have ended by itself: workers at once, Ray's agents when they notice that their cluster is gone."""
    deadline = time.monotonic() + AGENTS_NOTICE_S
    while any(fight.processes() for fight, _ in fights) and time.monotonic() < deadline:
        time.sleep(0.5)
    for fight, row in fights:
        alive = fight.processes()
        if alive:
            names = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:30].strip() for pid in alive]
            row[2] = f"NO: still alive: {', '.join(names)}"
            for pid in alive:
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Run the faults and print the table; exits with 1 if one was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=None, help="chooses where each fault strikes; random if not given")
    parser.add_argument("--only", default="", help="only faults whose name holds this")
    parser.add_argument("--minutes", type=float, default=None, help="start no further fault after this; the seed chooses the order")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(10**6)
    print(f"seed {seed}: python -m tests.chaos --seed {seed}", flush=True)
    table = Table("fault", "where", "survived", "finished parts kept", "seconds", title=f"chaos, seed {seed}", title_justify="left")
    fights: list[tuple[Fight, list[str]]] = []
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with arena(folder, seed) as found:
        order = [name for name in FAULTS if given.only in name]
        if given.minutes is not None:
            random.Random(seed).shuffle(order)
        started = time.monotonic()
        for name in order:
            fault, keep = FAULTS[name]
            if given.minutes is not None and time.monotonic() - started > 60 * given.minutes:
                break
            began, fight = time.monotonic(), Fight(found, name, keep)
            try:
                fault(fight)
                again = str(check(fight))
                outcome = "yes" + "".join(f"; {n}" for n in dict.fromkeys(fight.notes))
            except (Failed, OSError, subprocess.SubprocessError) as error:
                again, outcome = "", f"NO: {error}"
            except Skipped as reason:
                again, outcome = "", f"skipped: {reason}"
            fights.append((fight, [name, fight.struck, outcome, again, f"{time.monotonic() - began:.0f}"]))
            print(f"{name}: {outcome} ({fight.struck})", flush=True)
        wait_for_processes(fights)
    for _, row in fights:
        table.add_row(*row)
    Console(width=170).print(table)
    failed = sum(row[2].startswith("NO") for _, row in fights)
    skipped = sum(row[2].startswith("skipped") for _, row in fights)
    print(f"{len(fights) - failed - skipped} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    if len(fights) < len(order):
        print(f"{len(order) - len(fights)} of {len(order)} faults were not reached in {given.minutes:g} minutes")
    if failed:
        print(f"the stores and logs are in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
