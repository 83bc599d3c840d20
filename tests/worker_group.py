"""Processes that train together without Ray: the same loop, started once and used by many tests."""

import os
import queue
import shutil
import socket
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp

from cluster.storage import Place
from tests.patience import LOOK_S, Patience
from training.job import TrainJob

HANGS_S = 240  # on a quick machine: a group that has not answered by then


class WorkerGroup:
    """`workers` processes of one gloo group; `run` calls a function in each of them and waits for all."""

    def __init__(self, workers: int) -> None:
        context = mp.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.workers = workers
        self.inboxes = [context.Queue() for _ in range(workers)]
        self.outbox = context.Queue()
        arguments = [(rank, workers, port, self.inboxes[rank], self.outbox) for rank in range(workers)]
        self.processes = [context.Process(target=_serve, args=a, daemon=True) for a in arguments]
        for process in self.processes:
            process.start()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What the function gives in each process, by rank; its first argument is the rank.

        Raises:
            AssertionError: with the worker's traceback; or the group hangs.
        """
        for inbox in self.inboxes:
            inbox.put((function, arguments))
        found: dict[int, Any] = {}
        while len(found) < self.workers:
            rank, value, problem = self._next()
            assert problem is None, problem
            found[rank] = value
        return [found[rank] for rank in range(self.workers)]

    def _next(self) -> tuple[int, Any, str | None]:
        patience = Patience(HANGS_S)
        while True:
            try:
                told: tuple[int, Any, str | None] = self.outbox.get(timeout=LOOK_S)
                return told
            except queue.Empty:
                assert not patience.is_over, "the group hangs"

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _serve(rank: int, workers: int, port: int, inbox: Any, outbox: Any) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE=str(workers),
        LOCAL_RANK=str(rank),
    )
    os.environ.update(
        DS_ACCELERATOR="cpu", DS_LOG_LEVEL="error", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false"
    )
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    while True:
        function, arguments = inbox.get()
        try:
            outbox.put((rank, function(rank, *arguments), None))
        except BaseException:
            outbox.put((rank, None, traceback.format_exc()))


def train(rank: int, jobs: Sequence[TrainJob], checkpoints: Path) -> None:
    """Train a queue of jobs as one process of this group; checkpoints are merged as Ray Train merges them."""
    import torch
    import torch.distributed as dist

    from training.loop import train_queue
    from training.worker import Worker

    def report(metrics: dict[str, Any], folder: str) -> None:
        target = checkpoints / f"checkpoint_{jobs[0].job_id}-{metrics['step']:06d}"
        for entry in sorted(Path(folder).rglob("*"), key=lambda p: p.name == "COMPLETE.json"):
            if entry.is_file():
                place = target / entry.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(entry, place)
        dist.barrier()

    worker = Worker(rank, dist.get_world_size(), rank == 0, torch.device("cpu"), "here", report)
    train_queue(jobs, Place(str(checkpoints)), worker)
