"""The pool maps shards over stateful hosts, for generating, scoring and evaluating alike.

A job is a handler and its shards. The handler is built once in the host, where it loads the model. The pool
keeps as many hosts as the cluster has room for. It gives a finished job's hosts to the next job of the same
size. So thirty teachers run in waves on a machine with room for two. A host that dies is replaced, and its
shards run again. An exception of a handler stops everything and names the shard. Results come as they finish,
in no fixed order.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from cluster.errors import NoRoom, ShardFailed
from cluster.hosts import Died, Failed, Hosts, RayHosts
from cluster.job import Job, Result, Running, metric_labels
from cluster.metrics import Metrics, Tally
from cluster.placement import Needs, check_fits
from cluster.slots import LOADED, PLACED, Slot, Slots

# One shard runs while the next waits in the host's queue. So the host is not idle during a round trip.
IN_FLIGHT_PER_HOST = 2
WAIT_NOTICE_S = 10.0
NODE_GRACE_S = 600.0  # seconds that a node which a job needs may be away
SHARD_DEADLINE_S = 6 * 3600.0


class ActorPool:
    """Hosts on a cluster, as a context manager. `release` returns the cluster's resources in between.

    Args:
        hosts: the kind of hosts. Ray actors if not given.
        retries: how often a host may die on one shard, or while loading.
        grows: whether the cluster starts nodes on demand. Then nothing is refused or delayed because of the
            present nodes.
        deadline_s: if a shard or a loading takes longer, its host counts as dead.
        on_wait: called now and then with what is waited for.
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
        self._slots = Slots(self.hosts, grows)
        self._metrics = Metrics()
        self._nowhere_since: dict[Needs, float] = {}

    def __enter__(self) -> "ActorPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """End all hosts."""
        self._slots.drop(*self._slots)

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse a job of which not even one host can be placed.

        Raises:
            NoRoom: with what it asks for and what there is.
        """
        for job in jobs if not self.grows else ():
            check_fits(job.name, job.needs, self._slots.nodes)

    def run(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Run all shards of all jobs. Yields results as they finish.

        Raises:
            NoRoom: before anything starts, or when the last node that could hold a job has been away for too
                long.
            ShardFailed: a handler raised, or a host died more than `retries` times on one shard. A
                TutelageError raised by the handler comes through as itself.
        """
        self._slots.nodes = self.hosts.look()
        self.check(jobs)
        waiting = deque(Running(job, iter(job.shards)) for job in jobs)
        active: list[Running] = []
        try:
            while waiting or active:
                self._admit(waiting, active)
                self._feed()
                # a job that has just ended may have made room for the next
                if waiting and all(slot.is_idle for slot in self._slots):
                    self._admit(waiting, active)
                self._slots.give_way()
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
            for slot in self._slots:
                slot.running = None
                if slot.in_flight:
                    self._slots.drop(slot)

    def _admit(self, waiting: deque[Running], active: list[Running]) -> None:
        """Give hosts to jobs: first one to each active or waiting job in turn, then further replicas."""
        for running in [*active]:
            while (
                running.has_more
                and self._slots.serving(running) < running.job.replicas
                and self._slots.attach(running)
            ):
                pass
        while waiting and self._slots.attach(waiting[0]):
            running = waiting.popleft()
            active.append(running)
            while self._slots.serving(running) < running.job.replicas and self._slots.attach(running):
                pass

    def _feed(self) -> None:
        """Fill the queue of every loaded host. A host whose job has no shard left becomes idle. If it had not
        begun, it is dropped.

        Only loaded hosts get shards. A host that waits for a place on a busy cluster must not keep shards
        that others could run.
        """
        for slot in self._slots:
            running = slot.running
            while running is not None and slot.ready and len(slot.in_flight) < self._most(slot, running):
                shard = running.next_shard()
                if shard is None:
                    if not slot.in_flight:
                        slot.running = None
                    break
                running.outstanding += 1
                self._slots.call(slot, shard, "run", shard[1])
        for slot in [
            s for s in self._slots if s.running is not None and not s.ready and not s.running.has_more
        ]:
            self._slots.let_go(slot)

    def _most(self, slot: Slot, running: Running) -> int:
        """How many calls a host may have in its queue. It is one while shards are run again that were with a
        host when it died. The result of a shard that had just ended can be lost with the host. Only if a
        shard runs alone is it clear which shard causes a second death.
        """
        names = [shard[0] for shard in slot.in_flight.values() if not isinstance(shard, str)]
        if running.again or any(name in running.suspects for name in names):
            return 1
        return max(IN_FLIGHT_PER_HOST, slot.needs.at_once)

    def _collect(self, future: Any) -> Iterator[Result]:
        slot = next((s for s in self._slots if future in s.in_flight), None)
        if slot is None or slot.running is None:  # its host has been dropped meanwhile
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
            self._slots.call(slot, LOADED, "load", running.job.make)
            return
        running.outstanding -= 1
        slot.ready = True
        if isinstance(value, Tally):
            self._metrics.add(value, *metric_labels(running.job))
        if not isinstance(what, str):
            yield Result(running.job.name, what[0], value)

    def _end_overdue(self) -> None:
        """Replace hosts whose shard, or whose loading, takes longer than the deadline."""
        for slot in [s for s in self._slots if s.placed and s.in_flight]:
            late = self.hosts.now() - slot.since > self.deadline_s
            # otherwise the consumer of the results was slow, not the host
            if late and not self.hosts.wait(list(slot.in_flight), 0.0):
                self._replace(slot, f"no result within {self.deadline_s:g} s")

    def _replace(self, slot: Slot, problem: str) -> None:
        """Put a dead host's shards back. The next round of `_admit` starts a new host."""
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
        if lost:  # only the first of them was running; the others were queued
            first = lost[0][0]
            running.tries[first] = running.tries.get(first, 0) + 1
            if running.tries[first] > self.retries:
                what = f"{name}: its actor died {running.tries[first]} times on shard {first}"
                raise ShardFailed(what, problem, "", "see the Ray logs for memory")
        running.again.extend(lost)
        running.suspects.update(shard[0] for shard in lost)
        self._metrics.count("retries", len(lost), *metric_labels(running.job))
        slot.in_flight.clear()
        self._slots.drop(slot)

    def _look_again(self, unfinished: Sequence[Running]) -> None:
        """Look which nodes exist now, report what is waited for, and give up on jobs that have had no node
        for too long.

        Raises:
            NoRoom: no node could hold a job for `NODE_GRACE_S`.
        """
        self._slots.nodes, now = self.hosts.look(), self.hosts.now()
        for running in unfinished if not self.grows else ():
            needs = running.job.needs
            if any(needs.fits_on(node) for node in self._slots.nodes):
                self._nowhere_since.pop(needs, None)
            elif now - self._nowhere_since.setdefault(needs, now) > NODE_GRACE_S:
                raise NoRoom(
                    f"no node of the cluster can hold {running.job.name} any more",
                    needs,
                    "a node that can hold it",
                    "add such a node, then run again",
                )
        unplaced = [s for s in self._slots if s.running is not None and not s.ready]
        if unplaced and self.on_wait is not None:
            names = ", ".join(f"{s.running.job.name} ({s.needs})" for s in unplaced if s.running)
            self.on_wait(
                f"waiting for room or for models to load: {names}; free now: {self.hosts.free() or 'nothing'}"
            )
