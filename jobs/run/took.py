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
        run: the id of the run that had it made, as it is registered.
    """

    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    usd: float = 0.0
    run: str = ""

    def record(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return asdict(self) | {"host": platform.node()}


def took(needs: Needs, seconds: float, run: str, usd: float = 0.0) -> Took:
    """What a worker with these needs took in some seconds."""
    return Took(round(seconds * needs.num_cpus, 3), round(seconds * needs.num_gpus, 3), usd, run)


def told_by(record: Mapping[str, Any]) -> Took:
    """What a manifest says of it; nothing where it says nothing."""
    return Took(**{name: record[name] for name in Took.__dataclass_fields__ if name in record})


def total(all_of_it: Iterable[Took]) -> Took:
    """All of it together, whoever had it made."""
    found = list(all_of_it)
    return Took(*(sum(getattr(t, name) for t in found) for name in ("cpu_seconds", "gpu_seconds", "usd")))
