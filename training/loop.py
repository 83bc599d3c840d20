"""The training loop. Each Ray Train worker runs it for a queue of training jobs, on a DeepSpeed engine.

One worker group trains many jobs in turn (arms, students, seeds), because starting a group costs more than a
short fine-tune. Every random choice follows from (seed, step), so a job that is killed and resumed ends at
the same weights. DeepSpeed is imported here and only here, inside the worker.
"""

import json
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from cluster.errors import TutelageError
from cluster.models.loading import load_tokenizer
from cluster.models.positions import stretched_above
from cluster.seeds import derive_seed
from cluster.storage import Place
from training.batches import count_steps, global_batches
from training.checkpoints import on_this_node, read_marker, whole_checkpoints
from training.data import Examples
from training.exports import NotWhatWasTrained
from training.job import DONE, FAILED, WEIGHTS, TrainJob, paused_name
from training.metrics import METRICS, MetricsFile
from training.saving import checkpoint, export, keep_optimizer
from training.settings import engine_config
from training.step import Stepper
from training.waiting import BEGUN, say_begun
from training.worker import Worker, wait_for_all


def train_worker(config: dict[str, Any]) -> None:
    """Entry of a Ray Train worker: train every job of the queue that is not done, in order."""
    import ray.train

    def report(metrics: dict[str, Any], folder: str) -> None:
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    context, checkpoints = ray.train.get_context(), Place(config["checkpoints"])
    worker = Worker(
        rank=context.get_world_rank(),
        workers=context.get_world_size(),
        is_first_here=context.get_local_rank() == 0,
        device=ray.train.torch.get_device(),
        node=ray.get_runtime_context().get_node_id(),
        report=report,
        begun=partial(say_begun, checkpoints / BEGUN),
    )
    train_queue(config["jobs"], checkpoints, worker)


def train_queue(jobs: Sequence[TrainJob], checkpoints: Place, worker: Worker) -> None:
    """Train every job that is not done, in order, as one process of a group that has been initialised.

    If a loss is not finite, or an export is not the trained model, the queue ends and a file says why. No
    exception is raised, because Ray would restart the group and the same would happen again.
    """
    for job in jobs:
        if job.is_done:
            continue
        run = _JobRun(job, checkpoints, worker)
        if worker.rank == 0:
            worker.begun()
        try:
            run.run()
        except (FloatingPointError, NotWhatWasTrained) as error:  # all workers get it at the same time
            run.fail(str(error))
            return


