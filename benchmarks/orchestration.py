"""What Ray costs: the scoring stage against one process, shards through an actor that does nothing, and
planning at scale.

python -m benchmarks.orchestration [--quick]
python -m benchmarks.orchestration --rows 300000      a whole pool of that many answers, see
benchmarks/size.py
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks import size
from benchmarks.measurement import emit, finish, in_fresh_process, peak_memory, reset_peak_memory, spread
from cluster.job import Job
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.messages import plain
from cluster.models.rendering import Renderer
from cluster.placement import Needs
from cluster.pool import ActorPool
from cluster.session import RaySettings, connect
from cluster.storage import Place
from jobs.experiment.stages import Score
from jobs.files.answers import Row
from jobs.run.rows import PartWriter
from jobs.run.sliced_views import Part
from jobs.run.tables import Table
from jobs.stages.score import owner_of
from jobs.stages.scorer import ScoreHandler, key_of, score_rows, shards_of
from jobs.stages.states import first_state

SHARD, TEACHERS = 256, 6
QUESTION_CHARACTERS = 235  # the mean of GSM8K's questions


class DoNothing:
    """A handler that takes a shard of answers and only counts them."""

    def __call__(self, shard: tuple[str, list[Row]]) -> int:
        return len(shard[1])


def episode_rows(questions: int) -> list[Row]:
    """Answers of the miniature world's dialects, as a pool would hold them."""
    from jobs.miniature.tasks import DIALECTS, draw_episodes, work_out

    dialects = (list(DIALECTS) * TEACHERS)[:TEACHERS]
    return [
        Row(
            f"t{k}/{e.question_id}",
            e.question_id,
            f"t{k}",
            plain(e.question),
            work_out(e, dialect) + f" {'so ' * k}",
        )
        for e in draw_episodes(questions, seed=5)
        for k, dialect in enumerate(dialects)
    ]


def make_student(directory: Path) -> Path:
    """A model of the miniature world's shape (0.3M parameters), not trained."""
    from jobs.miniature.initial_model import make_initial_model

    make_initial_model(directory, seed=1)
    return directory


def measure_one_process(student: str, questions: str) -> None:
    """Render and score in this process, with all its threads."""
    source = ModelSource(student)
    from selection.scoring import Scorer

    renderer, shards = Renderer(load_tokenizer(source)), shards_of(episode_rows(int(questions)), SHARD)
    scorer = Scorer(load_model(source), renderer.special_ids)
    score_rows(shards[0][1], renderer, scorer, 4096)
    began = time.perf_counter()
    for _, rows in shards[1:]:
        score_rows(rows, renderer, scorer, 4096)
    emit({"answers_per_s": sum(len(rows) for _, rows in shards[1:]) / (time.perf_counter() - began)})


def measure_stage(student: str, questions: str) -> None:
    """The same through the pool, two actors of one core each; the clock starts with the second finished
    shard.
    """
    from jobs.experiment.students import Student

    state, rows = first_state(Student(name="kid", path=student)), episode_rows(int(questions))
    shards = [(name, chunk) for name, chunk in shards_of(rows, SHARD)]
    began = time.perf_counter()
    arrived: list[tuple[float, int]] = []
    with (
        tempfile.TemporaryDirectory() as out,
        connect(RaySettings(num_cpus=2, object_store_mib=100), Path(out) / "ray.log"),
    ):
        make = partial(PartWriter, partial(ScoreHandler, state, Score(), 0.0), Needs(), "benchmark")
        table = Table(Place(out), owner_of(state, Score()))
        parts = [
            (name, Part(name, table, [key_of(row) for row in chunk], chunk, True)) for name, chunk in shards
        ]
        with ActorPool() as pool:
            for result in pool.run([Job("score", make, parts, 2, Needs(1.0))]):
                arrived.append((time.perf_counter(), result.value.items))
    rate = sum(n for _, n in arrived[2:]) / (arrived[-1][0] - arrived[1][0])
    emit({"answers_per_s": rate, "startup_s": arrived[0][0] - began})


def measure_nothing(questions: str) -> None:
    """Answers a second through an actor that does nothing: cutting shards, sending rows,
    collecting results.
    """
    rows = episode_rows(int(questions))
    with (
        tempfile.TemporaryDirectory() as out,
        connect(RaySettings(num_cpus=2, object_store_mib=100), Path(out) / "ray.log"),
        ActorPool() as pool,
    ):
        list(pool.run([Job("warm", DoNothing, [("w", ("w", rows[:10]))], 2, Needs(1.0))]))
        began = time.perf_counter()
        shards = [(name, (name, chunk)) for name, chunk in shards_of(rows, SHARD)]
        done = sum(r.value for r in pool.run([Job("nothing", DoNothing, shards, 2, Needs(1.0))]))
        seconds = time.perf_counter() - began
    emit({"answers_per_s": done / seconds, "answers": done})


