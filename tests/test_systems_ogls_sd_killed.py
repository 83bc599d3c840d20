"""A run over own rollouts whose driver is killed goes on to the same weights, wherever it was: in a rollout,
in steering, in a step, between rounds.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.models.loading import ModelSource, load_model
from jobs.miniature.tasks import draw_episodes, work_out
from tests.conftest import make_small_world
from tests.runs import ROOT, write_experiment

pytestmark = [pytest.mark.slow, pytest.mark.ray]
PATIENCE_S = 240.0


def world(folder: Path, tiny_model: Path) -> dict[str, Any]:
    """Two rounds of one arm, long enough to be seen in each part."""
    tree = make_small_world(folder, tiny_model)
    worked = {e.question_id: work_out(e, "running") for e in draw_episodes(36, seed=11)}
    for name in ("train", "evaluate"):
        path = Path(tree["questions"][name])
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(r | {"solution": worked[r["id"]]}) + "\n" for r in rows))
    return tree | {
        "rounds": 2,
        "arms": [{"kind": "ogls_sd", "name": "ogls", "target": "ogls"}],
        "train": {"batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 5},
        "evaluate": {"metric": "loss"},
        "rollouts": {
            "group": 4,
            "questions": 12,
            "steps_per_round": 40,
            "max_new_tokens": 24,
            "solution_field": "solution",
            "template": "{question} like {solution}",
            "check_questions": 0,
            "shard_size": 8,
        },
    }


def start(file: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "jobs", "run", str(file)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(file: Path) -> None:
    command = [sys.executable, "-m", "jobs", "run", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def last_weights(folder: Path) -> bytes:
    """Of the second round."""
    stages = json.loads((folder / "runs" / "small" / "stages.json").read_text())
    (last,) = (s["directory"] for s in stages if s["kind"] == "train" and s["label"].endswith("round 2"))
    load_model(ModelSource(str(Path(last) / "model")))  # whole
    return (Path(last) / "model" / "model.safetensors").read_bytes()


def parts(kind: str) -> Callable[[Path], bool]:
    return lambda store: len(list(store.glob(f"tables/{kind}/*/*.parquet"))) >= 2


def steps(store: Path) -> bool:
    logs = list(store.glob("train/*/metrics.jsonl"))
    return any(log.read_bytes().count(b"\n") >= 12 for log in logs)


def first_round_done(store: Path) -> bool:
    return bool(list(store.glob("train/*/manifest.json")))


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(write_experiment(world(folder, tiny_model), folder))
    return last_weights(folder)


@pytest.mark.parametrize(
    ("where", "is_there"),
    [
        ("a rollout", parts("answers")),
        ("steering", parts("steering")),
        ("a step", steps),
        ("between rounds", first_round_done),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_killed_run_goes_on_to_the_same_weights(
    undisturbed: bytes, tiny_model: Path, tmp_path: Path, where: str, is_there: Callable[[Path], bool]
) -> None:
    file = write_experiment(world(tmp_path, tiny_model), tmp_path)
    process = start(file)
    deadline = time.monotonic() + PATIENCE_S
    while not is_there(tmp_path / "store"):
        assert process.poll() is None, f"the run ended before it was in {where}"
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polls the disk; nothing is asserted of how long it takes
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=90)  # Ray's workers end when they notice
    before = {p: p.stat().st_ino for p in (tmp_path / "store").glob("tables/*/*/*.parquet")}
    finish(file)
    assert last_weights(tmp_path) == undisturbed
    assert {p: p.stat().st_ino for p in before} == before  # what was made was not made again