class _JobRun:
    """One job on this rank: its data, the student on its engine, resume, steps, export."""

    def __init__(self, job: TrainJob, checkpoints: Place, worker: Worker) -> None:
        import torch

        from training.engine import start

        self.job, self.settings, self.output, self.checkpoints = (
            job,
            job.settings,
            Place(job.output),
            checkpoints,
        )
        self.worker, self.rank, self.workers, self.device = worker, worker.rank, worker.workers, worker.device
        self.examples = Examples(Place(job.examples))
        self.groups = len(self.examples.group_lengths)
        self.total = count_steps(
            self.groups, self.settings.batch_size, self.settings.epochs, self.settings.steps
        )
        torch.manual_seed(derive_seed(job.seed, "start"))
        self.tokenizer = load_tokenizer(job.source)
        if job.chat_template is not None:
            tools = {} if job.tool_template is None else {"tool_use": job.tool_template}
            self.tokenizer.chat_template = (
                {"default": job.chat_template, **tools} if tools else job.chat_template
            )
        self.end = min(job.until or self.total, self.total)
        self.found = self._newest_checkpoint() or self._carried()
        sharded = engine_config(self.settings, self.workers)["zero_optimization"]["stage"] > 0
        self.resized = sharded and self.found is not None and self.found[2] != self.workers
        objective = job.objective.make()
        self.counts = objective.counts
        about = (self.settings, self.workers, self.device, self.resized, job.frozen)
        self.student = start(job.source, objective, *about, groups=self.examples.has_groups)
        self.stepper = Stepper(
            job,
            worker,
            self.student,
            self.examples,
            objective.mass(self.examples),
            self.total,
            stretched_above(self.student.model),
        )

    def run(self) -> None:
        """Train from the newest checkpoint to the end of this attempt, export, and release everything."""
        first, end = self._resume(), self.end
        metrics = MetricsFile(self.output / METRICS, first) if self.rank == 0 else None
        batches = global_batches(self.groups, self.settings.batch_size, self.job.seed, first, end)
        for step, batch in zip(range(first, end), batches, strict=True):
            began = time.monotonic()
            means, mass, passes = self.stepper.take(step, batch)
            done, seconds = step + 1, round(time.monotonic() - began, 4)
            if metrics is not None:
                row = {"step": done, "of": self.total, **means, self.counts: mass, "seconds": seconds}
                metrics.append(row | {"passes": passes})
            if done in self.job.export_steps:
                self._export(f"step-{done}")
            if done < self.total and (done % self.settings.checkpoint_every == 0 or done == end):
                if metrics is not None and not self.output.is_local:
                    metrics.save()
                checkpoint(self.job, self.worker, self.student, done, means["loss_nats"])
        if metrics is not None:
            metrics.save()
        self._export(WEIGHTS if end == self.total else f"step-{end}")
        if end == self.total and self.job.keeps_optimizer:
            keep_optimizer(self.job, self.worker, self.student, self.total)
        self._mark(DONE if end == self.total else paused_name(end))
        self.student.release()

    def fail(self, reason: str) -> None:
        """Write why this job cannot be trained, and release everything."""
        if self.rank == 0:
            content = json.dumps({"job": self.job.job_id, "reason": reason})
            (self.output / FAILED).write_bytes(content.encode())
        wait_for_all()
        self.student.release()

    def _newest_checkpoint(self) -> tuple[int, Place, int] | None:
        """The newest whole checkpoint of this job that is not beyond this attempt's end: its step, its place,
        its number of workers.
        """
        import torch.distributed as dist

        found = [whole_checkpoints(self.checkpoints, self.job.job_id)] if self.rank == 0 else [[]]
        dist.broadcast_object_list(found)  # shared storage may show the ranks different files for a moment
        return next((f for f in found[0] if f[0] <= self.end), None)

    def _carried(self) -> tuple[int, Place, int] | None:
        """The optimizer state of the previous training, as a checkpoint of step 0. None if this job starts
        its own.

        Raises:
            TutelageError: it is missing, or not whole.
        """
        if self.job.carried is None:
            return None
        place = Place(self.job.carried)
        marker = read_marker(place)
        if marker is None:
            raise TutelageError(
                "the optimizer state of the previous round is missing",
                place,
                "a whole checkpoint",
                "train the previous round again",
            )
        return 0, place, marker.workers

    def _resume(self) -> int:
        """Load the checkpoint that was found, if there was one, and return its step.

        Raises:
            TutelageError: the checkpoint is whole, and DeepSpeed cannot load it.
        """
        if self.found is None:
            return 0
        step, checkpoint, _ = self.found
        with on_this_node(checkpoint, self.worker.is_first_here) as folder:
            tag = "step"
            if self.resized:
                from training.engine import make_universal

                tag = "step_universal"
                if self.worker.is_first_here:
                    make_universal(folder / "step", folder / tag)
                wait_for_all()
            strict = self.settings.lora is None
            path, _ = self.student.engine.load_checkpoint(str(folder), tag=tag, load_module_strict=strict)
        if path is None:
            raise TutelageError(
                "a whole checkpoint could not be loaded",
                checkpoint,
                "",
                "remove it; training continues from the one before",
            )
        return step

    def _export(self, name: str) -> None:
        export(self.job, self.worker, self.student, self.tokenizer, self.output / name)

    def _mark(self, name: str) -> None:
        """Write the file that ends this attempt."""
        if self.rank == 0:
            record = {
                "job": self.job.job_id,
                "steps": self.total,
                "settings": asdict(self.settings),
                "pid": os.getpid(),
            }
            record["peak_memory_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            record |= {"fallbacks": self.student.fallbacks, "node": self.worker.node}
            (self.output / name).write_bytes(json.dumps(record).encode())
        wait_for_all()
