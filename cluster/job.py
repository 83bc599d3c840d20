"""The input and output of the pool: shards for one handler, their progress, and their results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cluster.hosts import Handler
from cluster.placement import Needs


@dataclass(frozen=True)
class Job:
    """Shards for one handler. `make` runs in the host. `shards` are (name, payload) pairs and are drawn
    lazily.

    A handler that returns a `Tally` is counted in Ray's metrics under its job's stage, the first word of the
    name if not given.
    """

    name: str
    make: Callable[[], Handler]
    shards: Iterable[tuple[str, Any]]
    replicas: int = 1
    needs: Needs = field(default_factory=Needs)
    stage: str = ""


@dataclass(frozen=True)
class Result:
    job: str
    shard: str
    value: Any


@dataclass
class Running:
    """A running job: the remaining shards, how often each shard has been tried, and which shards were with a
    host when it died.
    """

    job: Job
    source: Iterator[tuple[str, Any]]
    again: deque[tuple[str, Any]] = field(default_factory=deque)
    tries: dict[str, int] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)
    outstanding: int = 0
    load_deaths: int = 0
    exhausted: bool = False

    def next_shard(self) -> tuple[str, Any] | None:
        if self.again:
            return self.again.popleft()
        shard = next(self.source, None)
        self.exhausted = shard is None
        return shard

    @property
    def has_more(self) -> bool:
        return bool(self.again) or not self.exhausted


def metric_labels(job: Job) -> tuple[str, str]:
    """A job's stage and name, which label its metrics."""
    return job.stage or job.name.partition(" ")[0], job.name
