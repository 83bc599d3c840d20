"""The pool's hosts: which job each serves, its running calls, and which host makes room for which.

The nodes' resources do not show what other tenants use, and a node may have room for one size and not for
another. So the pool may ask for hosts that get no place yet, and it must not keep the resources that they
wait for. While a host waits, an idle host of its size takes over its job, and other idle hosts are ended.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cluster.hosts import Hosts
from cluster.job import Running
from cluster.placement import Needs, total

PLACED, LOADED = "placed", "loaded"  # the names of a host's first calls


@dataclass(eq=False)
class Slot:
    """One host, the job that it serves, and its running calls: each is a shard, or the name of a first
    call.

    Attributes:
        placed: whether the cluster has given it a place.
        ready: whether it has loaded its job's handler.
        since: when the first of its calls began, if that is known.
    """

    host: Any
    needs: Needs
    running: Running | None = None
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


class Slots:
    """All hosts of a pool, and the nodes that they are placed on.

    Args:
        grows: whether the cluster starts nodes on demand, so that free resources have no bound.
    """

    def __init__(self, hosts: Hosts, grows: bool) -> None:
        self.hosts, self.grows = hosts, grows
        self.nodes = hosts.look()
        self._slots: list[Slot] = []

    def __iter__(self) -> Iterator[Slot]:
        """The present slots. Some may be dropped during the iteration."""
        return iter(list(self._slots))

    def serving(self, running: Running) -> int:
        """How many hosts serve a job."""
        return sum(slot.running is running for slot in self._slots)

    def attach(self, running: Running) -> bool:
        """Find a host for a job, or ask for one. False if the nodes have no room for another."""
        needs = running.job.needs
        slot = next((s for s in self._slots if s.is_idle and s.needs == needs), None)
        if slot is None:
            while self._slots and not needs.fits(self._free()):
                idle = next((s for s in self._slots if s.is_idle), None)
                if idle is None:
                    return False
                self.drop(idle)
            slot = Slot(self.hosts.start(needs), needs)
            self._slots.append(slot)
        self._assign(slot, running)
        return True

    def _assign(self, slot: Slot, running: Running) -> None:
        """Let a host load a job's handler as soon as it has a place."""
        slot.running, slot.ready = running, False
        running.outstanding += 1
        if slot.placed:
            self.call(slot, LOADED, "load", running.job.make)
        else:
            self.call(slot, PLACED, "here")

    def call(self, slot: Slot, what: tuple[str, Any] | str, method: str, *arguments: Any) -> None:
        """Call a method of a host. `what` is the shard, or the name of a first call."""
        if not slot.in_flight:
            slot.since = self.hosts.now()
        slot.in_flight[self.hosts.call(slot.host, method, *arguments)] = what

    def _free(self) -> dict[str, float]:
        """The nodes' resources without those of our hosts. Other tenants are not known here."""
        if self.grows:
            return dict.fromkeys(("CPU", "GPU", "memory"), math.inf)
        free = total(self.nodes)
        for slot in self._slots:
            for kind, amount in slot.needs.amounts.items():
                free[kind] = free.get(kind, math.inf if kind == "memory" else 0.0) - amount
        return free

    def give_way(self) -> None:
        """While a host waits for room, keep no idle host: one of its size takes over its job, others are
        ended.
        """
        for idle in [s for s in self._slots if s.is_idle]:
            heir = next((s for s in self._slots if s.waits_for_room and s.needs == idle.needs), None)
            if heir is not None and heir.running is not None:
                running = heir.running
                self.let_go(heir)
                self._assign(idle, running)
        if any(s.waits_for_room for s in self._slots):
            for idle in [s for s in self._slots if s.is_idle]:
                self.drop(idle)

    def let_go(self, slot: Slot) -> None:
        """Drop a host that has not begun to work for its job."""
        if slot.running is not None:
            slot.running.outstanding -= len(slot.in_flight)
        self.drop(slot)

    def drop(self, *slots: Slot) -> None:
        """End hosts."""
        leaving = [s.host for s in slots if s.needs.keeps and s.placed and not s.in_flight]
        if leaving:
            self.hosts.leave(leaving)
        for slot in slots:
            self._slots.remove(slot)
            self.hosts.end(slot.host)
