"""The last output of an actor's process. Ray's errors only say that it died, not why."""

from pathlib import Path
from typing import Any

LINES, CHARACTERS = 4, 600
NOISE = (":job_id:", ":actor_name:", ":task_name:")  # what Ray writes into each log for its own readers


def last_words(error: Any) -> str:
    """The end of a dead actor's standard error, on one line. If it is on another machine, where to read it.
    Empty if it is unknown, or if the process wrote nothing.

    Args:
        error: Ray's error of a call to the actor.
    """
    import ray
    from ray._private.state import actors
    from ray._private.worker import global_worker

    actor, node = getattr(error, "actor_id", None), global_worker.node
    about = (actors(actor) or {}) if actor and ray.is_initialized() and node is not None else {}
    if not about.get("Pid"):
        return ""
    address = about["Address"]
    if address["NodeID"] != ray.get_runtime_context().get_node_id():
        return f"see worker-*-{about['Pid']}.err in Ray's logs on {address['IPAddress']}"
    return tail(Path(node.get_session_dir_path()) / "logs", about["Pid"])


def tail(logs: Path, pid: int) -> str:
    """The last lines of a process's standard error in a folder of Ray's logs."""
    files = sorted(logs.glob(f"worker-*-{pid}.err"), key=lambda file: file.stat().st_mtime)
    if not files:
        return ""
    with open(files[-1], "rb") as file:
        file.seek(max(0, files[-1].stat().st_size - 2**16))
        lines = file.read().decode(errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip() and not line.startswith(NOISE)]
    return " | ".join(said[-LINES:])[-CHARACTERS:]
