"""Scoring, sampling and training beside two processes that never stop, against the same when they are not
there.

Each side is a process that waits for its turn, so that quiet and busy slices alternate and others' work on
the machine strikes all sides alike. `ours` is what the product does; `default` is torch's own: all threads
for every operation, which spin for one another. On a machine that others use, quiet slices are not quiet: the
load is told.

    python -m benchmarks.busy [--quick] [--large]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.measurement import finish
from benchmarks.scoring_cases import CASES, build
from cluster.threads import SET_BY_USERS

LOOPS = 2
WANTED, MOST_LOST = 0.4, 0.1
Work = Callable[[], float]


def scoring(case: str) -> Work:
    """Answers of a few questions, scored; returns how many."""
    from selection.scoring import Scorer

    model, rows = build(CASES[case], "float32", "cpu")
    scorer, some = Scorer(model, frozenset()), rows[: 108 if case == "0.5M" else 9]

    def work() -> float:
        scorer.score(some)
        return len(some)

    return work


def sampling(case: str) -> Work:
    """Sixteen tokens of every answer, greedily; returns how many tokens."""
    from cluster.models.sampling import Completion, Sampling, sample

    model, rows = build(CASES[case], "float32", "cpu")
    prompts = [row.ids[: row.prompt_length] for row in rows][:: 9 if case == "0.5M" else 3]

    def work() -> float:
        found = sample(model, prompts, Sampling(16, frozenset()))
        return sum(len(one.ids) for one in found if isinstance(one, Completion))

    return work


def training(case: str) -> Work:
    """Steps of a 0.3M-parameter student on its engine; returns answer tokens for the seconds of the steps."""
    import torch.distributed as dist

    from cluster.models.loading import ModelSource
    from cluster.storage import Place
    from jobs.miniature.initial_model import make_initial_model
    from training.data import Example, write_examples
    from training.job import TrainJob
    from training.settings import TrainSettings

    folder = Path(tempfile.mkdtemp(prefix="busy-"))
    make_initial_model(folder / "student", seed=0)
    examples = [Example(tuple(3 + (7 * k + t) % 90 for t in range(120)), 40, 120) for k in range(64)]
    write_examples(Place(str(folder / "examples.arrow")), examples)
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_LOG_LEVEL": "error"}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    settings, source = TrainSettings(steps=8, batch_size=32), ModelSource(str(folder / "student"))

    def work() -> float:
        output = folder / f"out-{time.monotonic_ns()}"
        job = TrainJob("busy", source, str(folder / "examples.arrow"), str(output), 0, settings)
        return trained(job, Place(str(folder / "checkpoints")))

    return work


def trained(job: Any, checkpoints: Any) -> float:
    """Train here and now; the clock of the slice stands still around the steps."""
    import torch

    from cluster.storage import Place
    from training.loop import train_queue
    from training.metrics import read_metrics
    from training.worker import Worker

    began = time.monotonic()
    train_queue([job], checkpoints, Worker(0, 1, True, torch.device("cpu"), "here", lambda *_: None))
    rows = read_metrics(Place(job.output))
    Clock.aside += time.monotonic() - began - sum(row["seconds"] for row in rows)
    return float(sum(row["answer_tokens"] for row in rows))


class Clock:
    """Seconds of a slice that are not measured."""

    aside = 0.0


def serve(kind: str, case: str, side: str) -> None:
    """In a process of its own: for each line of so many seconds work for so long, and tell the rate."""
    from cluster import threads

    if side == "ours":
        threads.wait_asleep()
    changed = nullcontext() if side == "ours" else mock.patch.object(threads, "SMALL", 0)
    with changed:
        work = {"scoring": scoring, "sampling": sampling, "training": training}[kind](case)
        work()
        print("ready", flush=True)
        for line in sys.stdin:
            began, done, Clock.aside = time.monotonic(), 0.0, 0.0
            while time.monotonic() - began - Clock.aside < float(line):
                done += work()
            print("RATE", done / (time.monotonic() - began - Clock.aside), flush=True)


class Side:
    """A process that works when it is told to."""

    def __init__(self, kind: str, case: str, side: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in SET_BY_USERS}
        command = [sys.executable, "-m", "benchmarks.busy", "--serve", kind, case, side]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._read("ready")
        self.rates: dict[str, list[float]] = {"quiet": [], "busy": []}

    def _read(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.removeprefix(word)
        raise RuntimeError(f"a side ended with {self.process.wait()}")

    def run(self, mode: str, seconds: float) -> None:
        """Work for a slice."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        self.rates[mode].append(float(self._read("RATE")))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def loops(count: int) -> Iterator[None]:
    """So many processes that never stop."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def compare(kind: str, case: str, turns: int, seconds: float) -> dict[str, Any]:
    """Both sides of one kind of work, in turns."""
    sides = {name: Side(kind, case, name) for name in ("ours", "default")}
    for _ in range(turns):
        for mode, count in (("quiet", 0), ("busy", LOOPS)):
            with loops(count):
                for side in sides.values():
                    side.run(mode, seconds)
    for side in sides.values():
        side.close()
    rates = {n: {m: statistics.median(r) for m, r in s.rates.items()} for n, s in sides.items()}
    kept = statistics.median(
        b / q for q, b in zip(sides["ours"].rates["quiet"], sides["ours"].rates["busy"], strict=True)
    )
    of_default = statistics.median(
        o / d for o, d in zip(sides["ours"].rates["quiet"], sides["default"].rates["quiet"], strict=True)
    )
    before = rates["default"]["busy"] / rates["default"]["quiet"]
    print(f"{kind} {case}: busy {kept:.2f} of quiet, wanted {WANTED} (default: {before:.2f})", flush=True)
    print(f"    quiet {of_default:.2f} of the default's, wanted {1 - MOST_LOST}; {rates}", flush=True)
    return {"rates": rates, "busy_of_quiet": kept, "quiet_of_default": of_default}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="three turns of two seconds, not seven of five")
    parser.add_argument("--large", action="store_true", help="also a 135M shape: minutes")
    parser.add_argument("--only", choices=("scoring", "sampling", "training"), help="one kind of work")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(*options.serve)
    turns, seconds = (3, 2.0) if options.quick else (7, 5.0)
    kinds = [("scoring", "0.5M"), ("sampling", "0.5M"), ("training", "0.3M")]
    if options.large:
        kinds += [("scoring", "135M short prompt"), ("sampling", "135M short prompt")]
    wanted = [(kind, case) for kind, case in kinds if options.only in (None, kind)]
    found = {f"{kind} {case}": compare(kind, case, turns, seconds) for kind, case in wanted}
    return finish("busy", {"load": os.getloadavg(), **found})


if __name__ == "__main__":
    main()
