"""One process of a worker group, and the barrier of all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Worker:
    """One process of a worker group, and how it reports a checkpoint.

    Attributes:
        is_first_here: whether it is the first of its machine.
        node: Ray's name of the node that it runs on.
        report: takes metrics, and a directory into which every worker has written its part. All workers call
            it together.
        begun: marks the group as at work: every worker has the student on its engine.
    """

    rank: int
    workers: int
    is_first_here: bool
    device: Any
    node: str
    report: Callable[[dict[str, Any], str], None]
    begun: Callable[[], None] = lambda: None


def wait_for_all() -> None:
    """Wait until every worker has called this."""
    import torch.distributed as dist

    dist.barrier()
