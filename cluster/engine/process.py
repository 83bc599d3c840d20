"""An engine as a process: a command, a private directory with a socket or a port on the loopback interface,
and a log. A guardian ends it with its owner (`guardian`).
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from cluster.engine import guardian
from cluster.engine.client import EngineClient, NoEngine
from cluster.errors import BadInput

SOCKET, HOST = "s", "127.0.0.1"
LONGEST = 100  # characters of a socket's path: the system takes 107
LOOKS_S = 0.5  # seconds between two questions whether the engine is ready
LINES, CHARACTERS = 3, 1200  # of a log's end in a message
# Lines that name a cause. Engines write them long before their last line.
CAUSE = re.compile(r"\w*(Error|Exception)\b|out of memory|No such|not found|CUDA error")
CAUSES = 3
# of our own environment, which the engine's Python must not take over
NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
FIELDS = ("python", "path", "revision", "name", "socket", "port", "key")


@dataclass(frozen=True)
class EngineCommand:
    """How an engine is started.

    Attributes:
        command: the words of a command, with fields in braces: `{python}`, `{path}` (the model's directory
            or hub id), `{revision}`, `{name}` (what calls call the model), and `{socket}` or `{port}`.
        python: the interpreter of the environment that has the engine.
        env: further environment variables. They may hold `{key}`, a random secret that calls carry.
        start_timeout_s: the seconds until the engine must be ready.
        timeout_s: the seconds that one call may take.
    """

    command: str
    python: str = sys.executable
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 1800.0
    timeout_s: float = 3600.0

    @property
    def has_socket(self) -> bool:
        return "{socket}" in self.command

    @property
    def names_model(self) -> bool:
        """Whether the command has `{name}`. Otherwise calls name the model by its directory."""
        return "{name}" in self.command

    @property
    def names_revision(self) -> bool:
        """Whether the command has `{revision}`, for a model of a hub."""
        return "{revision}" in self.command

    def identity(self, path: str, revision: str = "") -> str:
        """A digest of the command and of the weights that it loads."""
        said = json.dumps([self.command, self.python, sorted(self.env.items()), path, revision])
        return hashlib.sha256(said.encode()).hexdigest()[:16]


class Engine:
    """A running engine, as a context manager.

    Args:
        path: the model's directory.
        log: the file that gets the engine's output.
        revision: of a hub's model.

    Raises:
        BadInput: the engine ended before it was ready, or was not ready in time. Has its last lines.
    """

    def __init__(self, how: EngineCommand, path: str, log: Path, revision: str = "") -> None:
        self.log = log
        # its own name, so that no other engine on a port that it had before can answer for it
        name = f"model-{secrets.token_hex(4)}"
        self.model = name if how.names_model else path
        # what it was compared with the plain way for: a model's state, temperature, top_p
        self.agreed: set[tuple[str, float, float]] = set()
        self._directory = private_directory()
        self._guardian = Guardian(self._directory)
        port, key = (0 if how.has_socket else free_port()), secrets.token_hex(16)
        values = {
            "python": how.python,
            "path": path,
            "revision": revision,
            "name": name,
            "socket": str(self._directory / SOCKET),
            "port": str(port),
            "key": key,
        }
        words = [filled(word, values) for word in shlex.split(how.command)]
        env = {n: value for n, value in os.environ.items() if n not in NOT_INHERITED}
        env |= {n: filled(value, values) for n, value in how.env.items()}
        base = "http://engine" if how.has_socket else f"http://{HOST}:{port}"
        self.client = EngineClient(base, key, values["socket"] if how.has_socket else None, how.timeout_s)
        try:
            self._guardian.start(log, words, env)
            self._wait_until_ready(how, words)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether the engine's process is there."""
        return not self._guardian.has_ended

    @property
    def is_healthy(self) -> bool:
        """Whether the engine says that it can answer."""
        try:
            return self.client.get("/health") < 300
        except NoEngine:
            return False

    @property
    def last_lines(self) -> str:
        """The lines of the engine's log that name a cause, and its last lines, on one line."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 2**18))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError as error:
            return str(error)
        said = [line.strip()[: CHARACTERS // 4] for line in lines if line.strip()]
        causes = [line for line in said if CAUSE.search(line)]
        told = [*causes[:CAUSES], *causes[-CAUSES:], *said[-LINES:]]
        return " | ".join(dict.fromkeys(told))[-CHARACTERS:]

    def _wait_until_ready(self, how: EngineCommand, words: list[str]) -> None:
        until = time.monotonic() + how.start_timeout_s
        while not (self.is_healthy and self.is_running):
            late = time.monotonic() > until
            if late or not self.is_running:
                what = f"was not ready after {how.start_timeout_s:g} s" if late else "ended in its start"
                raise BadInput(
                    f"the engine {what}: {shlex.join(words)[:300]}",
                    self.last_lines or self._guardian.reason or "no output",
                    "an engine that serves this model, and answers GET /health",
                    f"run the command by hand; its log: {self.log} on {platform.node()}",
                )
            time.sleep(LOOKS_S)

    def close(self) -> None:
        """End the engine, and wait until it is gone."""
        self.client.close()
        self._guardian.close()


class Guardian:
    """The owner's ends of the pipes to a guardian.

    Args:
        directory: the engine's, which is removed with it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._owned: IO[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._lines, self._is_closed = b"", True
        self._before = guardian.names()

    def start(self, log: Path, words: list[str], env: Mapping[str, str]) -> None:
        """Start an engine under a guardian.

        Raises:
            BadInput: the command's program is not there.
        """
        if shutil.which(words[0], path=env.get("PATH")) is None:
            raise BadInput("the engine's command is not there", words[0], "a program", "give its whole path")
        script = [sys.executable, "-I", "-S", guardian.__file__, str(self.directory), str(log), *words]
        process = subprocess.Popen(
            script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, start_new_session=True
        )
        self._owned, self._said, self._is_closed = process.stdin, process.stdout, False
        process.wait()  # the guardian itself goes on, as nobody's child

    @property
    def has_ended(self) -> bool:
        """Whether the engine is over: the guardian has said so, or is gone itself."""
        while not self._is_closed and self._said is not None and select.select([self._said], [], [], 0)[0]:
            self._read()
        return self._is_closed or b"ended" in self._lines

    @property
    def reason(self) -> str:
        """How the engine ended, as the guardian says. Empty if it has said nothing."""
        _, _, said = self._lines.decode(errors="replace").partition("ended ")
        return said.strip()

    def _read(self) -> None:
        assert self._said is not None
        piece = os.read(self._said.fileno(), 4096)
        self._lines += piece
        self._is_closed = not piece

    def close(self) -> None:
        """Let the guardian end the engine, and wait for it. If the guardian was killed, end the engine."""
        if self._owned is not None:
            self._owned.close()
            while not self._is_closed:
                self._read()
        if self._said is not None:
            self._said.close()
        if b"ended" not in self._lines:
            started = re.search(rb"pid (\d+)", self._lines)
            if started is not None:
                self._end_group(int(started[1]))
            shutil.rmtree(self.directory, ignore_errors=True)

    def _end_group(self, group: int) -> None:
        """Kill an engine whose guardian was killed, and remove the shared memory that it has open."""
        opened = guardian.opened_by(group) - self._before
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        for name in opened:
            name.unlink(missing_ok=True)


