"""The arithmetic of placement, without Ray: the resources of machines, and what one actor or worker needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.errors import NoRoom

GIB = 2**30
KINDS = ("CPU", "GPU", "memory")


@dataclass(frozen=True)
class Node:
    """One machine of the cluster: its resources by Ray's names (memory in bytes), and its labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{v:g} {k}" for k, v in self.resources.items() if k in ("CPU", "GPU") and v]
        parts += [f"{v / GIB:.1f} GiB" for k, v in self.resources.items() if k == "memory"]
        return ", ".join(
            [*parts, *(f"{k}={v}" for k, v in sorted(self.labels.items()) if not k.startswith("ray.io/"))]
        )


@dataclass(frozen=True)
class Needs:
    """The resources that one actor or worker needs.

    Attributes:
        labels: (name, value) pairs that its node must carry.
        at_once: how many shards it works on at the same time, if it mostly waits.
        keeps: what it keeps from one job for the next, such as a running engine. Actors that keep something
            else are other actors.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_gib: float = 0.0
    labels: tuple[tuple[str, str], ...] = ()
    at_once: int = 1
    keeps: str = ""

    @property
    def amounts(self) -> dict[str, float]:
        """The needed amounts, by Ray's names."""
        return {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory_gib * GIB}

    def fits(self, free: Mapping[str, float]) -> bool:
        """Whether these free resources are enough. Memory counts only if it is known."""
        return all(
            amount <= free.get(kind, 0.0) + 1e-9
            for kind, amount in self.amounts.items()
            if kind != "memory" or kind in free
        )

    def fits_on(self, node: Node) -> bool:
        return self.fits(node.resources) and all(
            node.labels.get(name) == value for name, value in self.labels
        )

    def count_on(self, node: Node) -> int:
        """How many actors of this size fit on the empty node. A thousand if they need no resource."""
        if not self.fits_on(node):
            return 0
        shares = [node.resources[k] / a for k, a in self.amounts.items() if a > 0 and k in node.resources]
        return int(min(shares, default=1000) + 1e-9)

    def __str__(self) -> str:
        parts = [f"{self.num_cpus:g} CPU"]
        parts += [f"{self.num_gpus:g} GPU"] if self.num_gpus else []
        parts += [f"{self.memory_gib:g} GiB"] if self.memory_gib else []
        return ", ".join([*parts, *(f"{k}={v}" for k, v in self.labels)])


def check_fits(name: str, needs: Needs, nodes: Sequence[Node], count: int = 1) -> None:
    """Refuse needs that the nodes can never meet, even when they are empty.

    Args:
        count: how many of this size are needed at once.

    Raises:
        NoRoom: they cannot be met. Says what is needed and what the nodes have.
    """
    room = sum(needs.count_on(node) for node in nodes)
    if room >= count:
        return
    have = " or ".join(sorted({str(node) for node in nodes})) or "nothing"
    if count == 1:
        expected, asked = f"at most {have} on one node", str(needs)
    else:
        expected, asked = f"at most {room} of them on nodes of {have}", f"{count} × ({needs})"
    raise NoRoom(
        f"{name} cannot be placed on this cluster", asked, expected, "lower what it asks for, or its labels"
    )


def total(nodes: Sequence[Node]) -> dict[str, float]:
    """The resources of all nodes together."""
    kinds = {kind for node in nodes for kind in node.resources}
    return {kind: sum(node.resources.get(kind, 0.0) for node in nodes) for kind in sorted(kinds)}