def measure_plan(folder: str, questions: str) -> None:
    """Plan an experiment of many questions and 30 teachers; peak memory of this process,
    libraries included.
    """
    from cluster.storage import Place
    from jobs.experiment.parsing import load_experiment
    from jobs.plan import make_plan
    from jobs.run.progress import Terminal
    from jobs.run.run import open_run

    reset_peak_memory()
    began = time.perf_counter()
    experiment = load_experiment(Path(folder) / "experiment.yaml")
    with open_run(experiment, Place(folder) / "run", Terminal(), "plan") as run:
        rows = make_plan(run, experiment)
    emit(
        {
            "peak_mib": peak_memory() / 2**20,
            "seconds": time.perf_counter() - began,
            "rows": len(rows),
            "questions": int(questions),
        }
    )


def write_large_experiment(folder: Path, student: Path, questions: int) -> None:
    """An experiment file over `questions` made-up questions and 30 endpoint teachers."""
    rng, words = random.Random(0), [f"word{i}" for i in range(1000)]
    for name, count in (("train", questions), ("evaluate", 100)):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for i in range(count):
                text = f"{name} {i}: " + " ".join(rng.choices(words, k=QUESTION_CHARACTERS // 8))
                file.write(
                    json.dumps(
                        {"id": f"{name}-{i}", "question": text[:QUESTION_CHARACTERS], "reference": str(i)}
                    )
                    + "\n"
                )
    teachers = [
        {"kind": "endpoint", "name": f"t{i}", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
        for i in range(30)
    ]
    experiment = {
        "name": "large",
        "store": str(folder / "store"),
        "runs": str(folder / "runs"),
        "questions": {"train": str(folder / "train.jsonl"), "evaluate": str(folder / "evaluate.jsonl")},
        "students": [{"name": "kid", "path": str(student)}],
        "arms": [{"name": "scas", "rule": "groups", "cost": "scas"}],
        "teachers": teachers,
    }
    (folder / "experiment.yaml").write_text(json.dumps(experiment), encoding="utf-8")


SIDES: dict[str, Callable[..., None]] = {
    "process": measure_one_process,
    "stage": measure_stage,
    "nothing": measure_nothing,
    "plan": measure_plan,
    "size": size.measure,
}


def measure_in_turns(student: Path, turns: int) -> dict[str, list[float]]:
    """The stage's share of one process's rate, its start, and the rate of doing nothing, turn by turn."""
    shares, startups, rates = [], [], []
    for _ in range(turns):
        plain, stage = (
            in_fresh_process(__spec__.name, "--measure", kind, str(student), "2400")
            for kind in ("process", "stage")
        )
        shares.append(stage["answers_per_s"] / plain["answers_per_s"])
        startups.append(stage["startup_s"])
        rates.append(in_fresh_process(__spec__.name, "--measure", "nothing", "5000")["answers_per_s"])
    return {"shares": shares, "startups": startups, "rates": rates}


def measure_size(rows: int) -> None:
    """A whole pool of this size around an idle student."""
    with tempfile.TemporaryDirectory() as name:
        student = make_student(Path(name) / "student")
        found = in_fresh_process(__spec__.name, "--measure", "size", str(rows), str(student))
    stages = ", ".join(f"{name} {seconds:,.1f}" for name, seconds in found["seconds"].items())
    print(
        f"{rows:,} answers: {found['answers_per_s']:,.0f} a second, wanted 20,000; the driver's peak "
        f"{found['peak_mib']:,.0f} MiB, wanted under 1,024; seconds: {stages}; {found['files_mib']:,.0f} MiB "
        f"of files gave {found['store_mib']:,.0f} MiB in {found['store_files']:,} files of the store",
        flush=True,
    )
    return finish("orchestration", {"size": found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one turn, 100,000 questions in the plan")
    parser.add_argument("--rows", type=int, help="answers of a whole pool around an idle student")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, *rest = options.measure
        return SIDES[kind](*rest)
    if options.rows:
        return measure_size(options.rows)
    turns, planned = (1, 100_000) if options.quick else (3, 1_000_000)
    with tempfile.TemporaryDirectory() as name:
        student = make_student(Path(name) / "student")
        found = measure_in_turns(student, turns)
        write_large_experiment(Path(name), student, planned)
        plan = in_fresh_process(__spec__.name, "--measure", "plan", name, str(planned))
    print(
        f"two one-core workers: {spread(found['shares'])} of one process with two threads, wanted 0.90; "
        f"first shard after {spread(found['startups'])} s"
    )
    print(f"doing nothing: {statistics.median(found['rates']):,.0f} answers/s, wanted 5,000")
    print(
        f"planning {planned:,} questions x 30 answers: {plan['peak_mib']:,.0f} MiB, "
        f"{plan['seconds']:,.0f} s, wanted under 1,024 MiB",
        flush=True,
    )
    figures: dict[str, Any] = {
        "startup_s": found["startups"],
        "stage_share": statistics.median(found["shares"]),
        "stage_shares": found["shares"],
        "nothing_answers_per_s": statistics.median(found["rates"]),
    }
    return finish("orchestration", figures | {"plan": plan})


if __name__ == "__main__":
    main()
