"""The pool never waits for ever: a simulated scheduler with other tenants, uneven nodes, deaths and hangs, in
virtual time.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import NoRoom, ShardFailed
from cluster.hosts import Died, Failed, Handler
from cluster.job import Job
from cluster.placement import Needs, Node, check_fits
from cluster.pool import NODE_GRACE_S, ActorPool
from tests.in_process import ROOM, HostsHere

ENDLESS = 10**9


@dataclass
class Machine:
    """A node's GPUs, and what another tenant takes of them until some moment."""

    gpus: float
    taken: float = 0.0
    until: float = 0.0
    there: bool = True


@dataclass(eq=False)
class Simulated:
    """One host: where it is, once it is, and its queue of (future, duration, outcome)."""

    needs: Needs
    at: Machine | None = None
    queue: list[tuple[int, float, Any]] = field(default_factory=list)
    free_at: float = 0.0
    dead: bool = False


class SimulatedHosts:
    """Ray's behaviour in virtual time: actors wait until one node has room for all they ask for; calls of one
    run in order.

    Without a seed those who asked first are placed first, on the emptiest node; with one, anybody anywhere.
    """

    def __init__(self, machines: list[Machine], seed: int | None = None) -> None:
        self.machines, self.random, self.time = machines, None if seed is None else Random(seed), 0.0
        self.hosts: list[Simulated] = []
        self.done: dict[int, tuple[float, Any]] = {}
        self.numbers = itertools.count()
        self.quiet = 0
        self.struck: set[int] = set()

    def look(self) -> list[Node]:
        return [Node({"GPU": m.gpus, "CPU": 99.0}) for m in self.machines if m.there]

    def free(self) -> dict[str, float]:
        return {}

    def start(self, needs: Needs) -> Simulated:
        host = Simulated(needs)
        self.hosts.append(host)
        return host

    def call(self, host: Simulated, method: str, *arguments: Any) -> int:
        future = next(self.numbers)
        duration, outcome = arguments[0] if method == "run" else (0.1, None)
        if outcome == "die once":
            outcome = "die" if id(arguments[0]) not in self.struck else 1
            self.struck.add(id(arguments[0]))
        host.queue.append((future, duration, outcome))
        return future

    def room(self, machine: Machine) -> float:
        taken = machine.taken if self.time < machine.until else 0.0
        return machine.gpus - taken - sum(h.needs.num_gpus for h in self.hosts if h.at is machine)

    def advance(self) -> None:
        """Place what has room, and let calls run up to now."""
        for host in self.random.sample(self.hosts, len(self.hosts)) if self.random else list(self.hosts):
            fitting = [m for m in self.machines if m.there and self.room(m) >= host.needs.num_gpus - 1e-9]
            if host.at is None and fitting:
                host.at = self.random.choice(fitting) if self.random else max(fitting, key=self.room)
                host.free_at = self.time
            while host.at is not None and host.queue and not host.dead:
                future, duration, outcome = host.queue[0]
                if host.free_at + duration > self.time:
                    break
                host.free_at += duration
                host.queue.pop(0)
                self.done[future] = (host.free_at, outcome)
                if outcome == "die":
                    host.dead = True
                    self.done |= {f: (host.free_at, "die") for f, _, _ in host.queue}
                    host.queue.clear()
            if not host.queue:
                host.free_at = self.time

    def wait(self, futures: Sequence[int], timeout_s: float) -> list[int]:
        end = self.time + timeout_s
        while True:
            self.advance()
            found = [f for f in futures if f in self.done]
            if found or self.time >= end:
                break
            moments = [h.free_at + h.queue[0][1] for h in self.hosts if h.at is not None and h.queue]
            moments += [m.until for m in self.machines if m.until > self.time]
            self.time = min([end, *(m for m in moments if m > self.time)])
        self.quiet = 0 if found else self.quiet + (timeout_s > 0)
        assert self.quiet < 20_000, "the pool waits for ever"
        return found[:1]

    def result(self, future: int) -> Any:
        _, outcome = self.done.pop(future)
        if outcome == "die":
            raise Died("its process is gone")
        if outcome == "fail":
            raise Failed("ValueError")
        return outcome

    def end(self, host: Simulated) -> None:
        self.hosts.remove(host)

    def leave(self, hosts: Sequence[Simulated]) -> None:
        """They keep nothing."""

    def now(self) -> float:
        return self.time


