"""One pool that maps shards over stateful hosts, for generating, scoring and evaluating alike.

A job is a handler (built once in the host: it loads the model) and its shards. The pool keeps as many hosts
as the cluster has room for, hands a finished job's hosts to the next job of the same size, and so works
through thirty teachers in waves on a machine with room for two. A host that dies is replaced and its shards
run again; an exception in our own code stops everything with the shard's name. Results come as they finish,
in no fixed order.

What the nodes have says nothing of what other tenants take, and a node may have room for one size and not for
another. So the pool may ask for hosts that get no place for now, and must never sit on what they wait for:
while one waits, idle hosts of its size take its job over, and other idle hosts are ended.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from cluster.errors import NoRoom, ShardFailed
from cluster.hosts import Died, Failed, Handler, Hosts, RayHosts
from cluster.metrics import Metrics, Tally
from cluster.placement import Needs, check_fits, total

# One shard runs while the next waits in the host's queue, so that the host is never idle for a round trip.
IN_FLIGHT_PER_HOST = 2
WAIT_NOTICE_S = 10.0
NODE_GRACE_S = 600.0  # how long a node that a job needs may be away
SHARD_DEADLINE_S = 6 * 3600.0
PLACED, LOADED = "placed", "loaded"  # what a host's first calls tell when they return


@dataclass(frozen=True)
class Job:
    """Shards for one handler. `make` runs in the host; `shards` are (name, payload) pairs and are drawn
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
    """One host, the job it serves, and its calls in flight: a shard each, or the name of a first call.

    Attributes:
        placed: the cluster has given it a place.
        ready: it has loaded its job's handler.
        since: when the first of its calls began, as far as is known.
    """

    host: Any
    needs: Needs
    running: _Running | None = None
    in_flight: dict[Any, tuple[str, Any] | str] = field(default_factory=dict)
    placed: bool = False
    ready: bool = False
    since: float = 0.0

    @property
    def is_idle(self) -> bool:
        return self.running is None

    @property
    def waits_for_room(self) -> bool:
        return self.running is not None and not self.placed


