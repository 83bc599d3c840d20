"""Engines that we start: nothing of one is left behind, however it or its owner ends. What it says when it
fails is told.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cluster.engine.client import Refusal
from cluster.engine.process import LONGEST, SOCKET, Engine, EngineCommand, private_directory
from cluster.errors import BadInput
from tests.runs import ROOT

SCRIPT = f"{{python}} {Path(__file__).with_name('plain_engine.py')} --model {{path}}"
LONG_S = 60.0


def name_of_memory() -> str:
    return f"tutelage-test-{secrets.token_hex(4)}"


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + LONG_S
    while not what() and time.monotonic() < until:
        time.sleep(0.05)
    assert what()


def is_gone(pid: int) -> bool:
    """Whether a process has ended. Who is dead and not waited for yet has ended too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_an_engine_serves_and_leaves_nothing(tmp_path: Path) -> None:
    memory = name_of_memory()
    how = EngineCommand(f"{SCRIPT} --uds {{socket}} --shared {memory}")
    with Engine(how, "/weights", tmp_path / "log") as engine:
        reply = engine.client.post("/v1/completions", {"prompt": [1, 2, 3]})
        assert reply["choices"][0]["token_ids"] == [3, 2, 1]
        assert engine.is_running
        assert Path("/dev/shm", memory).exists()
        assert os.getpgid(reply["pid"]) != os.getpgid(0)
    assert not engine.is_running
    assert is_gone(reply["pid"])
    assert is_gone(reply["child"])
    assert not Path("/dev/shm", memory).exists()


@pytest.mark.parametrize("whom", ["owner", "engine"])
def test_a_kill_of_the_owner_or_of_the_engines_first_process_leaves_nothing(
    whom: str, tmp_path: Path
) -> None:
    memory = name_of_memory()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, f"{SCRIPT} --uds {{socket}} --shared {memory}", str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert owner.stdout is not None
    pid, child = map(int, owner.stdout.readline().split())
    assert Path("/dev/shm", memory).exists()
    os.kill(owner.pid if whom == "owner" else pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid) and is_gone(child))
    wait_for(lambda: not Path("/dev/shm", memory).exists())
    if whom == "engine":
        assert owner.stdout.readline() == "ended\n"
    owner.kill()
    owner.wait()


OWNER = """
import sys, time
from pathlib import Path
from cluster.engine.process import Engine, EngineCommand

engine = Engine(EngineCommand(sys.argv[1]), "/weights", Path(sys.argv[2]))
said = engine.client.post("/v1/completions", {"prompt": [1]})
print(said["pid"], said["child"], flush=True)
while engine.is_running:
    time.sleep(0.05)
print("ended", flush=True)
"""


def test_an_engine_that_ends_in_its_start_says_its_last_words(tmp_path: Path) -> None:
    how = EngineCommand(f"{SCRIPT} --uds {{socket}} --dies 'CUDA out of memory: 40 GiB wanted'")
    with pytest.raises(BadInput, match="ended in its start") as caught:
        Engine(how, "/weights", tmp_path / "log")
    assert "CUDA out of memory: 40 GiB wanted" in str(caught.value)
    assert str(tmp_path / "log") in str(caught.value)


def test_an_engine_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    memory = name_of_memory()
    how = EngineCommand(f"{SCRIPT} --uds {{socket}} --shared {memory} --never-ready", start_timeout_s=3)
    with pytest.raises(BadInput, match="was not ready after 3 s"):
        Engine(how, "/weights", tmp_path / "log")
    assert not Path("/dev/shm", memory).exists()


def test_an_engine_with_a_port_gets_a_key_by_its_environment(tmp_path: Path) -> None:
    how = EngineCommand(f"{SCRIPT} --port {{port}}", env={"ENGINE_KEY": "{key}"})
    with Engine(how, "/weights", tmp_path / "log") as engine:
        assert engine.client.post("/v1/completions", {"prompt": [5, 6]})["choices"][0]["token_ids"] == [6, 5]
        engine.client._http.headers["Authorization"] = "Bearer another"
        with pytest.raises(Refusal, match="401"):
            engine.client.post("/v1/completions", {"prompt": [5, 6]})


def test_the_path_of_a_socket_is_short_whatever_the_directory_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    directory = private_directory()
    assert len(str(directory / SOCKET)) <= LONGEST
    assert directory.stat().st_mode & 0o077 == 0
    directory.rmdir()


def test_an_engine_outlives_no_guardian_that_was_killed(tmp_path: Path) -> None:
    memory = name_of_memory()
    how = EngineCommand(f"{SCRIPT} --uds {{socket}} --shared {memory}")
    engine = Engine(how, "/weights", tmp_path / "log")
    said = engine.client.post("/v1/completions", {"prompt": [1]})
    directory = engine._directory
    (guard,) = [p.pid for p in psutil.process_iter(["cmdline"]) if is_guardian(p, directory)]
    os.kill(guard, signal.SIGKILL)
    wait_for(lambda: not engine.is_running)
    engine.close()
    wait_for(lambda: is_gone(said["pid"]) and is_gone(said["child"]))
    assert not directory.exists()
    assert not Path("/dev/shm", memory).exists()


def is_guardian(process: psutil.Process, directory: Path) -> bool:
    words = process.info["cmdline"] or []
    return str(directory) in words and any("guardian.py" in word for word in words)


def test_a_guardian_that_is_terminated_twice_ends_its_engine(tmp_path: Path) -> None:
    engine = Engine(EngineCommand(f"{SCRIPT} --uds {{socket}}"), "/weights", tmp_path / "log")
    said = engine.client.post("/v1/completions", {"prompt": [1]})
    (guard,) = [p.pid for p in psutil.process_iter(["cmdline"]) if is_guardian(p, engine._directory)]
    for _ in range(2):
        os.kill(guard, signal.SIGTERM)
        time.sleep(0.05)
    wait_for(lambda: is_gone(said["pid"]) and is_gone(said["child"]))
    wait_for(lambda: not engine.is_running)
    engine.close()
    assert not engine._directory.exists()


def test_a_log_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("tutelage-*"))
    with pytest.raises(BadInput, match="No such file or directory"):
        Engine(EngineCommand(f"{SCRIPT} --uds {{socket}}"), "/weights", tmp_path / "none" / "log")
    with pytest.raises(BadInput, match="no-such-engine"):
        Engine(EngineCommand("no-such-engine {path} {socket}"), "/weights", tmp_path / "log")
    assert set(Path(tempfile.gettempdir()).glob("tutelage-*")) <= before


def test_the_cause_is_told_that_stands_far_above_the_last_line(tmp_path: Path) -> None:
    words = "torch.OutOfMemoryError: CUDA out of memory" + chr(10) * 2 + chr(10).join(map(str, range(300)))
    how = EngineCommand(f"{SCRIPT} --uds {{socket}} --dies '{words}'")
    with pytest.raises(BadInput, match="CUDA out of memory"):
        Engine(how, "/weights", tmp_path / "log")


def test_the_engines_python_does_not_take_over_our_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    with Engine(EngineCommand(f"{SCRIPT} --uds {{socket}}"), "/weights", tmp_path / "log") as engine:
        pid = engine.client.post("/v1/completions", {"prompt": [1]})["pid"]
        assert "PYTHONPATH" not in psutil.Process(pid).environ()
