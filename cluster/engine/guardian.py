"""The guardian of an engine. It starts the engine, and ends it with all its processes and shared memory when
the owner is gone, however the owner ended.

An engine consists of several processes. If its first process is killed, the others stay, with the memory of
the GPUs. A killed owner cannot end them. So this small process watches the owner and ends the engine. The
owner holds the other end of a pipe. When the pipe is closed, the guardian ends the engine's process group,
removes the names in /dev/shm that the group had open, and removes the engine's directory.

Run as a script by `cluster.engine.process`, with the standard library alone. It is neither in the owner's
process group nor the owner's child, because Ray kills both with the owner.

    guardian.py DIRECTORY LOG COMMAND...

Its standard output says `pid N` when the engine has started, and `ended REASON` when all is over.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SHARED = Path("/dev/shm")
LOOKS_S = 0.5  # seconds between two looks at the engine
PATIENCE_S = 15.0  # seconds that a terminated engine may take before it is killed
told_to_end: list[int] = []


def main(directory: str, log: str, *command: str) -> None:
    """Guard one engine until it or its owner ends."""
    if os.fork():
        os._exit(0)  # the guardian goes on as nobody's child
    os.setsid()
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: told_to_end.append(number))
    before, opened, reason = names(), set[Path](), ""
    try:
        with open(log, "ab") as out:
            engine = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=directory,
                start_new_session=True,
            )
    except OSError as error:
        reason = str(error)
    else:
        say(f"pid {engine.pid}")
        while not owner_is_gone() and engine.poll() is None:
            opened |= opened_by(engine.pid)
        opened |= opened_by(engine.pid)
        end(engine, opened)
        reason = f"with {engine.returncode}"
    for name in opened - before:
        with contextlib.suppress(OSError):
            name.unlink()
    shutil.rmtree(directory, ignore_errors=True)
    say(f"ended {reason}")


def say(line: str) -> None:
    """Tell the owner, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())


def owner_is_gone() -> bool:
    """Wait a moment. Whether the owner's end of the pipe has been closed by then, or SIGTERM has come."""
    ready, _, _ = select.select([0], [], [], LOOKS_S)
    return bool(told_to_end) or (bool(ready) and not os.read(0, 1))


def end(engine: subprocess.Popen[bytes], opened: set[Path]) -> None:
    """Terminate the process group, kill what is left of it, and wait until it is gone."""
    for how, seconds in ((signal.SIGTERM, PATIENCE_S), (signal.SIGKILL, PATIENCE_S)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(engine.pid, how)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            engine.poll()
            opened |= opened_by(engine.pid)
            if not is_there(engine.pid):
                return
            time.sleep(LOOKS_S / 5)


def is_there(group: int) -> bool:
    """Whether a process group has any process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def names() -> set[Path]:
    """The names of shared memory on this machine."""
    return set(SHARED.iterdir()) if SHARED.is_dir() else set()


def opened_by(group: int) -> set[Path]:
    """The names of shared memory that a process group has mapped or open. Empty where there is no /proc."""
    found = set[Path]()
    for process in members(group):
        with contextlib.suppress(OSError):
            for line in (process / "maps").read_text(errors="replace").splitlines():
                _, slash, rest = line.partition("/")
                if (slash + rest).startswith(f"{SHARED}/"):
                    found.add(Path(slash + rest))
        with contextlib.suppress(OSError):
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(link)
                    if target.startswith(f"{SHARED}/"):
                        found.add(Path(target))
    return found


def members(group: int) -> Iterator[Path]:
    """The directories in /proc of a process group's processes."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, ProcessLookupError):
            if os.getpgid(int(process.name)) == group:
                yield process


if __name__ == "__main__":
    main(*sys.argv[1:])