def filled(word: str, values: Mapping[str, Any]) -> str:
    """A word of a command with its fields filled. Other braces, such as those of JSON, stay.

    >>> filled("--path={path}", {"path": "/m"}), filled('{"a": 1}', {"path": "/m"})
    ('--path=/m', '{"a": 1}')
    """
    for name in FIELDS:
        if name in values:
            word = word.replace("{" + name + "}", str(values[name]))
    return word


def log_file() -> Path:
    """Where an engine's output goes: beside the logs of Ray's workers, which its dashboard shows. Without Ray
    into the directory for temporary files.
    """
    name = f"engine-{os.getpid()}-{secrets.token_hex(4)}.log"
    worker = sys.modules.get("ray._private.worker")
    node = None if worker is None else worker.global_worker.node
    if node is None:
        return Path(tempfile.gettempdir()) / f"tutelage-{name}"
    return Path(node.get_session_dir_path()) / "logs" / name


def private_directory() -> Path:
    """Make a directory that only this user can enter, with a path that is short enough for a socket.

    Raises:
        BadInput: the machine's directories for temporary files have too long paths.
    """
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp"]):
        if Path(parent).is_dir() and len(f"{parent}/tutelage-12345678/{SOCKET}") <= LONGEST:
            return Path(tempfile.mkdtemp(prefix="tutelage-", dir=parent))
    raise BadInput(
        "the path of an engine's socket would be too long",
        tempfile.gettempdir(),
        f"at most {LONGEST} characters",
        "set TMPDIR to a short path, or use {port} in place of {socket}",
    )


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
