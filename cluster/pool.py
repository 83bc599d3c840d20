"""One pool that maps shards over stateful Ray actors, for generating, scoring and evaluating alike.

A job is a handler (built once in the actor: it loads the model) and its shards. The pool keeps as many actors as
the cluster has room for, hands a finished job's actors to the next job of the same size, and so works through thirty
teachers in waves on a machine with room for two. An actor that dies is replaced and its shards run again; an
exception in our own code stops everything with the shard's name. Results come as they finish, in no fixed order.
"""

import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from cluster.errors import NoRoom, ShardFailed, TutelageError
from cluster.metrics import Metrics, Tally

Handler = Callable[[Any], Any]
# One shard runs while the next waits in the actor's queue, so that the actor is never idle for a round trip.
IN_FLIGHT_PER_ACTOR = 2
WAIT_NOTICE_S = 10.0
GIB = 2**30


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster has: resources by Ray's names (memory in bytes), and its labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{v:g} {k}" for k, v in self.resources.items() if k in ("CPU", "GPU")]
        parts += [f"{v / GIB:.1f} GiB" for k, v in self.resources.items() if k == "memory"]
        return ", ".join([*parts, *(f"{k}={v}" for k, v in sorted(self.labels.items()) if not k.startswith("ray.io/"))])


@dataclass(frozen=True)
class Needs:
    """What one actor asks of the cluster; `labels` are (name, value) pairs that its node must carry."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_gib: float = 0.0
    labels: tuple[tuple[str, str], ...] = ()

    def fits(self, free: Mapping[str, float]) -> bool:
        """Whether these free resources are enough; memory counts where it is known."""
        asked = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        if "memory" in free:
            asked["memory"] = self.memory_gib * GIB
        return all(amount <= free.get(name, 0.0) + 1e-9 for name, amount in asked.items())

    def fits_on(self, node: Node) -> bool:
        return self.fits(node.resources) and all(node.labels.get(name) == value for name, value in self.labels)

    def __str__(self) -> str:
        parts = [f"{self.num_cpus:g} CPU"]
        parts += [f"{self.num_gpus:g} GPU"] if self.num_gpus else []
        parts += [f"{self.memory_gib:g} GiB"] if self.memory_gib else []
        return ", ".join([*parts, *(f"{k}={v}" for k, v in self.labels)])


@dataclass(frozen=True)
class Job:
    """Shards for one handler. `make` runs in the actor; `shards` are (name, payload) pairs and are drawn lazily.

    A handler that returns a `Tally` is counted in Ray's metrics under its job's stage, the first word of the name if not given.
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


class _Host:
    """The actor: holds one handler at a time."""

    def __init__(self) -> None:
        self._handler: Handler | None = None

    def load(self, make: Callable[[], Handler]) -> None:
        self._handler = None
        _free_gpu_memory()
        self._handler = make()

    def run(self, payload: Any) -> Any:
        if self._handler is None:
            raise RuntimeError("the actor was asked to run a shard before it was given a handler")
        return self._handler(payload)


def _free_gpu_memory() -> None:
    """Return what the last model held, before the next one is loaded into the same process."""
    torch = sys.modules.get("torch")
    gc.collect()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class _Running:
    """A job under way: what is still to do, and how often each shard has been tried."""

    job: Job
    source: Iterator[tuple[str, Any]]
    again: deque[tuple[str, Any]] = field(default_factory=deque)
    tries: dict[str, int] = field(default_factory=dict)
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


@dataclass(eq=False)
class _Slot:
    """One living actor, the job it serves and what it has in flight (None is the loading call)."""

    actor: Any
    needs: Needs
    running: _Running | None = None
    in_flight: dict[Any, tuple[str, Any] | None] = field(default_factory=dict)
    ready: bool = False


def check_fits(name: str, needs: Needs, nodes: Sequence[Node]) -> None:
    """Refuse one actor that no node can ever hold.

    Raises:
        NoRoom: with what it asks for and what the nodes have.
    """
    if not any(needs.fits_on(node) for node in nodes):
        have = " or ".join(sorted({str(node) for node in nodes}))
        raise NoRoom(
            f"{name} cannot be placed on this cluster", needs, f"at most {have} on one node", "lower what it asks for, or its labels"
        )


