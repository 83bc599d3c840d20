"""Connecting to Ray: an existing cluster by address, or a local one with resources stated on purpose.

RAY_AUTH_MODE and LOOPBACK_ONLY have to be set before Ray is imported, so nothing outside this module may
import Ray first. A local Ray listens on this machine's loopback address only, and asks every caller for a
token that lives in this process's environment and in no file.
"""

import logging
import math
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from cluster.errors import BadInput, NoRoom
from cluster.own_modules import inherited
from cluster.placement import Node
from cluster.threads import wait_asleep

MIB = 1024 * 1024
# Ray's own switch for laptops: a node uses the loopback address. `_node_ip_address` cannot do that, because
# Ray replaces a loopback address there by the machine's.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
QUIET_ENVIRONMENT = {
    "RAY_DEDUP_LOGS": "1",
    # Ray Train polls its workers this often; the default 2 s is longer than a short training
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tune's own progress reports, which `verbose=0` silences only in their old form
    "RAY_AIR_NEW_OUTPUT": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # a Ray that is ended while it starts has no work to hand over, so it need not wait half a minute for that
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    # otherwise Tune takes Ctrl-C as the end of the sweep, and half a sweep as a whole one
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


API_SERVER = "RAY_API_SERVER_ADDRESS"
LONGEST_FOLDER = 40  # bytes: Ray adds up to 66 for a socket's path, of which 107 may be used
DASHBOARD_PORT = 8265


@dataclass(frozen=True)
class RaySettings:
    """The Ray to run on. `address` None starts a local Ray, unless RAY_ADDRESS (set inside a Ray job) names a
    cluster.

    `auth` is token or disabled. A local Ray uses a token unless told otherwise; a cluster's mode comes from
    `auth`, else from the environment (RAY_AUTH_MODE, RAY_AUTH_TOKEN), as Ray's own clients do. `listen` is
    where a local Ray can be reached: loopback, or network for every address of this machine, which needs the
    token. `dashboard` starts a local Ray's dashboard. `autoscaling` says that the cluster at `address` starts
    nodes when they are asked for: nothing is refused or held back for what is there now.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    object_store_mib: int = 256
    auth: Literal["token", "disabled"] | None = None
    listen: Literal["loopback", "network"] = "loopback"
    dashboard: bool = False
    autoscaling: bool = False


@dataclass(frozen=True)
class Cluster:
    """A connected Ray: its resources in total and of each node, and the places of its logs and its
    dashboard.
    """

    resources: dict[str, float]
    nodes: tuple[Node, ...]
    log_directory: str
    grows: bool = False
    dashboard: str = ""


@contextmanager
def connect(settings: RaySettings, log_file: Path | None = None) -> Iterator[Cluster]:
    """Connect to Ray during a `with` block. A Ray that is started here is ended here; others are not.

    Raises:
        NoRoom: more CPUs asked for than this machine has.
        BadInput: no cluster answers at the address, or a Ray that the network reaches without a token.
    """
    address = set_environment(settings)
    import ray

    if ray.is_initialized():
        yield _describe(settings.autoscaling)
        return
    _send_chatter_to(log_file)
    known = os.environ.get(API_SERVER)
    try:
        with signals_kept():
            ray.init(
                log_to_driver=False,
                logging_level=logging.WARNING,
                job_config=_job_config(),
                **_where(settings, address),
            )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise BadInput(
            "no Ray cluster answers",
            address,
            "a running head node",
            f"check the address and the token ({error})",
        ) from error
    try:
        yield _describe(settings.autoscaling)
    finally:
        ray.shutdown()
        if known is None:
            os.environ.pop(API_SERVER, None)
        else:
            os.environ[API_SERVER] = known


def _where(settings: RaySettings, address: str | None) -> dict[str, Any]:
    """Ray's arguments on where to run: a cluster's address, or the size of a local Ray."""
    if address is not None:  # its nodes do not inherit this process's environment
        return {"address": address, "runtime_env": {"env_vars": inherited()}}
    return {
        "address": "local",
        "num_cpus": settings.num_cpus or os.cpu_count(),
        "num_gpus": count_gpus(settings),
        "object_store_memory": settings.object_store_mib * MIB,
        "include_dashboard": settings.dashboard,
        "dashboard_port": dashboard_port(settings),
        **short_folder(),
    }


def short_folder() -> dict[str, str]:
    """Where Ray keeps its sessions if the usual folder's path is too long for its sockets, as TMPDIR often is
    under Slurm. Empty if it is short enough.

    Raises:
        BadInput: /tmp cannot be used instead.
    """
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(usual.encode()) <= LONGEST_FOLDER:
        return {}
    if not os.access("/tmp", os.W_OK | os.X_OK):
        raise BadInput(
            "TMPDIR is too long for Ray's sockets",
            usual,
            f"at most {LONGEST_FOLDER} bytes",
            "set a shorter one",
        )
    return {"_temp_dir": "/tmp/ray"}


class _NoFolders(list[str]):
    """The folders that Ray puts first in its workers' search path. It stays empty, whatever is added."""

    def extend(self, _folders: Iterable[str]) -> None:
        pass


def _job_config() -> Any:
    """Ray's settings of this job, without the script's folder and the current one: a file in them named like
    a library's would be imported instead of it in every worker.
    """
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _NoFolders()
    return config


@contextmanager
def signals_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block.

    Ray installs a Python handler that ends the process with status 1, and another one below Python that ends
    it with a trace. A signal that comes while Ray starts reaches the first one, which ends the process as
    Ctrl-C would.
    """
    handler = signal.getsignal(signal.SIGTERM)
    ours = callable(handler) and threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit as error:
        if ours:
            raise KeyboardInterrupt from error
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, handler)


def set_environment(settings: RaySettings) -> str | None:
    """Set the environment that Ray reads when it is imported. Returns the address of the cluster to join, or
    None for a local Ray.

    Raises:
        NoRoom, BadInput: as `connect`.
    """
    address = settings.address or os.environ.get("RAY_ADDRESS")
    if settings.auth is not None:
        os.environ["RAY_AUTH_MODE"] = settings.auth
    elif address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    for key, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    wait_asleep()
    # a local machine is not preempted
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0" if address is None else "1")
    if address is None:
        refuse_more_than_here(settings)
        if settings.listen == "loopback":
            os.environ.update(LOOPBACK_ONLY)
        elif os.environ["RAY_AUTH_MODE"] == "disabled":
            raise BadInput(
                "without a token anyone on the network could run code on this Ray",
                "auth: disabled",
                "auth: token",
                "or listen: loopback",
            )
        if os.environ["RAY_AUTH_MODE"] == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return address


def dashboard_port(settings: RaySettings) -> int | None:
    """The port of a local Ray's dashboard: Ray's default if it is free. All processes get it through the
    environment. Otherwise they would use the address of the newest Ray on this machine.
    """
    if not settings.dashboard:
        return None
    port = next(p for p in (free_port(DASHBOARD_PORT), free_port(0)) if p)
    os.environ[API_SERVER] = f"http://127.0.0.1:{port}"
    return port


def free_port(wanted: int) -> int | None:
    """A free port of loopback: the wanted one, or any for 0. None if the wanted one is taken."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def refuse_more_than_here(settings: RaySettings) -> None:
    """Refuse a local Ray with more CPUs than this machine has: its workers would starve one another."""
    have = os.cpu_count() or 1
    if settings.num_cpus is not None and settings.num_cpus > have:
        raise NoRoom(
            "ray.num_cpus is more than this machine has",
            settings.num_cpus,
            f"at most {have}",
            "lower ray.num_cpus",
        )


def count_gpus(settings: RaySettings) -> int:
    """The number of GPUs of a local Ray: the number in the settings, otherwise this machine's."""
    if settings.num_gpus is not None:
        return settings.num_gpus
    import torch

    return torch.cuda.device_count()


def _describe(grows: bool) -> Cluster:
    import ray
    from ray._private.worker import global_worker

    def kept(found: dict[str, float]) -> dict[str, float]:
        return {k: float(v) for k, v in found.items() if k in ("CPU", "GPU", "memory")}

    nodes = tuple(
        Node(kept(node["Resources"]), dict(node["Labels"])) for node in ray.nodes() if node["Alive"]
    )
    logs = str(Path(global_worker.node.get_session_dir_path()) / "logs") if global_worker.node else ""
    resources = dict.fromkeys(("CPU", "GPU", "memory"), math.inf) if grows else kept(ray.cluster_resources())
    return Cluster(resources, nodes, logs, grows, os.environ.get(API_SERVER, ""))


def _send_chatter_to(log_file: Path | None) -> None:
    """Route the log records of Ray and its libraries to a file instead of the terminal."""
    if log_file is None:
        return
    log_file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    for name in ("ray", "ray.train", "ray.tune", "ray.data"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
