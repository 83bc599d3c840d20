"""Real engines: vLLM behind `kind: server`, with the pretrained SmolLM2, and transformers' own server.

vLLM has an environment of its own. Its Python is named by TUTELAGE_VLLM_PYTHON.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cluster.engine.guardian import names
from cluster.engine.own import end_engine
from cluster.models.messages import plain
from cluster.session import Cluster
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.server import Server
from jobs.experiment.students import Student
from jobs.miniature.pretrained.problems import draw_problems
from jobs.pipeline import harvest_of, look
from jobs.stages.answers import Ask
from jobs.stages.hosted import Draw, ModelAsker
from jobs.stages.served import ServedAsker
from jobs.stages.states import first_state
from jobs.stages.teachers import build_pool
from tests.conftest import write_jsonl
from tests.patience import Patience
from tests.runs import open_here
from tests.test_jobs_stages_served import adapter_on

VLLM = (
    "{python} -m vllm.entrypoints.openai.api_server --model {path} --served-model-name {name} --uds {socket} "
    "--dtype float32 --enforce-eager --max-model-len 512 --max-num-seqs 16 --max-logprobs 20"
)
ENV = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
}
GREEDY = Draw(0.0, 1.0, 40, 5, logprobs=True)


@pytest.fixture(scope="module")
def vllm() -> str:
    """The Python of vLLM's environment, or a skip with the reason."""
    python = os.environ.get("TUTELAGE_VLLM_PYTHON")
    if not python:
        pytest.skip("TUTELAGE_VLLM_PYTHON names no Python that has vLLM")
    return python


@pytest.fixture(scope="module", autouse=True)
def no_engine_left() -> Iterator[None]:
    yield
    end_engine()


@pytest.mark.slow
def test_vllm_says_what_the_plain_way_says_with_and_without_an_adapter(
    vllm: str, smollm2: Path, tmp_path: Path
) -> None:
    server = Server(command=f"{VLLM} --enable-lora --max-lora-rank 8", python=vllm, env=ENV)
    state = first_state(Student(name="smol", path=str(smollm2), server=server))
    trained = replace(state, source=replace(state.source, adapter=adapter_on(smollm2, tmp_path)), id="t" * 24)
    asks = [Ask(plain(p.question), 0) for p in draw_problems(6, 3, "train")]
    said = []
    for one in (state, trained):
        got = ServedAsker(one, GREEDY, compares=True).compute(asks)
        wanted = ModelAsker(replace(one, server=None), GREEDY, 0.0).compute(asks)
        for name in ("text", "finish", "prompt_tokens", "answer_tokens", "token_ids"):
            assert got[name].tolist() == wanted[name].tolist(), name
        for ours, theirs in zip(got["token_logprobs"], wanted["token_logprobs"], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
        said.append(got["text"].tolist())
    assert said[0] != said[1]


@pytest.mark.slow
def test_a_killed_vllm_of_two_loses_nothing_and_leaves_nothing(
    vllm: str, smollm2: Path, tmp_path: Path, ray_cluster: Cluster
) -> None:
    before = names()
    engine = {"command": VLLM, "python": vllm, "env": ENV, "replicas": 2, "num_cpus": 0.5}
    tree = world(tmp_path, smollm2) | {
        "teachers": [{"kind": "server", "name": "big", "path": str(smollm2), **engine}],
        "generate": {"max_new_tokens": 40, "shard_size": 4},
    }
    e = parse_experiment(tree)
    with open_here(tree, tmp_path, on_ray=True) as here:
        looked = look(here, e)
        killed = Killer(tmp_path)
        killed.start()
        build_pool(here, harvest_of(e), looked.hosted, looked.questions)
        (view,) = [v for (kind, _), v in here.stages.items() if kind == "generate"]
        answers, parts = view.read(), view.manifest()["parts"]
    assert killed.pid is not None
    assert len(answers) == len(looked.questions)
    assert answers["finish"].isin(["stop", "length"]).all()
    assert all("vllm" in part["engine"] for part in parts.values())
    patience = Patience(60)
    while engines() or names() - before:
        assert not patience.is_over, (engines(), names() - before)
        time.sleep(0.5)


def engines() -> list[int]:
    """Processes of engines that are there now, without their guardians."""
    said = {p.pid: " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])}
    return [pid for pid, words in said.items() if "vllm" in words and "guardian.py" not in words]


class Killer:
    """Kills the first process of one engine as soon as the first part has been written."""

    def __init__(self, directory: Path) -> None:
        import threading

        self.pid: int | None = None
        self.thread = threading.Thread(target=self._run, args=(directory,), daemon=True)

    def start(self) -> None:
        self.thread.start()

    def _run(self, directory: Path) -> None:
        while not list((directory / "store" / "tables").rglob("*.parquet")):
            time.sleep(0.1)
        self.pid = min(p for p in engines() if os.getpgid(p) == p)
        os.kill(self.pid, signal.SIGKILL)


@pytest.mark.slow
def test_transformers_own_server_is_a_teacher_of_texts(
    tiny_model: Path, small_world: dict[str, Any], tmp_path: Path
) -> None:
    program = Path(sys.executable).with_name("transformers")
    server = Server(
        command=f"{program} serve {{path}} --host 127.0.0.1 --port {{port}} --device cpu",
        env={"HF_HUB_OFFLINE": "1"},
    )
    state = first_state(Student(name="kid", path=str(tiny_model), server=server))
    asker = ServedAsker(state, replace(GREEDY, logprobs=False, limit=8), compares=False)
    rows = asker.compute([Ask(plain("2+2?"), 0), Ask(plain("chain: 7 t+4 u-2"), 0)])
    assert not asker.takes_ids
    assert (rows["finish"] != "failed").all(), rows["error"].tolist()
    assert (rows["text"] != "").all()


def world(tmp_path: Path, model: Path) -> dict[str, Any]:
    """Word problems for one student."""
    rows = [
        {"id": p.id, "question": p.question, "reference": str(p.result)}
        for p in draw_problems(40, 1, "train")
    ]
    write_jsonl(tmp_path / "train.jsonl", rows[:32])
    write_jsonl(tmp_path / "evaluate.jsonl", rows[32:])
    return {
        "name": "engines",
        "store": str(tmp_path / "store"),
        "runs": str(tmp_path / "runs"),
        "questions": {"train": str(tmp_path / "train.jsonl"), "evaluate": str(tmp_path / "evaluate.jsonl")},
        "students": [{"name": "smol", "path": str(model)}],
        "arms": [{"name": "random", "rule": "random"}],
        "verify": {"method": "numeric"},
        "ray": {"num_cpus": 2, "object_store_mib": 100},
    }
