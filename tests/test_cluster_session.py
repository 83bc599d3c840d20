"""The local Ray: reachable from this machine only, and a token on anything the network could reach."""

import sys

import psutil
import pytest

from cluster.errors import BadInput
from cluster.session import Cluster, RaySettings, connect


def test_nothing_of_a_local_ray_listens_beyond_loopback(ray_cluster: Cluster) -> None:
    session = ray_cluster.log_directory.removesuffix("/logs")
    ours = {p.pid for p in psutil.process_iter() if any(session in part for part in _command(p))}
    ours |= {child.pid for child in psutil.Process().children(recursive=True)}
    listening = [
        c.laddr.ip for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in ours
    ]
    assert len(listening) > 3
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_a_ray_that_the_network_reaches_needs_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(BadInput, match="whatever anyone sends"),
        connect(RaySettings(auth="disabled", listen="network")),
    ):
        sys.exit("connected")
