"""One process of a worker group, and where all of them wait for one another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Worker:
    """One process of a worker group, and how it hands a checkpoint to whoever keeps them.

    Attributes:
        is_first_here: whether it is the first of its machine.
        node: where it runs, as Ray names its nodes.
        report: takes metrics and a directory that every worker has written its part of; all workers call it
            together.
        begun: says that the group is at work: every worker is there, with the student on its engine.
    """

    rank: int
    workers: int
    is_first_here: bool
    device: Any
    node: str
    report: Callable[[dict[str, Any], str], None]
    begun: Callable[[], None] = lambda: None


def wait_for_all() -> None:
    """Go on when every worker has come so far."""
    import torch.distributed as dist

    dist.barrier()
