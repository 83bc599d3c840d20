"""The world that all faults share, and each fault's own copy of it: started, watched, struck,
started again.
"""

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import make_small_world, with_solutions
from tests.fault_proxy import FaultProxy
from tests.openai_server import serve_model
from tests.own_wheels import practised
from tests.own_writing import ELICIT, written

ROOT = Path(__file__).resolve().parents[2]
# What a run goes through, as its stages.json names it; the first three are rows of tables.
STAGES = ("generate", "verify", "score", "select", "examples", "train", "evaluate")
EXACT = ("generate", "verify", "score", "select", "roll out", "verdicts on", "steer", "examples")
EXACT += ("write questions", "read pairs")
PATIENCE_S = 240.0
MARK = "TUTELAGE_CHAOS"
STEPS, ROUND_STEPS = 120, 40
TRIES = 4  # to strike a run whose moment passed before it was seen


class Failed(Exception):
    """A fault was not survived."""


class Missed(Exception):
    """A run ended before the fault could strike it: nothing was proved, it is tried again."""


class Skipped(Exception):
    """A fault that this machine does not let us cause."""


@dataclass
class Arena:
    """What faults share: the experiment, its undisturbed store, the endpoint's proxy, and how many steps a
    training has.
    """

    root: Path
    tree: dict[str, Any]
    proxy: FaultProxy
    seed: int
    steps: int = STEPS

    @property
    def reference(self) -> Path:
        """The store of the undisturbed run."""
        return self.root / "reference" / "store"

    def places(self, kind: str) -> list[Path]:
        """The directories of one kind, below the store: of stages, and of views with their tables."""
        stages = json.loads((self.reference.parent / "runs" / "small" / "stages.json").read_text())
        found = []
        for stage in stages:
            if stage["kind"] == kind:
                directory = Path(stage["directory"])
                found.append(directory.relative_to(self.reference))
                if (directory / "view.json").is_file():
                    owner = json.loads((directory / "view.json").read_text())["owner"]["id"]
                    found.append(Path("tables") / directory.parent.name / owner)
        return list(dict.fromkeys(found))


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
        self.mark = secrets.token_hex(8)
        self.begin_again()
        self.tree = {
            **self.arena.tree,
            "store": str(self.store),
            "runs": str(self.folder / "runs"),
            **self.tree,
        }
        self.before: dict[Path, int] = {}
        self.starts = 0

    def begin_again(self) -> None:
        """Set the store back to the stages that are kept; what still runs of an earlier try ends."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        for kind in self.keep:
            self.copy(kind)

    def copy(self, kind: str) -> None:
        """Take over one kind of the reference's stages or rows."""
        for place in self.arena.places(kind):
            shutil.copytree(self.arena.reference / place, self.store / place, dirs_exist_ok=True)

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
            return subprocess.Popen(
                words, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        return "".join(p.read_text(errors="replace") for p in sorted(self.folder.glob("log-*.txt")))

    def finish(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait for a run to end."""
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise Failed(f"a run hangs: {self.log()[-400:]}") from error

    def run_to_the_end(self, **changes: Any) -> None:
        """Start the same command again; it must end well."""
        if self.finish(self.start(**changes)) != 0:
            raise Failed(f"the run started again fails: {self.log()[-400:]}")

    def survive(self, process: "subprocess.Popen[bytes]") -> None:
        """The struck run must end well by itself."""
        if self.finish(process) != 0:
            raise Failed(f"the struck run fails: {self.log()[-400:]}")

    def parts(self, kind: str) -> list[Path]:
        """The parts of one kind that are there: of stages, and of the tables behind views."""
        found = [p for place in self.arena.places(kind) for p in (self.store / place).glob("*.parquet")]
        return sorted(found)

    def wait(self, process: "subprocess.Popen[bytes]", ready: Callable[[], bool]) -> None:
        """Poll until the moment to strike.

        Raises:
            Missed: the run ended well before that moment was seen.
            Failed: it ended badly, or neither came.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            if process.poll() == 0:
                raise Missed(f"the run ended before it could be struck {self.struck}")
            if process.poll() is not None:
                raise Failed(
                    f"the run ended with {process.returncode} before it could be struck: {self.log()[-400:]}"
                )
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
                raise Missed(f"no process named {name} was there any more")
            time.sleep(0.002)
        pid = self.random.choice(alive)
        os.kill(pid, signal.SIGKILL)
        return pid


@contextmanager
def arena(folder: Path, seed: int) -> Iterator[Arena]:
    """Build the world and run it undisturbed."""
    from jobs.miniature.initial_model import make_initial_model

    tiny = folder / "tiny"
    make_initial_model(tiny, seed=3)
    with serve_model(tiny, folder / "serve.log") as url:
        proxy = FaultProxy(url, [])
        endpoint = {
            "kind": "endpoint",
            "name": "far",
            "base_url": proxy.url,
            "model": str(tiny),
            "api_key_env": "CHAOS_KEY",
        }
        hosted = {"kind": "model", "name": "dan", "path": str(tiny)}
        tree = make_small_world(folder, tiny)
        tree |= {
            "teachers": [
                *tree["teachers"],
                hosted,
                {**endpoint, "timeout_s": 3.0, "max_retries": 8, "concurrency": 4},
            ],
            "generate": {"max_new_tokens": 24, "shard_size": 4},
            "score": {"shard_size": 6},
            "train": {"steps": STEPS, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 10},
            "evaluate": {"max_new_tokens": 160, "shard_size": 4},
            "placement": {"max_failures": 5},
            "arms": tree["arms"][:1],
        }
        found = Arena(folder, tree, proxy, seed)
        Fight(found, "reference", ()).run_to_the_end()
        try:
            yield found
        finally:
            proxy.close()


def arena_of_rollouts(found: Arena) -> Arena:
    """The same student in two rounds over its own rollouts; run undisturbed when it is first asked for."""
    folder = found.root / "rollouts"
    tiny = Path(found.tree["students"][0]["path"])
    there = folder.is_dir()
    folder.mkdir(exist_ok=True)
    tree = with_solutions(make_small_world(folder, tiny))
    tree |= {
        "rounds": 2,
        "arms": [{"kind": "ogls_sd", "name": "ogls", "target": "ogls"}],
        "train": {"batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 5},
        "evaluate": {"metric": "loss"},
        "placement": {"max_failures": 5},
        "rollouts": {
            "group": 4,
            "questions": 12,
            "steps_per_round": ROUND_STEPS,
            "max_new_tokens": 24,
            "solution_field": "solution",
            "template": "{question} like {solution}",
            "check_questions": 0,
            "shard_size": 8,
        },
    }
    own = Arena(folder, tree, found.proxy, found.seed, ROUND_STEPS)
    if not there:
        Fight(own, "reference", ()).run_to_the_end()
    return own


def arena_of_writing(found: Arena) -> Arena:
    """A teacher that writes questions and is aligned to the same student; run undisturbed when it is first
    asked for.
    """
    folder = found.root / "writing"
    tiny = Path(found.tree["students"][0]["path"])
    there = folder.is_dir()
    folder.mkdir(exist_ok=True)
    arm = {"kind": "arte", "name": "arte", "signal": "scas"}
    tree = written(make_small_world(folder, tiny), tiny, [arm])
    align = ELICIT["align"] | {"epochs": 12.0}
    tree |= {
        "elicit": ELICIT | {"align": align, "questions": 12, "examples": None},
        "generate": {"max_new_tokens": 16, "shard_size": 4},
        "score": {"shard_size": 6},
        "train": {"steps": ROUND_STEPS, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 5},
        "evaluate": {"metric": "loss"},
        "placement": {"max_failures": 5},
    }
    own = Arena(folder, tree, found.proxy, found.seed, ROUND_STEPS)
    if not there:
        Fight(own, "reference", ()).run_to_the_end()
    return own


def arena_of_calls(found: Arena) -> Arena:
    """A student that learns to call its teacher; run undisturbed when it is first asked for."""
    folder = found.root / "calls"
    tiny = Path(found.tree["students"][0]["path"])
    there = folder.is_dir()
    folder.mkdir(exist_ok=True)
    tree = practised(make_small_world(folder, tiny), tiny, [{"name": "wheels"}], steps_per_round=ROUND_STEPS)
    tree |= {
        "wheels": tree["wheels"] | {"shard_size": 4, "controls": False},
        "train": {"steps": ROUND_STEPS, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 5},
        "placement": {"max_failures": 5},
    }
    own = Arena(folder, tree, found.proxy, found.seed, ROUND_STEPS)
    if not there:
        Fight(own, "reference", ()).run_to_the_end()
    return own