def nothing() -> Handler:
    return lambda payload: payload


def job(name: str, gpus: float, replicas: int, shards: list[tuple[float, Any]]) -> Job:
    return Job(
        name,
        nothing,
        [(f"{name}{k}", [*shard]) for k, shard in enumerate(shards)],
        replicas,
        Needs(0.0, gpus),
    )


def run(hosts: SimulatedHosts, jobs: list[Job], **options: Any) -> list[str]:
    with ActorPool(hosts, **options) as pool:
        found = [result.shard for result in pool.run(jobs)]
    assert not hosts.hosts, "hosts were left behind"
    return sorted(found)


def names(jobs: list[Job]) -> list[str]:
    return sorted(name for j in jobs for name, _ in j.shards)


def test_beside_another_tenant_idle_hosts_take_over_what_waits_for_their_room() -> None:
    """8 GPUs of which another tenant takes 4, two jobs of 4 replicas: B's hosts waited for what A's idle ones
    held.
    """
    jobs = [job("a", 1, 4, [(5, 1)] * 6), job("b", 1, 4, [(5, 1)] * 6)]
    assert run(SimulatedHosts([Machine(8, taken=4, until=ENDLESS)]), jobs) == names(jobs)


def test_halves_on_two_nodes_make_way_for_a_whole() -> None:
    """Two one-GPU nodes, A 2 x 0.5, B 1 x 1: each node had half a GPU left,
    though together they had a whole.
    """
    jobs = [job("a", 0.5, 2, [(5, 1)] * 2), job("b", 1, 1, [(5, 1)] * 2)]
    assert run(SimulatedHosts([Machine(1), Machine(1)]), jobs) == names(jobs)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Machine], list[Job], int]:
    """Nodes of which each keeps room for the largest job once a passing tenant has left, and jobs of any
    shape.
    """
    sizes = draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=1, max_size=5))
    machines = []
    for _ in range(draw(st.integers(1, 4))):
        gpus = draw(st.sampled_from([1.0, 2.0, 4.0, 8.0]))
        stays = draw(st.booleans()) and gpus > max(sizes)
        taken = gpus - max(sizes) if stays else gpus
        machines.append(Machine(gpus, max(0.0, taken), ENDLESS if stays else draw(st.integers(0, 50))))
    if all(m.gpus < max(sizes) for m in machines):
        machines.append(Machine(max(sizes)))
    shard = st.tuples(st.integers(0, 20), st.sampled_from([1, 1, 1, 1, 1, 1, "die once"]))
    jobs = [
        job("abcde"[k], size, draw(st.integers(1, 4)), draw(st.lists(shard, max_size=6)))
        for k, size in enumerate(sizes)
    ]
    return machines, jobs, draw(st.integers(0, 10**6))


@given(clusters())
def test_every_job_ends_on_any_cluster_that_could_hold_it_alone(
    drawn: tuple[list[Machine], list[Job], int],
) -> None:
    machines, jobs, seed = drawn
    hosts = SimulatedHosts(machines, seed)
    assert run(hosts, jobs, retries=100) == names(jobs)


def test_a_shard_that_hangs_counts_as_a_death_and_a_load_too() -> None:
    jobs = [job("a", 1, 1, [(5, 1), (ENDLESS / 2, 1), (5, 1)])]
    with pytest.raises(ShardFailed, match=r"died 3 times on shard a1; got no result within 3600 s"):
        run(SimulatedHosts([Machine(1)]), jobs, deadline_s=3600.0, retries=2)


