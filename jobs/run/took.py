"""What making something took of a cluster: what was reserved for it, and for how long."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.placement import Needs


@dataclass(frozen=True)
class Took:
    """Processors and GPUs, times the seconds for which they were reserved, and money.

    Attributes:
        waited_s: what calls of endpoints took, those at once added up.
        run: the id of the run that had it made, as it is registered.
    """

    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    usd: float = 0.0
    run: str = ""
    waited_s: float = 0.0

    def record(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return asdict(self) | {"host": platform.node()}


def took(needs: Needs, seconds: float, run: str, usd: float = 0.0, waited_s: float = 0.0) -> Took:
    """What a worker with these needs took in some seconds."""
    cpu, gpu = round(seconds * needs.num_cpus, 3), round(seconds * needs.num_gpus, 3)
    return Took(cpu, gpu, usd, run, round(waited_s, 3))


def told_by(record: Mapping[str, Any]) -> Took:
    """What a manifest says of it; nothing where it says nothing."""
    return Took(**{name: record[name] for name in Took.__dataclass_fields__ if name in record})


def total(all_of_it: Iterable[Took]) -> Took:
    """All of it together, whoever had it made."""
    found = list(all_of_it)
    amounts = ("cpu_seconds", "gpu_seconds", "usd", "waited_s")
    return Took(**{name: sum(getattr(t, name) for t in found) for name in amounts})
