"""Where a run's work happens: Ray with its pool of actors and its training worker groups. Ray is started at
the first stage that has work to do.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from cluster.hosts import RayHosts
from cluster.placement import Node
from cluster.pool import ActorPool
from cluster.session import Cluster, RaySettings, connect, count_gpus
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.run.quarantine import SHARD_DEATHS
from training.job import TrainJob
from training.trainer import WorkerGroup, check_train_room, train_lanes


class Host(Protocol):
    """What a run needs of the machines. Tests without Ray pass a host that works in their own process."""

    @property
    def cluster(self) -> Cluster:
        """The cluster's nodes and resources. Connects on first use."""

    @property
    def pool(self) -> ActorPool:
        """The pool of actors."""

    @property
    def room(self) -> dict[str, float] | None:
        """Resources of a local run, known before anything starts; None when they are a cluster's."""

    def check_when_up(self, check: Callable[[Sequence[Node]], None]) -> None:
        """Look at the nodes of a cluster as soon as it is connected."""

    def train(
        self,
        jobs: Sequence[TrainJob],
        name: str,
        storage: Place,
        placement: Placement,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Train jobs after the pool's actors have been ended. A job that starts from another job's model is
        trained after it.
        """

    def release(self) -> None:
        """End the pool's actors, so that others have the machine."""

    def close(self) -> None:
        """End everything that was started here."""


class RayHost:
    """Ray at an address, or a local Ray. A run with nothing to do starts no Ray.

    Args:
        log_file: Ray's own log.
        deadline_s: if a shard takes longer, its actor counts as dead.
        say: called with a line whenever something is started or waited for.
    """

    def __init__(
        self, settings: RaySettings, log_file: Path, deadline_s: float, say: Callable[[str], None]
    ) -> None:
        self.settings, self.log_file, self.deadline_s, self.say = settings, log_file, deadline_s, say
        self._exits = ExitStack()
        self._cluster: Cluster | None = None
        self._pool: ActorPool | None = None
        self._check: Callable[[Sequence[Node]], None] | None = None

    @property
    def is_started(self) -> bool:
        return self._cluster is not None

    @property
    def cluster(self) -> Cluster:
        """The Ray cluster, connected on first use."""
        if self._cluster is None:
            address = self.settings.address
            self.say(f"starting Ray{'' if address is None else ' at ' + address} …")
            self._cluster = self._exits.enter_context(connect(self.settings, self.log_file))
            size = ", ".join(f"{v:g} {k}" for k, v in self._cluster.resources.items() if k in ("CPU", "GPU"))
            logs = f"its log: {self.log_file}; workers' logs: {self._cluster.log_directory}"
            page = f"; dashboard: {self._cluster.dashboard}" if self._cluster.dashboard else ""
            self.say(f"Ray is up with {size}{page}; {logs}")
            if self._check is not None and not self._cluster.grows:
                self._check(self._cluster.nodes)
        return self._cluster

    @property
    def pool(self) -> ActorPool:
        """The pool of actors."""
        if self._pool is None:
            grows = self.cluster.grows
            pool = ActorPool(
                RayHosts(), retries=SHARD_DEATHS, grows=grows, deadline_s=self.deadline_s, on_wait=self.say
            )
            self._pool = self._exits.enter_context(pool)
        return self._pool

    def check_when_up(self, check: Callable[[Sequence[Node]], None]) -> None:
        """Look at the nodes of a cluster as soon as it is connected, before anything is placed on it. Not at
        those of a cluster that grows.
        """
        self._check = check
        if self._cluster is not None and not self._cluster.grows:
            check(self._cluster.nodes)

    @property
    def room(self) -> dict[str, float] | None:
        """Resources of a local Ray, known before it starts; None when they are a cluster's."""
        if self.settings.address is not None or os.environ.get("RAY_ADDRESS"):
            return None
        return {
            "CPU": float(self.settings.num_cpus or os.cpu_count() or 1),
            "GPU": float(count_gpus(self.settings)),
        }

    def train(
        self,
        jobs: Sequence[TrainJob],
        name: str,
        storage: Place,
        placement: Placement,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Train jobs on `placement.train_lanes` Ray Train worker groups side by side.

        Raises:
            NoRoom: the group can never be placed.
            NotBegun: it was not placed, or did not get to work, within its deadline.
            TrainingFailed: with the worker's own error.
        """
        if any(not job.is_done for job in jobs):
            if not self.cluster.grows:
                check_train_room(
                    placement.train_workers * placement.train_lanes,
                    placement.train_needs,
                    self.cluster.nodes,
                )
            self.release()
        needs, workers = placement.train_needs, placement.train_workers
        train_lanes(
            jobs,
            placement.train_lanes,
            name=name,
            storage=storage,
            group=WorkerGroup(
                workers, needs, placement.max_failures, start_deadline_s=placement.train_start_deadline_s
            ),
            on_progress=on_progress,
            on_wait=self.say,
        )

    def release(self) -> None:
        """End the pool's actors."""
        if self._pool is not None:
            self._pool.release()

    def close(self) -> None:
        self._exits.close()
