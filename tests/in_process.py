"""A host without Ray: handlers and trainings run in this process. For tests of what stages make, not of where
they run.

The pool is the real one, over the seam that it has for Ray's actors; training is the real loop on a real
DeepSpeed engine, as the only worker of its group.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from cluster.errors import TutelageError
from cluster.hosts import Failed, Handler, Host
from cluster.placement import Needs, Node
from cluster.pool import ActorPool
from cluster.session import Cluster
from cluster.storage import Place
from jobs.experiment.placement import Placement
from tests.worker_group import train
from training.job import TrainJob
from training.trainer import refuse_failed

ROOM = {"CPU": 64.0, "GPU": 0.0, "memory": 2.0**40}
ALONE = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
    "DS_ACCELERATOR": "cpu",
}


class HostHere(Host):
    """A host that takes a handler without collecting garbage first: in this process, which has read all of
    torch and transformers, that takes a third of a second.
    """

    def load(self, make: Callable[[], Handler]) -> None:
        self._handler = make()


class HostsHere:
    """Hosts in this process: a call waits until it is waited for, then runs."""

    def __init__(self) -> None:
        self.calls: dict[int, Callable[[], Any]] = {}

    def look(self) -> list[Node]:
        return [Node(ROOM)]

    def free(self) -> dict[str, float]:
        return ROOM

    def start(self, needs: Needs) -> Host:
        return HostHere()

    def call(self, host: Host, method: str, *arguments: Any) -> int:
        number = len(self.calls)
        self.calls[number] = lambda: getattr(host, method)(*arguments)
        return number

    def wait(self, futures: Sequence[int], timeout_s: float) -> list[int]:
        assert futures, "nothing runs, and the pool waits"
        return [min(futures)]

    def result(self, future: int) -> Any:
        threads = torch.get_num_threads()
        # as Ray gives an actor of one CPU; sums over more threads end in other last digits
        torch.set_num_threads(1)
        try:
            return self.calls[future]()
        except TutelageError:
            raise
        except Exception as error:
            raise Failed(f"{type(error).__name__}: {error}") from error
        finally:
            torch.set_num_threads(threads)

    def end(self, host: Host) -> None:
        """Nothing to end."""

    def leave(self, hosts: Sequence[Host]) -> None:
        for host in hosts:
            host.leave()

    def now(self) -> float:
        return 0.0


class InProcess:
    """Where a run's work happens: here. `trained` says which trainings were made; `room` is what checks
    beforehand are told of.
    """

    def __init__(self, room: dict[str, float] | None = None) -> None:
        self.cluster = Cluster(ROOM, (Node(ROOM),), "")
        self.pool = ActorPool(HostsHere(), retries=0)
        self.room = room or ROOM
        self.trained: list[str] = []

    def check_when_up(self, check: Callable[[Sequence[Node]], None]) -> None:
        check(self.cluster.nodes)

    def train(
        self,
        jobs: Sequence[TrainJob],
        name: str,
        storage: Place,
        placement: Placement,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Train in this process, one after another; there are no checkpoints to go on from."""
        import torch.distributed as dist

        from training.metrics import read_metrics

        pending = [job for job in jobs if not job.is_done]
        with mock.patch.dict(os.environ, ALONE):
            if not dist.is_initialized():
                dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
            with tempfile.TemporaryDirectory() as checkpoints:
                train(0, pending, Path(checkpoints))
        refuse_failed(pending)
        self.trained += [job.job_id for job in pending]
        on_progress(sum(len(read_metrics(Place(job.output))) for job in jobs), sum(job.steps for job in jobs))

    def release(self) -> None:
        self.pool.release()

    def close(self) -> None:
        self.pool.release()
