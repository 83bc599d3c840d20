"""The local Ray: reachable from this machine only, and a token on anything the network could reach."""

import os
import socket
import sys

import psutil
import pytest

from cluster import session as sessions
from cluster.errors import BadInput
from cluster.session import API_SERVER, Cluster, RaySettings, connect, dashboard_port


def test_nothing_of_a_local_ray_listens_beyond_loopback(ray_cluster: Cluster) -> None:
    session = ray_cluster.log_directory.removesuffix("/logs")
    ours = {p.pid for p in psutil.process_iter() if any(session in part for part in _command(p))}
    ours |= {child.pid for child in psutil.Process().children(recursive=True)}
    listening = [
        c.laddr.ip for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in ours
    ]
    assert len(listening) > 3
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}


def test_no_worker_looks_for_modules_in_the_current_folder_first(ray_cluster: Cluster) -> None:
    """Ray puts the driver's current folder and its script's before everything else."""
    import ray

    found = ray.get(ray.remote(lambda: [os.path.realpath(p) for p in sys.path]).remote())
    library = found.index(os.path.realpath(os.path.dirname(os.__file__)))
    assert os.path.realpath(os.curdir) not in found[:library]
    assert os.path.realpath(os.path.dirname(sys.argv[0])) not in found[:library]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_a_ray_that_the_network_reaches_needs_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(BadInput, match="anyone on the network could run code on this Ray"),
        connect(RaySettings(auth="disabled", listen="network")),
    ):
        sys.exit("connected")


def test_a_dashboard_takes_rays_port_or_a_free_one_and_is_named_to_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray's helpers asked the newest Ray of the machine for their own controller."""
    monkeypatch.delenv(API_SERVER, raising=False)
    assert dashboard_port(RaySettings()) is None
    assert API_SERVER not in os.environ
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("cluster.session.DASHBOARD_PORT", taken.getsockname()[1])
        port = dashboard_port(RaySettings(dashboard=True))
        assert port != taken.getsockname()[1]
    assert os.environ[API_SERVER] == f"http://127.0.0.1:{port}"
    assert dashboard_port(RaySettings(dashboard=True)) == sessions.DASHBOARD_PORT  # free again
