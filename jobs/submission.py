"""Runs as Ray jobs: `tutelage run` on a cluster's head, with the working directory sent along, its log
streamed back.

Ray deletes a job's copy of the working directory, so inside a job a relative `store` or `runs` means a
directory under TUTELAGE_HOME (by default ~/tutelage of the head node): that is how a run goes on when it is
submitted again.
"""

import asyncio
import http.client
import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from cluster.storage import is_uri
from jobs.experiment.schema import Experiment

NEVER_SENT = [
    ".venv",
    ".git",
    "store",
    "runs",
    "**/__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
]
SENT = "submitted"  # where a job's copy of its working directory holds what was sent
JOB_COPY = "runtime_resources/working_dir_files"
STARTING_S = 30.0
LISTENS_S = 5.0
NO_TUTELAGE = (
    "tutelage: the `python` of the cluster's nodes has no tutelage; install tutelage[all] on every node and "
    "activate its environment before `ray start`"
)
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def keep_outside_job_copy(experiment: Experiment, directory: Path) -> Experiment:
    """The experiment with `store` and `runs` that outlive a Ray job; unchanged outside a job's copy of a
    working directory.
    """
    if JOB_COPY not in directory.as_posix():
        return experiment
    home = Path(os.environ.get("TUTELAGE_HOME", "~/tutelage")).expanduser()
    moved = {
        k: v if is_uri(v) else str(home / v)
        for k, v in (("store", experiment.store), ("runs", experiment.runs))
    }
    return experiment.model_copy(update=moved)


def connect_to_jobs(address: str) -> Any:
    """A client of the cluster's job server.

    Args:
        address: `http://host:8265` or `host:8265`, the head node's dashboard. RAY_AUTH_MODE and
            RAY_AUTH_TOKEN are read from the environment.

    Raises:
        BadInput: nothing answers there, or the token is not its.
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    address = with_scheme(address)
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        what = str(error).strip().splitlines()[0]
        raise BadInput(
            "no job server answers",
            address,
            "http://HEAD:8265, and its RAY_AUTH_TOKEN where it wants one",
            what,
        ) from error


def with_scheme(address: str) -> str:
    """`http://host:port` for the `host:port` of something that speaks HTTP; any other address as it is. Ray
    would take it for the cluster's own port and try for most of a minute.

    Raises:
        BadInput: nothing listens there.
    """
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        return address
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=LISTENS_S)
    try:
        connection.request("GET", "/api/version")
        connection.getresponse()
    except (http.client.HTTPException, ConnectionResetError):
        return address
    except OSError as error:
        raise BadInput(
            "no job server answers", f"{address}: {error}", "http://HEAD:8265", "start the cluster's head"
        ) from error
    finally:
        connection.close()
    return f"http://{address}"


def entrypoint_of(command: str, arguments: Sequence[str]) -> str:
    """The shell line of a job. A cluster whose `python` has no tutelage, say because its head was started
    from an environment that is not activated, is told so in one line.
    """
    python = shlex.join(["python", "-P", "-m", "jobs", command, *arguments])
    test = "python -P -c 'import jobs.commands' 2>/dev/null"
    return f"if {test}; then exec {python}; fi; echo {shlex.quote(NO_TUTELAGE)} >&2; exit 2"


def submit_job(client: Any, command: str, file: Path, arguments: Sequence[str], directory: Path) -> str:
    """Submit `tutelage run FILE arguments`, or another command, with `directory` as the working directory;
    returns the job's id.

    Raises:
        BadInput: the file is not inside the directory, or the directory is too large to send.
    """
    try:
        inside = file.resolve().relative_to(directory.resolve())
    except ValueError as error:
        raise BadInput(
            "the experiment file is not in the working directory",
            file,
            f"a file under {directory}",
            "go there first",
        ) from error
    entrypoint = f"cd {SENT}; {entrypoint_of(command, [inside.as_posix(), *arguments])}"
    with one_folder_deeper(directory) as sent:
        return _submitted(client, entrypoint, {"working_dir": sent, "excludes": NEVER_SENT})


@contextmanager
def one_folder_deeper(directory: Path) -> Iterator[str]:
    """A folder that holds a directory as its only entry. Ray puts what it is sent first in the search path of
    all the job's processes, where a user's `random.py` or `training/` would be imported instead of the
    library's or ours.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / SENT).symlink_to(directory.resolve(), target_is_directory=True)
        yield folder


def _submitted(client: Any, entrypoint: str, environment: dict[str, Any]) -> str:
    """The id of a job, once the head is ready to take it.

    Raises:
        BadInput: it does not take it.
    """
    deadline = time.monotonic() + STARTING_S
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=environment))
        except (RuntimeError, ValueError) as error:
            if "No available agent" in str(error) and time.monotonic() < deadline:
                time.sleep(0.5)  # the head answers before its job agent does
                continue
            what = str(error).strip().splitlines()[-1]
            raise BadInput(
                "the job was not taken",
                what,
                "a running cluster",
                "keep data and models on storage its nodes see",
            ) from error


def follow(client: Any, job: str) -> int:
    """Print a job's log as it comes, until it ends; returns its exit code (130 for a stopped one)."""

    async def stream() -> None:
        async for text in client.tail_job_logs(job):
            print(text, end="", flush=True)

    asyncio.run(stream())
    while (info := _info(client, job)).status not in ENDED:
        time.sleep(0.2)
    if info.status == "SUCCEEDED":
        return 0
    return 130 if info.status == "STOPPED" else int(info.driver_exit_code or 1)


def describe(client: Any, job: str) -> str:
    """One line on a job: its state and what Ray says about it."""
    info = _info(client, job)
    return f"{job}: {info.status}{', ' + str(info.message) if info.message else ''}"


def stop(client: Any, job: str) -> str:
    """Ask a job to end, wait until it has, and say so; its finished work is kept."""
    _info(client, job)
    client.stop_job(job)
    while _info(client, job).status not in ENDED:
        time.sleep(0.2)
    return describe(client, job)


def _info(client: Any, job: str) -> Any:
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        what = str(error).strip().splitlines()[-1]
        raise BadInput("no such job there", job, "an id that submit printed", what[:200]) from error