class Pool:
    """Hosts on a cluster. Use as a context manager; `release` gives the cluster's resources back in between.

    Args:
        hosts: where they live; Ray's actors if not given.
        retries: deaths of a host that one shard may cause, or one loading.
        grows: the cluster starts nodes when they are asked for, so nothing is refused or held back for what
            is there now.
        deadline_s: a shard or a loading that has not ended by then counts as a death.
        on_wait: told what is waited for, now and then.
    """

    def __init__(
        self,
        hosts: Hosts | None = None,
        *,
        retries: int = 3,
        grows: bool = False,
        deadline_s: float = SHARD_DEADLINE_S,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.hosts: Hosts = RayHosts() if hosts is None else hosts
        self.retries, self.grows, self.deadline_s, self.on_wait = retries, grows, deadline_s, on_wait
        self.nodes = self.hosts.look()
        self._slots: list[_Slot] = []
        self._metrics = Metrics()
        self._nowhere_since: dict[Needs, float] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """End all hosts."""
        for slot in list(self._slots):
            self._drop(slot)

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse a job whose single host can never be placed.

        Raises:
            NoRoom: with what it asks for and what there is.
        """
        for job in jobs if not self.grows else ():
            check_fits(job.name, job.needs, self.nodes)

    def run(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Run all shards of all jobs; yields results as they finish.

        Raises:
            NoRoom: before anything starts, or when the last node that could hold a job has been away for too
                long.
            ShardFailed: a handler raised, or a host died more than `retries` times on one shard. A
                TutelageError raised by the handler comes through as itself.
        """
        self.nodes = self.hosts.look()
        self.check(jobs)
        waiting = deque(_Running(job, iter(job.shards)) for job in jobs)
        active: list[_Running] = []
        try:
            while waiting or active:
                self._admit(waiting, active)
                self._feed()
                # a job that ended just now made room for the next
                if waiting and all(slot.is_idle for slot in self._slots):
                    self._admit(waiting, active)
                self._give_way()
                active = [r for r in active if r.has_more or r.outstanding]
                done = (
                    self.hosts.wait([f for slot in self._slots for f in slot.in_flight], WAIT_NOTICE_S)
                    if waiting or active
                    else []
                )
                for future in done:
                    yield from self._collect(future)
                if not done:
                    self._look_again([*waiting, *active])
                self._end_overdue()
        finally:
            for slot in list(self._slots):
                slot.running = None
                if slot.in_flight:
                    self._drop(slot)

    def _admit(self, waiting: deque[_Running], active: list[_Running]) -> None:
        """Give hosts to jobs: first one to every active or waiting job in turn, then further replicas."""
        for running in [*active]:
            while (
                running.has_more and self._hosts_of(running) < running.job.replicas and self._attach(running)
            ):
                pass
        while waiting and self._attach(waiting[0]):
            running = waiting.popleft()
            active.append(running)
            while self._hosts_of(running) < running.job.replicas and self._attach(running):
                pass

    def _hosts_of(self, running: _Running) -> int:
        return sum(slot.running is running for slot in self._slots)

    def _attach(self, running: _Running) -> bool:
        """Find or ask for a host for a job; False when the nodes hold no more of ours."""
        needs = running.job.needs
        slot = next((s for s in self._slots if s.is_idle and s.needs == needs), None)
        if slot is None:
            while self._slots and not needs.fits(self._free()):
                idle = next((s for s in self._slots if s.is_idle), None)
                if idle is None:
                    return False
                self._drop(idle)
            slot = _Slot(self.hosts.start(needs), needs)
            self._slots.append(slot)
        self._assign(slot, running)
        return True

    def _assign(self, slot: _Slot, running: _Running) -> None:
        """Let a host load a job's handler, as soon as it has a place."""
        slot.running, slot.ready = running, False
        running.outstanding += 1
        if slot.placed:
            self._call(slot, LOADED, "load", running.job.make)
        else:
            self._call(slot, PLACED, "here")

    def _call(self, slot: _Slot, what: tuple[str, Any] | str, method: str, *arguments: Any) -> None:
        if not slot.in_flight:
            slot.since = self.hosts.now()
        slot.in_flight[self.hosts.call(slot.host, method, *arguments)] = what

    def _free(self) -> dict[str, float]:
        """What the nodes have beyond our own hosts; other tenants are not known here."""
        if self.grows:
            return dict.fromkeys(("CPU", "GPU", "memory"), math.inf)
        free = total(self.nodes)
        for slot in self._slots:
            for kind, amount in slot.needs.amounts.items():
                free[kind] = free.get(kind, math.inf if kind == "memory" else 0.0) - amount
        return free

    def _feed(self) -> None:
        """Top up every loaded host's queue; a host whose job has nothing left becomes idle, one that never
        began is let go.

        Only loaded hosts get shards: one that waits for a place on a busy cluster must not hold back what the
        others can do.
        """
        for slot in list(self._slots):
            running = slot.running
            while running is not None and slot.ready and len(slot.in_flight) < IN_FLIGHT_PER_HOST:
                shard = running.next_shard()
                if shard is None:
                    if not slot.in_flight:
                        slot.running = None
                    break
                running.outstanding += 1
                self._call(slot, shard, "run", shard[1])
        for slot in [
            s for s in self._slots if s.running is not None and not s.ready and not s.running.has_more
        ]:
            self._let_go(slot)

    def _give_way(self) -> None:
        """While a host waits for room, hold none idle: one of its size takes its job over, others end."""
        for idle in [s for s in self._slots if s.is_idle]:
            heir = next((s for s in self._slots if s.waits_for_room and s.needs == idle.needs), None)
            if heir is not None and heir.running is not None:
                running = heir.running
                self._let_go(heir)
                self._assign(idle, running)
        if any(s.waits_for_room for s in self._slots):
            for idle in [s for s in self._slots if s.is_idle]:
                self._drop(idle)

    def _let_go(self, slot: _Slot) -> None:
        """Drop a host that has not begun to work for its job."""
        if slot.running is not None:
            slot.running.outstanding -= len(slot.in_flight)
        self._drop(slot)

    def _collect(self, future: Any) -> Iterator[Result]:
        slot = next((s for s in self._slots if future in s.in_flight), None)
        if slot is None or slot.running is None:  # it went with a host that has been dropped meanwhile
            return
        running, what = slot.running, slot.in_flight[future]
        try:
            value = self.hosts.result(future)
        except Failed as error:
            where = "loading" if isinstance(what, str) else f"shard {what[0]}"
            raise ShardFailed(
                f"{running.job.name} failed in {where}", error, "", "run again with --debug"
            ) from error
        except Died as error:
            self._replace(slot, str(error))
            return
        del slot.in_flight[future]
        slot.since = self.hosts.now()
        if what == PLACED:
            slot.placed = True
            self._call(slot, LOADED, "load", running.job.make)
            return
        running.outstanding -= 1
        slot.ready = True
        if isinstance(value, Tally):
            self._metrics.add(value, *_labels(running.job))
        if not isinstance(what, str):
            yield Result(running.job.name, what[0], value)

    def _end_overdue(self) -> None:
        """Replace hosts whose shard, or whose loading, takes longer than the deadline."""
        for slot in [s for s in self._slots if s.placed and s.in_flight]:
            late = self.hosts.now() - slot.since > self.deadline_s
            # else whoever takes the results was slow, not the host
            if late and not self.hosts.wait(list(slot.in_flight), 0.0):
                self._replace(slot, f"no result within {self.deadline_s:g} s")

    def _replace(self, slot: _Slot, problem: str) -> None:
        """Put a dead host's shards back; the next round of `_admit` starts a new host."""
        running = slot.running
        if running is None:
            raise RuntimeError("an idle host cannot have failed")
        lost = [shard for shard in slot.in_flight.values() if not isinstance(shard, str)]
        running.outstanding -= len(slot.in_flight)
        name = running.job.name
        if not slot.ready:
            running.load_deaths += 1
        if running.load_deaths > self.retries:
            raise ShardFailed(
                f"{name}: its actor died {running.load_deaths} times while loading",
                problem,
                "",
                "see the Ray logs",
            )
        if lost:  # only the first of them was running; the others were waiting behind it
            first = lost[0][0]
            running.tries[first] = running.tries.get(first, 0) + 1
            if running.tries[first] > self.retries:
                what = f"{name}: its actor died {running.tries[first]} times on shard {first}"
                raise ShardFailed(what, problem, "", "see the Ray logs for memory")
        running.again.extend(lost)
        self._metrics.count("retries", len(lost), *_labels(running.job))
        slot.in_flight.clear()
        self._drop(slot)

    def _drop(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self.hosts.end(slot.host)

    def _look_again(self, unfinished: Sequence[_Running]) -> None:
        """See which nodes are there now, tell what is waited for, and give up on what has had no node for too
        long.

        Raises:
            NoRoom: no node could hold a job for `NODE_GRACE_S`.
        """
        self.nodes, now = self.hosts.look(), self.hosts.now()
        for running in unfinished if not self.grows else ():
            needs = running.job.needs
            if any(needs.fits_on(node) for node in self.nodes):
                self._nowhere_since.pop(needs, None)
            elif now - self._nowhere_since.setdefault(needs, now) > NODE_GRACE_S:
                raise NoRoom(
                    f"{running.job.name} has lost its place",
                    needs,
                    "a node that can hold it",
                    "look at the cluster; run again",
                )
        unplaced = [s for s in self._slots if s.running is not None and not s.ready]
        if unplaced and self.on_wait is not None:
            names = ", ".join(f"{s.running.job.name} ({s.needs})" for s in unplaced if s.running)
            self.on_wait(
                f"waiting for room or for models to load: {names}; free now: {self.hosts.free() or 'nothing'}"
            )


def _labels(job: Job) -> tuple[str, str]:
    """A job's stage and name, as its metrics are labelled."""
    return job.stage or job.name.partition(" ")[0], job.name
