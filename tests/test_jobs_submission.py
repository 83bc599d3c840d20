"""Runs as Ray jobs on a real head node that the test starts on loopback, with token authentication on."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import BadInput
from cluster.session import LOOPBACK_ONLY
from jobs.experiment.parsing import parse_experiment
from jobs.submission import JOB_COPY, entrypoint_of, keep_outside_job_copy, with_scheme
from tests.patience import Patience, end_of

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.ray


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head node of its own: the environment in which clients reach it, with HEAD,
    its job server's address.
    """
    home = tmp_path_factory.mktemp("home")
    port, dashboard = free_port(), free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment = {
        **kept,
        **LOOPBACK_ONLY,
        **token,
        "TUTELAGE_HOME": str(home),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    options = [
        "--head",
        "--block",
        "--num-cpus=2",
        "--object-store-memory=100000000",
        "--disable-usage-stats",
    ]
    options += [
        f"--port={port}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        "--node-ip-address=127.0.0.1",
    ]
    options += [f"--dashboard-agent-listen-port={free_port()}"]  # its default is taken where another Ray runs
    log = open(home / "head.log", "wb")  # noqa: SIM115
    started = subprocess.Popen(
        [BIN / "ray", "start", *options], env=environment, stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        patience = Patience(120)
        while not answers(f"{address}/api/version", token["RAY_AUTH_TOKEN"]):
            assert started.poll() is None, (home / "head.log").read_text()
            assert not patience.is_over, (home / "head.log").read_text()
            time.sleep(0.3)
        yield {**environment, "HEAD": address}
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        end_of(started, 60)
        log.close()


def answers(url: str, token: str) -> bool:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=5
        ) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture
def workplace(small_world: dict[str, Any], tmp_path: Path) -> Path:
    """A user's directory: an experiment file beside its data, with a relative store."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("train.jsonl", "evaluate.jsonl", "answers"):
        shutil.move(tmp_path / name, folder / name)
    tree = small_world | {"store": "store", "runs": "runs"}
    tree["questions"] = {"train": "train.jsonl", "evaluate": "evaluate.jsonl"}
    tree["teachers"] = [t | {"path": f"answers/{t['name']}.jsonl"} for t in tree["teachers"]]
    tree["verify"] = {"method": "function", "function": "statistics:check"}
    (folder / "mine.yaml").write_text(yaml.safe_dump(tree))
    for name in ("random", "selection", "queue"):  # Ray puts what it is sent first in every search path
        (folder / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    (folder / "statistics.py").write_text(
        "def check(answer, reference):\n    return answer.rpartition('A:')[2].strip() == reference\n"
    )
    return folder


def call(program: list[str], head: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program, cwd=folder, env=head, capture_output=True, text=True, check=False)


def tutelage(head: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call([sys.executable, "-P", "-m", "jobs", *arguments, "--address", head["HEAD"]], head, folder)


@pytest.mark.long
@pytest.mark.parametrize("again_by_ray", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_submitted_run_ends_with_its_verdict_and_a_second_one_goes_on_from_the_first(
    head: dict[str, str], workplace: Path, again_by_ray: bool
) -> None:
    done = tutelage(head, workplace, "submit", "mine.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy on held-out questions" in done.stdout
    assert (Path(head["TUTELAGE_HOME"]) / "runs" / "small" / "report.html").is_file()
    assert not (workplace / "store").exists()
    if not again_by_ray:
        return
    for name in ("random", "selection", "queue"):  # Ray's own command protects from none of them
        (workplace / f"{name}.py").unlink()
    by_ray = call(
        [
            str(BIN / "ray"),
            "job",
            "submit",
            "--address",
            head["HEAD"],
            "--working-dir",
            ".",
            "--",
            "python",
            "-P",
            "-m",
            "jobs",
            "run",
            "mine.yaml",
        ],
        head,
        workplace,
    )
    assert by_ray.returncode == 0, by_ray.stdout + by_ray.stderr
    assert "0 stages made" in by_ray.stdout


def test_an_address_without_a_scheme_is_tried_as_http_and_is_told_at_once_where_nothing_listens() -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        assert with_scheme(address) == f"http://{address}"
        server.shutdown()
    with pytest.raises(BadInput, match="no job server answers") as told:
        with_scheme(address)
    assert address in str(told.value)
    for other in ("auto", "ray://head:10001", f"http://{address}", "head"):
        assert with_scheme(other) == other
    with socket.create_server(("127.0.0.1", 0)) as plain:  # the cluster's own port speaks no HTTP

        def hang_up() -> None:
            peer, _ = plain.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"\x00\x01\x02 no HTTP\r\n")

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        address = f"127.0.0.1:{plain.getsockname()[1]}"
        assert with_scheme(address) == address
        thread.join()


@pytest.mark.long
def test_a_failed_job_returns_its_exit_status_and_its_one_line(head: dict[str, str], workplace: Path) -> None:
    done = tutelage(
        head, workplace, "submit", "mine.yaml", "teachers.0.path=answers/nobody.jsonl", "name=other"
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "nobody.jsonl" in done.stdout


@pytest.mark.long
def test_a_job_can_be_looked_at_and_stopped(head: dict[str, str], workplace: Path) -> None:
    started = tutelage(head, workplace, "submit", "mine.yaml", "--no-wait", "name=long", "train.steps=100000")
    assert started.returncode == 0, started.stderr
    job = started.stdout.split()[1]
    assert job in tutelage(head, workplace, "status", job).stdout
    assert "STOPPED" in tutelage(head, workplace, "stop", job).stdout
    unknown = tutelage(head, workplace, "status", "raysubmit_unknown")
    assert unknown.returncode == 2
    assert "no such job there" in unknown.stderr


@pytest.mark.long
def test_a_wrong_token_and_a_mistake_in_the_file_end_in_one_line(
    head: dict[str, str], workplace: Path
) -> None:
    refused = tutelage(head | {"RAY_AUTH_TOKEN": "0" * 64}, workplace, "submit", "mine.yaml")
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "no job server answers" in refused.stderr
    wrong = tutelage(head, workplace, "submit", "mine.yaml", "train.epoch=2")
    assert "epochs" in wrong.stderr
    assert "submitted" not in wrong.stdout
    elsewhere = tutelage(head, workplace / "answers", "submit", "../mine.yaml")
    assert "not in the working directory" in elsewhere.stderr


def test_a_relative_store_leaves_the_jobs_copy_and_an_absolute_one_stays(
    small_world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", "/shared/tutelage")
    copy = Path("/tmp/ray/session_x") / JOB_COPY / "_ray_pkg_1"
    moved = keep_outside_job_copy(
        parse_experiment(small_world | {"store": "store", "runs": "/elsewhere/runs"}), copy
    )
    assert (moved.store, moved.runs) == ("/shared/tutelage/store", "/elsewhere/runs")
    same = parse_experiment(small_world)
    assert keep_outside_job_copy(same, Path("/home/me")) == same


@pytest.mark.long
def test_a_cluster_without_tutelage_says_so_in_one_line(tmp_path: Path) -> None:
    """A head started from an environment that is not activated is enough: its `python` is another one."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -I "$@"\n')
    python.chmod(0o755)
    line = entrypoint_of("run", ["mine.yaml", "name=it's mine"])
    shell = ["/bin/sh", "-c", line]
    told: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True}
    bare = subprocess.run(shell, env={"PATH": str(python.parent)}, **told)
    assert bare.returncode == 2
    assert bare.stderr.count("\n") == 1
    assert "has no tutelage; install tutelage[all] on every node" in bare.stderr
    ours = subprocess.run(shell, env={"PATH": str(BIN)}, **told)
    assert "no experiment file there" in ours.stderr + ours.stdout


@pytest.mark.slow
def test_a_sweep_is_submitted_as_a_job(head: dict[str, str], workplace: Path) -> None:
    tree = yaml.safe_load((workplace / "mine.yaml").read_text())
    tree |= {"sweep": {"parameters": {"arm.lambda": [0.0]}}, "evaluate": {"metric": "loss"}, "name": "swept"}
    (workplace / "mine.yaml").write_text(yaml.safe_dump(tree))
    done = tutelage(head, workplace, "submit", "mine.yaml", "--sweep", "--limit", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 settings × 1 seeds = 2 trials" in done.stdout
    assert (Path(head["TUTELAGE_HOME"]) / "runs" / "swept-sweep" / "report.html").is_file()
