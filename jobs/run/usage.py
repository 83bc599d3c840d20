"""The cluster resources that making something took: what was reserved, and for how long."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.placement import Needs


@dataclass(frozen=True)
class Usage:
    """CPU-seconds and GPU-seconds that were reserved, and money.

    Attributes:
        waited_s: the duration of all calls to endpoints, added up. Calls at the same time count separately.
        run: the id under which the run that made it is registered.
    """

    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    usd: float = 0.0
    run: str = ""
    waited_s: float = 0.0

    def record(self) -> dict[str, Any]:
        """The form in which a manifest holds it."""
        return asdict(self) | {"host": platform.node()}


def usage_of(needs: Needs, seconds: float, run: str, usd: float = 0.0, waited_s: float = 0.0) -> Usage:
    """The resources that a worker with these needs took in some seconds."""
    cpu, gpu = round(seconds * needs.num_cpus, 3), round(seconds * needs.num_gpus, 3)
    return Usage(cpu, gpu, usd, run, round(waited_s, 3))


def usage_in(record: Mapping[str, Any]) -> Usage:
    """Read a usage from a manifest. All values are zero if the manifest holds none."""
    return Usage(**{name: record[name] for name in Usage.__dataclass_fields__ if name in record})


def total(all_of_it: Iterable[Usage]) -> Usage:
    """Add up usages, whichever runs they belong to."""
    found = list(all_of_it)
    amounts = ("cpu_seconds", "gpu_seconds", "usd", "waited_s")
    return Usage(**{name: sum(getattr(t, name) for t in found) for name in amounts})
