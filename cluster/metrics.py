"""Counts of finished work as Ray metrics: counters named `ray_tutelage_…` on every node's Prometheus endpoint
and in Ray's dashboard.

They are counted in the process that drives the pool, when results arrive. Prometheus computes rates:
`rate(ray_tutelage_tokens_total[1m])`.
"""

from dataclasses import dataclass, field
from typing import Any

COUNTERS = {
    "shards": "Shards finished",
    "items": "Answers or questions that went through a shard",
    "tokens": "Tokens generated, scored or evaluated",
    "retries": "Shards run again because their actor died, and calls of an endpoint made again",
    "quarantined": "Rows that ended in a named failure instead of a result",
    "spend_usd": "Spend on endpoint teachers, in USD",
    "waited_s": "Seconds that calls of endpoints took, those at once added up",
}


def ascii_of(label: str) -> str:
    """A label as Ray's metrics take it, in ASCII."""
    return label.encode("ascii", "backslashreplace").decode()


@dataclass(frozen=True)
class Tally:
    """The counts of one shard. A handler returns them."""

    items: int
    tokens: int = 0
    quarantined: int = 0
    retries: int = 0
    spend_usd: float = 0.0
    waited_s: float = 0.0


@dataclass
class Metrics:
    """Counters by stage and job. They are made when the first is needed, because Ray must be running."""

    _counters: dict[str, Any] = field(default_factory=dict)

    def count(self, name: str, amount: float, stage: str, job: str) -> None:
        """Add to one counter. An amount of 0 is ignored."""
        if not self._counters:
            from ray.util.metrics import Counter

            self._counters = {
                n: Counter(f"tutelage_{n}_total", about, tag_keys=("stage", "job"))
                for n, about in COUNTERS.items()
            }
        if amount:
            self._counters[name].inc(amount, tags={"stage": ascii_of(stage), "job": ascii_of(job)})

    def add(self, tally: Tally, stage: str, job: str) -> None:
        """Add one finished shard."""
        self.count("shards", 1, stage, job)
        for name in ("items", "tokens", "quarantined", "retries", "spend_usd", "waited_s"):
            self.count(name, getattr(tally, name), stage, job)
