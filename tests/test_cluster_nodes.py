"""Several nodes: actors land where their labels say, and results are byte for byte those of one node, also
when a node dies.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.session import LOOPBACK_ONLY
from tests.patience import end_of, wait_until
from tests.runs import choose

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.ray


class Nodes:
    """Three nodes, zones a (the head), b and c, in a process of their own."""

    def __init__(self, log: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**kept, **LOOPBACK_ONLY, **token, "HF_HUB_OFFLINE": "1"}
        self.log = open(log, "wb")  # noqa: SIM115
        command = [sys.executable, "-m", "tests.three_nodes"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdin=pipe, stdout=pipe, stderr=self.log, text=True
        )
        self.address = self._line()
        assert ":" in self.address, log.read_text()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self, zone: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"kill {zone}\n")
        self.process.stdin.flush()
        assert self._line() == f"killed {zone}"

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        wait_until(lambda: self.process.poll() is not None, 60)
        self.log.close()

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.use_nodes", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=pipe, stderr=pipe, text=True)


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = end_of(process, 200)
    assert process.returncode == 0, out + err
    return dict(json.loads(out.splitlines()[-1]))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    found = Nodes(tmp_path_factory.mktemp("nodes") / "nodes.log")
    yield found
    found.close()


def experiment(small_world: dict[str, Any], tiny_model: Path, folder: Path, **changes: Any) -> Path:
    """The small world with a hosted teacher beside the files, over small shards, in a store of its own."""
    hosted = {"kind": "model", "name": "dan", "path": str(tiny_model), **changes.pop("teacher", {})}
    tree = {
        **small_world,
        "store": str(folder / "store"),
        "teachers": [*small_world["teachers"], hosted],
        **changes,
    }
    tree |= {"score": {"shard_size": 4}, "generate": {"max_new_tokens": 24, "shard_size": 4}}
    folder.mkdir()
    (folder / "tree.json").write_text(json.dumps(tree))
    return folder / "tree.json"


@pytest.mark.slow
def test_actors_and_train_workers_land_where_their_labels_say_and_what_no_node_has_is_refused(
    nodes: Nodes, tiny_model: Path, tmp_path: Path
) -> None:
    got = result(nodes.start("where", nodes.address, str(tiny_model), str(tmp_path)))
    assert got["found"] == [["a", "a"], ["b", "b"], ["c", "c"]]
    assert "lost cannot be placed on this cluster; got 1 CPU, zone=z" in got["refused"]
    assert "zone=b" in got["refused"]
    assert got["train_zone"] == "b"
    assert "9999 GiB" in got["train_refused"]


@pytest.mark.long
def test_three_nodes_choose_byte_for_byte_what_one_does_also_when_one_of_them_dies(
    nodes: Nodes, small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    alone = experiment(small_world, tiny_model, tmp_path / "one")
    one = {
        name: chosen.stage.manifest()["parts"]
        for name, chosen in choose(json.loads(alone.read_text()), alone.parent)[0].items()
    }
    anywhere = {
        "ray": {"address": nodes.address},
        "placement": {"score_workers": 3},
        "teacher": {"replicas": 3},
    }
    running = nodes.start("choose", str(experiment(small_world, tiny_model, tmp_path / "killed", **anywhere)))
    parts = tmp_path / "killed" / "store" / "tables" / "answers"
    wait_until(lambda: list(parts.glob("*/*.parquet")) or running.poll() is not None, 120)
    nodes.kill("c")
    assert result(running) == one