class Pool:
    """Actors on a Ray cluster. Use as a context manager; `release` gives the cluster's resources back in between."""

    def __init__(
        self,
        resources: dict[str, float],
        *,
        nodes: Sequence[Node] | None = None,
        retries: int = 3,
        grows: bool = False,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.resources, self.nodes, self.retries, self.on_wait = resources, nodes or [Node(resources)], retries, on_wait
        self.grows = grows
        self._slots: list[_Slot] = []
        self._metrics = Metrics()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """End all actors."""
        for slot in self._slots:
            _kill(slot.actor)
        self._slots = []

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse a job whose single actor can never be placed.

        Raises:
            NoRoom: with what it asks for and what there is.
        """
        for job in jobs if not self.grows else ():
            check_fits(job.name, job.needs, self.nodes)

    def run(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Run all shards of all jobs; yields results as they finish.

        Raises:
            NoRoom: before anything starts.
            ShardFailed: a handler raised, or an actor died more than `retries` times on one shard. A TutelageError
                raised by the handler comes through as itself.
        """
        import ray

        self.check(jobs)
        waiting = deque(_Running(job, iter(job.shards)) for job in jobs)
        active: list[_Running] = []
        try:
            while waiting or active:
                self._admit(waiting, active)
                self._feed(active)
                self._make_room()
                active = [r for r in active if r.has_more or r.outstanding]
                futures = [f for slot in self._slots for f in slot.in_flight]
                if not futures:
                    continue
                began = time.monotonic()
                done, _ = ray.wait(futures, num_returns=1, timeout=WAIT_NOTICE_S)
                if not done and time.monotonic() - began >= WAIT_NOTICE_S:
                    self._say_what_it_waits_for()
                for future in done:
                    yield from self._collect(future)
        finally:
            for slot in self._slots:
                slot.running = None
            busy = [s for s in self._slots if s.in_flight]
            for slot in busy:
                self._drop(slot)

    def _admit(self, waiting: deque[_Running], active: list[_Running]) -> None:
        """Give actors to jobs: first one to every active or waiting job in turn, then further replicas."""
        for running in [*active]:
            while running.has_more and self._actors_of(running) < running.job.replicas and self._attach(running):
                pass
        while waiting and self._attach(waiting[0]):
            running = waiting.popleft()
            active.append(running)
            while self._actors_of(running) < running.job.replicas and self._attach(running):
                pass

    def _actors_of(self, running: _Running) -> int:
        return sum(slot.running is running for slot in self._slots)

    def _attach(self, running: _Running) -> bool:
        """Find or start an actor for a job; False when the cluster has no room now."""
        import ray

        needs = running.job.needs
        slot = next((s for s in self._slots if s.running is None and s.needs == needs), None)
        if slot is None:
            while not needs.fits(self._free()):
                idle = next((s for s in self._slots if s.running is None), None)
                if idle is None:
                    return False
                self._drop(idle)
            options: dict[str, Any] = {"num_cpus": needs.num_cpus, "num_gpus": needs.num_gpus, "max_restarts": 0}
            options["scheduling_strategy"] = "DEFAULT"  # never inside the placement group of a Tune trial that asks
            if needs.memory_gib:
                options["memory"] = int(needs.memory_gib * GIB)
            if needs.labels:
                options["label_selector"] = dict(needs.labels)
            slot = _Slot(ray.remote(_Host).options(**options).remote(), needs)
            self._slots.append(slot)
        slot.running, slot.ready = running, False
        slot.in_flight[slot.actor.load.remote(running.job.make)] = None
        running.outstanding += 1
        return True

    def _free(self) -> dict[str, float]:
        free = dict(self.resources)
        for slot in self._slots:
            free["CPU"] = free.get("CPU", 0.0) - slot.needs.num_cpus
            free["GPU"] = free.get("GPU", 0.0) - slot.needs.num_gpus
            if "memory" in free:
                free["memory"] -= slot.needs.memory_gib * GIB
        return free

    def _feed(self, active: Sequence[_Running]) -> None:
        """Top up every loaded actor's queue; an actor whose job has nothing left becomes idle, one still pending is let go.

        Only loaded actors get shards: one that waits for a place on a busy cluster must not hold back what the others can do.
        """
        for slot in list(self._slots):
            running = slot.running
            while running is not None and slot.ready and len(slot.in_flight) < IN_FLIGHT_PER_ACTOR:
                shard = running.next_shard()
                if shard is None:
                    if not slot.in_flight:
                        slot.running = None
                    break
                running.outstanding += 1
                slot.in_flight[slot.actor.run.remote(shard[1])] = shard
        for slot in [s for s in self._slots if s.running is not None and not s.ready and not s.running.has_more]:
            if slot.running is not None:
                slot.running.outstanding -= len(slot.in_flight)
            self._drop(slot)

    def _make_room(self) -> None:
        """On a cluster that grows, end idle actors while others wait for a place: it may have grown as far as it can."""
        if self.grows and any(s.running is not None and not s.ready for s in self._slots):
            for idle in [s for s in self._slots if s.running is None]:
                self._drop(idle)

    def _collect(self, future: Any) -> Iterator[Result]:
        import ray

        slot = next((s for s in self._slots if future in s.in_flight), None)
        if slot is None or slot.running is None:  # it went with an actor that has been dropped meanwhile
            return
        running, shard = slot.running, slot.in_flight[future]
        try:
            value = ray.get(future)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, TutelageError) else None
            if cause is not None:
                raise cause from error
            where = f"shard {shard[0]}" if shard else "loading"
            raise ShardFailed(
                f"{running.job.name} failed in {where}", str(error).strip().splitlines()[-1], "", "run again with --debug"
            ) from error
        except ray.exceptions.RayError as error:  # the actor, its node or its memory is gone
            self._replace(slot, error)
            return
        del slot.in_flight[future]
        running.outstanding -= 1
        slot.ready = True
        if isinstance(value, Tally):
            self._metrics.add(value, *_labels(running.job))
        if shard is not None:
            yield Result(running.job.name, shard[0], value)

    def _replace(self, slot: _Slot, error: Exception) -> None:
        """Put a dead actor's shards back; the next round of `_admit` starts a new actor."""
        running = slot.running
        if running is None:
            raise RuntimeError("an idle actor cannot have failed")
        lost = [shard for shard in slot.in_flight.values() if shard is not None]
        running.outstanding -= len(slot.in_flight)
        if not slot.ready:
            running.load_deaths += 1
        if running.load_deaths > self.retries:
            raise ShardFailed(
                f"{running.job.name}: its actor died {running.load_deaths} times while loading", error, "", "see the Ray logs"
            ) from error
        if lost:  # only the first of them was running; the others were waiting behind it
            name = lost[0][0]
            running.tries[name] = running.tries.get(name, 0) + 1
            if running.tries[name] > self.retries:
                raise ShardFailed(
                    f"{running.job.name}: its actor died {running.tries[name]} times on shard {name}",
                    error,
                    "",
                    "see the Ray logs for memory",
                ) from error
        running.again.extend(lost)
        self._metrics.count("retries", len(lost), *_labels(running.job))
        slot.in_flight.clear()
        self._drop(slot)

    def _drop(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        _kill(slot.actor)

    def _say_what_it_waits_for(self) -> None:
        """Tell the user when actors that have been asked for are not placed yet."""
        import ray

        unplaced = [s for s in self._slots if not s.ready and s.running is not None]
        if unplaced and self.on_wait is not None:
            free = {k: v for k, v in ray.available_resources().items() if k in ("CPU", "GPU")}
            names = ", ".join(f"{s.running.job.name} ({s.needs})" for s in unplaced if s.running)
            self.on_wait(f"waiting for room or for models to load: {names}; free now: {free or 'nothing'}")


def _labels(job: Job) -> tuple[str, str]:
    """A job's stage and name, as its metrics are labelled."""
    return job.stage or job.name.partition(" ")[0], job.name


def _kill(actor: Any) -> None:
    import ray

    ray.kill(actor, no_restart=True)