def test_whoever_takes_results_slowly_is_not_taken_for_a_host_that_hangs() -> None:
    hosts = SimulatedHosts([Machine(1)])
    with ActorPool(hosts, deadline_s=100.0, retries=0) as pool:
        for _ in pool.run([job("a", 1, 1, [(5, 1)] * 4)]):
            hosts.time += 1000


def test_a_node_that_goes_away_ends_the_wait_by_name_and_one_that_comes_back_does_not() -> None:
    hosts = SimulatedHosts([Machine(1), Machine(4)])
    with ActorPool(hosts) as pool:
        results = pool.run([job("small", 1, 1, [(1, 1)] * 9), job("large", 4, 1, [(50, 1)] * 3)])
        next(results)
        hosts.machines[1].there = False
        for host in [h for h in hosts.hosts if h.at is hosts.machines[1]]:
            hosts.done |= {f: (hosts.time, "die") for f, _, _ in host.queue}
            host.queue.clear()
        with pytest.raises(NoRoom, match="no node of the cluster can hold large any more"):
            list(results)
    assert NODE_GRACE_S < hosts.time < 2 * NODE_GRACE_S


def test_what_no_node_can_ever_hold_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        NoRoom, match=r"b cannot be placed on this cluster; got 0 CPU, 8 GPU; expected at most 4 GPU, 99 CPU"
    ):
        run(SimulatedHosts([Machine(4), Machine(4)]), [job("a", 1, 1, [(1, 1)]), job("b", 8, 1, [(1, 1)])])
    nodes = [Node({"CPU": 8.0, "GPU": 1.0}), Node({"CPU": 8.0, "GPU": 2.0}, {"zone": "a"})]
    check_fits("three workers", Needs(1.0, 1.0), nodes, 3)
    with pytest.raises(NoRoom, match=r"got 3 × \(1 CPU, 1 GPU, zone=a\); expected at most 2 of them"):
        check_fits("three workers", Needs(1.0, 1.0, labels=(("zone", "a"),)), nodes, 3)


def test_a_job_that_ends_hands_its_room_on_at_once() -> None:
    """Between jobs of different sizes the pool once waited ten seconds with nothing running; here that is an
    error.
    """
    sizes = [Needs(ROOM["CPU"]), Needs(1.0), Needs(ROOM["CPU"]), Needs(0.0)]
    jobs = [
        Job(f"j{k}", lambda: lambda n: 2 * n, [(f"s{i}", i) for i in range(3)], 2, needs)
        for k, needs in enumerate(sizes)
    ]
    with ActorPool(HostsHere()) as pool:
        got = {(r.job, r.shard): r.value for r in pool.run(jobs)}
    assert got == {(f"j{k}", f"s{i}"): 2 * i for k in range(4) for i in range(3)}


class LosingHosts(SimulatedHosts):
    """A host takes the results with it that nobody has fetched when it dies, as a process does."""

    def advance(self) -> None:
        known = set(self.done)
        queues = {id(host): [future for future, _, _ in host.queue] for host in self.hosts}
        super().advance()
        for host in self.hosts:
            ended = [f for f in queues.get(id(host), ()) if f in self.done and f not in known]
            if host.dead:
                self.done |= dict.fromkeys(ended, (host.free_at, "die"))


def test_a_shard_whose_result_died_with_its_host_is_not_blamed_for_the_next_one() -> None:
    """The fifth takes no time and kills its host: the result of the fourth, just ended, is lost each time
    both are in one queue.
    """
    shards: list[tuple[float, Any]] = [(1, 1), (1, 1), (1, 1), (1, 1), (0, "die"), (1, 1)]
    with pytest.raises(ShardFailed, match="died 2 times on shard a4"):
        run(LosingHosts([Machine(1)]), [job("a", 1, 1, shards)], retries=1)
    shards[4] = (0, "die once")
    jobs = [job("a", 1, 1, shards)]
    assert run(LosingHosts([Machine(1)]), jobs, retries=1) == names(jobs)
