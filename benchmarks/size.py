"""A pool of any size, from teachers' files to examples: verify, score, select and render what was chosen, on
real Ray with two cores. The student is idle (zeros, nothing rendered but what is chosen), so what is measured
is everything around the models.

python -m benchmarks.orchestration --rows 300000
"""

import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")

import pandas as pd

from benchmarks.measurement import emit, peak_memory, reset_peak_memory
from cluster.metrics import Tally
from jobs.files.answers import Row
from jobs.stages.scorer import STATISTIC_COLUMNS
from selection.scoring import STATISTIC_NAMES

TEACHERS = 30
CHARACTERS = 380  # of an answer
SENTENCE = "so we take what is left, add the next number to it and write the result down; "


class IdleStudent:
    """In place of `ScoreHandler`: the statistics of nothing."""

    def __init__(self, *settings: object) -> None:
        self.fallbacks: dict[str, str] = {}

    def give_up(self, row: Row, reason: str) -> pd.DataFrame:
        raise NotImplementedError

    def compute(self, rows: Sequence[Row]) -> pd.DataFrame:
        values = dict.fromkeys(STATISTIC_NAMES, 0.0) | {"n_answer": 80.0}
        told = {"state": "scored", "reason": "", "conversation_tokens": 0, **values}
        return pd.DataFrame({name: [told[name]] * len(rows) for name in STATISTIC_COLUMNS})

    def tally(self, table: pd.DataFrame) -> Tally:
        return Tally(len(table))


def write_world(folder: Path, student: Path, rows: int) -> dict[str, Any]:
    """Questions and the answers of 30 teachers, one in seven of them wrong; the experiment as a tree."""
    questions, rng = max(1, rows // TEACHERS), random.Random(0)
    words = [f"word{i}" for i in range(1000)]
    texts = [f"{i}: {' '.join(rng.choices(words, k=12))}?" for i in range(questions)]
    for name, part in (("train", texts), ("evaluate", [f"held out {i}?" for i in range(10)])):
        with open(folder / f"{name}.jsonl", "w") as file:
            for i, text in enumerate(part):
                file.write(
                    json.dumps({"id": f"{name}{i}", "question": text, "reference": str(i % 97)}) + "\n"
                )
    (folder / "answers").mkdir()
    for k in range(TEACHERS):
        order = list(range(questions))
        random.Random(k).shuffle(order)
        with open(folder / "answers" / f"t{k}.jsonl", "w") as file:
            for i in order:
                said = i % 97 if (i + k) % 7 else "no idea"
                body = (f"teacher {k} on {i}: " + SENTENCE * 5)[: CHARACTERS - 10]
                file.write(json.dumps({"id": f"train{i}", "teacher_output": f"{body}\nA: {said}"}) + "\n")
    return {
        "name": "size",
        "store": str(folder / "store"),
        "runs": str(folder / "runs"),
        "questions": {"train": str(folder / "train.jsonl"), "evaluate": str(folder / "evaluate.jsonl")},
        "students": [{"name": "kid", "path": str(student)}],
        "arms": [{"name": "scas", "rule": "groups", "cost": "scas", "groups": 5}],
        "teachers": [
            {"kind": "file", "name": f"t{k}", "path": str(folder / "answers" / f"t{k}.jsonl")}
            for k in range(TEACHERS)
        ],
        "verify": {"method": "exact"},
        "score": {"shard_size": 20000},
        "placement": {"score_workers": 2},
        "ray": {"num_cpus": 2, "object_store_mib": 200},
    }


def run_world(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One whole pass over a world that is there: seconds by stage, the driver's peak memory, and what it came
    to. What an earlier pass left in the store is used again.
    """
    import jobs.stages.score as score
    from cluster.storage import Place
    from jobs.experiment.parsing import parse_experiment
    from jobs.pipeline import harvest_of, look
    from jobs.results.outcome import Outcome, Start
    from jobs.run.progress import Terminal
    from jobs.run.run import open_run
    from jobs.stages.teachers import build_pool
    from jobs.systems.paths import paths_of
    from jobs.systems.select.algorithm import choose

    score.ScoreHandler = IdleStudent  # type: ignore[misc,assignment,attr-defined]
    e = parse_experiment(tree)
    marks = {"start": time.perf_counter()}
    with open_run(e, Place(str(folder)) / "run", Terminal()) as run:
        _ = run.host.cluster  # Ray's own start is not ours
        reset_peak_memory()
        marks["ray"] = time.perf_counter()
        looked = look(run, e)
        marks["questions"] = time.perf_counter()
        pool = build_pool(run, harvest_of(e), looked.hosted, looked.questions)
        marks["pool"] = time.perf_counter()
        start = Start(e, looked.questions, looked.held_out, pool, looked.students, {})
        outcome = Outcome(start, paths_of(e))
        now = {path: looked.students[path.student] for path in outcome.paths}
        (training,) = choose(run, start, outcome, now, 1).values()
        marks["choice"] = time.perf_counter()
    manifest = training.examples.manifest()
    names = list(marks)
    return {
        "seconds": {b: marks[b] - marks[a] for a, b in pairwise(names)},
        "whole_s": marks["choice"] - marks["ray"],
        "peak_mib": peak_memory() / 2**20,
        "examples": int(manifest["counts"]["examples"]),
        "came_to": [pool.id, pool.by_state, {n: p["sha256"] for n, p in manifest["parts"].items()}],
    }


def measure(rows: str, student: str) -> None:
    """A pool of so many answers; emits seconds by stage, answers a second, the driver's peak memory and the
    store's size.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = run_world(write_world(folder, Path(student), int(rows)), folder)
        sizes = [p.stat().st_size for p in (folder / "store").rglob("*") if p.is_file()]
        files = [p.stat().st_size for p in folder.glob("*/*.jsonl")]
    rate = int(rows) / found["whole_s"]
    disk = {"store_mib": sum(sizes) / 2**20, "store_files": len(sizes), "files_mib": sum(files) / 2**20}
    emit({"rows": int(rows), "answers_per_s": rate, **found, **disk})
