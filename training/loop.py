"""The one training loop: what each Ray Train worker runs, for a queue of training jobs, on a DeepSpeed
engine.

One worker group trains many jobs in turn (arms, students, seeds), because starting a group costs more than a
short fine-tune. Every random choice follows from (seed, step), so a job that is killed and resumed ends at
the same weights. DeepSpeed is imported here and only here, inside the worker.
"""

import json
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster.errors import TutelageError
from cluster.models.loading import load_model, load_tokenizer, steady_positions, stretched_above
from cluster.seeds import derive_seed
from cluster.storage import Place
from training.batches import Rows, collate, count_steps, deal_groups, examples_of, global_batches
from training.checkpoints import (
    COMPLETE,
    Marker,
    copy_folder,
    export_model,
    on_this_node,
    read_marker,
    whole_checkpoints,
    write_marker,
)
from training.data import Examples
from training.job import DONE, FAILED, OPTIMIZER, TrainJob, paused_name
from training.metrics import METRICS, MetricsFile
from training.settings import engine_config, learning_rate_at


@dataclass(frozen=True)
class Worker:
    """One process of a worker group, and how it hands a checkpoint to whoever keeps them.

    Attributes:
        is_first_here: whether it is the first of its machine.
        node: where it runs, as Ray names its nodes.
        report: takes metrics and a directory that every worker has written its part of; all workers call it
            together.
    """

    rank: int
    workers: int
    is_first_here: bool
    device: Any
    node: str
    report: Callable[[dict[str, Any], str], None]


def train_worker(config: dict[str, Any]) -> None:
    """Entry of a Ray Train worker: train every job of the queue that is not done, in order."""
    import ray.train

    def report(metrics: dict[str, Any], folder: str) -> None:
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        workers=context.get_world_size(),
        is_first_here=context.get_local_rank() == 0,
        device=ray.train.torch.get_device(),
        node=ray.get_runtime_context().get_node_id(),
        report=report,
    )
    train_queue(config["jobs"], Place(config["checkpoints"]), worker)


def train_queue(jobs: Sequence[TrainJob], checkpoints: Place, worker: Worker) -> None:
    """Train every job that is not done, in order, as one process of a group that has been initialised.

    A loss that is not finite ends the queue and leaves a file that says so. It would be the same after a
    restart, which an exception would ask Ray for.
    """
    for job in jobs:
        if job.is_done:
            continue
        run = _JobRun(job, checkpoints, worker)
        try:
            run.run()
        except FloatingPointError as error:  # of every worker: they know the loss together
            run.fail(str(error))
            return


class _JobRun:
    """One job on this rank: its data, the student on its engine, resume, steps, export."""

    def __init__(self, job: TrainJob, checkpoints: Place, worker: Worker) -> None:
        import torch

        from training.engine import start
        from training.objectives import OBJECTIVES

        self.job, self.settings, self.output, self.checkpoints = (
            job,
            job.settings,
            Place(job.output),
            checkpoints,
        )
        self.worker, self.rank, self.workers, self.device = worker, worker.rank, worker.workers, worker.device
        self.examples = Examples(Place(job.examples))
        self.mass = OBJECTIVES[self.settings.objective].mass(self.examples)
        self.groups = len(self.examples.group_lengths)
        self.total = count_steps(
            self.groups, self.settings.batch_size, self.settings.epochs, self.settings.steps
        )
        torch.manual_seed(derive_seed(job.seed, "start"))
        self.tokenizer = load_tokenizer(job.source)
        if job.chat_template is not None:
            self.tokenizer.chat_template = job.chat_template
        self.end = min(job.until or self.total, self.total)
        self.found = self._newest_checkpoint() or self._carried()
        sharded = engine_config(self.settings, self.workers)["zero_optimization"]["stage"] > 0
        self.resized = sharded and self.found is not None and self.found[2] != self.workers
        self.student = start(job.source, self.settings, self.workers, self.device, universal=self.resized)
        self.alone_above = stretched_above(self.student.model)

    def run(self) -> None:
        """Train from the newest checkpoint to the end of this attempt, export, and let everything go."""
        first, end = self._resume(), self.end
        metrics = MetricsFile(self.output / METRICS, first) if self.rank == 0 else None
        batches = global_batches(self.groups, self.settings.batch_size, self.job.seed, first, end)
        for step, batch in zip(range(first, end), batches, strict=True):
            began = time.monotonic()
            means, mass, passes = self._step(step, batch)
            done, seconds = step + 1, round(time.monotonic() - began, 4)
            if metrics is not None:
                row = {"step": done, "of": self.total, **means, "answer_tokens": mass, "seconds": seconds}
                metrics.append(row | {"passes": passes})
            if done in self.job.export_steps:
                self._export(self.output / f"step-{done}")
            if done < self.total and (done % self.settings.checkpoint_every == 0 or done == end):
                if metrics is not None and not self.output.is_local:
                    metrics.save()
                self._checkpoint(done, means["loss_nats"])
        if metrics is not None:
            metrics.save()
        self._export(self.output / ("model" if end == self.total else f"step-{end}"))
        if end == self.total and self.job.keeps_optimizer:
            self._keep_optimizer()
        self._mark(DONE if end == self.total else paused_name(end))
        self.student.release()

    def fail(self, reason: str) -> None:
        """Say why this job cannot be trained, and let everything go."""
        if self.rank == 0:
            content = json.dumps({"job": self.job.job_id, "reason": reason})
            (self.output / FAILED).write_bytes(content.encode())
        wait_for_all()
        self.student.release()

    def _step(self, step: int, batch: list[int]) -> tuple[dict[str, float], float, int]:
        """One optimizer step on a global batch of groups.

        Returns:
            The mean over the global batch's mass of the loss, as `loss_nats`, and of the objective's metrics;
            the mass; this worker's passes.
        """
        import torch

        torch.manual_seed(derive_seed(self.job.seed, step, self.rank))
        engine, settings, examples = self.student.engine, self.settings, self.examples
        limit = settings.micro_batch_tokens
        shares = deal_groups(batch, examples, self.workers, limit, self.student.layout, self.alone_above)
        micro = shares[self.rank]
        mass = float(sum(self.mass[i] for g in batch for i in examples.members(g)))
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate_at(
                self.job.first + step, self.job.schedule_steps or self.total, settings
            )
        sums: dict[str, Any] = {}
        smallest = min(batch, key=lambda g: (examples.group_lengths[g], g))
        spare = examples_of([[smallest]], examples, self.student.layout)
        for k, rows in enumerate(micro):
            engine.set_gradient_accumulation_boundary(k + 1 == len(micro))
            loss, metrics = engine(self._tensors(rows or spare, masked=not rows))
            for name, value in {"loss_nats": loss.detach(), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + value.double()
            # DeepSpeed takes the mean over workers; the sum of what they give is the mean over the global
            # batch's mass.
            engine.backward(loss * (self.workers / mass), scale_wrt_gas=False)
        engine.step()
        means = {name: value / mass for name, value in _summed(sums, self.device).items()}
        if not math.isfinite(means["loss_nats"]):
            raise FloatingPointError(
                f"the loss of step {step} is {means['loss_nats']}; lower the learning rate"
            )
        return means, mass, len(micro)

    def _tensors(self, rows: Rows, masked: bool) -> dict[str, Any]:
        """A micro-batch on the device; a masked one has no loss, and is there because every worker makes as
        many passes.
        """
        import torch

        if any(self.examples.lengths[i] > self.alone_above for row in rows for i in row):
            steady_positions(self.student.model)
        batch = collate(rows, self.examples)
        lists: dict[str, Any] = {**batch.inputs(self.student.layout), "labels": batch.labels}
        if self.examples.has_groups:
            lists |= {"owners": batch.owners, "groups": batch.groups}
        tensors = {name: torch.tensor(value, device=self.device) for name, value in lists.items()}
        tensors["weights"] = torch.tensor(batch.weights, device=self.device, dtype=torch.float32)
        if masked:
            tensors["weights"].zero_()
        return tensors

    def _newest_checkpoint(self) -> tuple[int, Place, int] | None:
        """The newest whole checkpoint of this job that is not beyond this attempt's end: its step, its place,
        its workers.
        """
        import torch.distributed as dist

        found = [whole_checkpoints(self.checkpoints, self.job.job_id)] if self.rank == 0 else [[]]
        dist.broadcast_object_list(found)  # shared storage may show the ranks different files for a moment
        return next((f for f in found[0] if f[0] <= self.end), None)

    def _carried(self) -> tuple[int, Place, int] | None:
        """Where the training before left its optimizer, as a checkpoint of step 0; None where this one brings
        its own.

        Raises:
            TutelageError: it is not there, or not whole.
        """
        if self.job.carried is None:
            return None
        place = Place(self.job.carried)
        marker = read_marker(place)
        if marker is None:
            raise TutelageError(
                "the optimizer of the training before is not there",
                place,
                "a whole checkpoint",
                "train the round before again",
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
                "remove it; training goes on from the one before",
            )
        return step

    def _checkpoint(self, step: int, loss: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            marker = self._save_own_part(folder, step)
            if self.rank == 0:
                write_marker(Path(folder), marker)
            self.worker.report({"step": step, "loss_nats": loss}, folder)

    def _save_own_part(self, folder: str, step: int) -> Marker:
        """Write this worker's part of a checkpoint; returns what is to be said of the whole."""
        import torch.distributed as dist

        frozen = self.settings.lora is not None
        self.student.engine.save_checkpoint(folder, tag="step", exclude_frozen_parameters=frozen)
        files: list[dict[str, int] | None] = [None] * self.workers
        dist.all_gather_object(files, Place(folder).files())
        merged = {name: size for part in files if part for name, size in part.items()}
        return Marker(self.job.job_id, step, self.workers, merged)

    def _keep_optimizer(self) -> None:
        """Leave the whole training state for the training that goes on from this one."""
        place = self.output / OPTIMIZER
        with tempfile.TemporaryDirectory() as folder:
            marker = self._save_own_part(folder, self.total)
            copy_folder(Path(folder), place)
            wait_for_all()
            if self.rank == 0:
                (place / COMPLETE).write_bytes(json.dumps(asdict(marker)).encode())

    def _gathered_state(self) -> dict[str, Any]:
        """The state dict (for LoRA: the adapter's part) on the CPU of rank 0; ZeRO-3 parameters are gathered
        one at a time.
        """
        import deepspeed

        module, only_trained = self.student.model, self.settings.lora is not None
        state: dict[str, Any] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if only_trained and not parameter.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.student.is_sharded):
                if self.rank == 0:
                    state[name] = parameter.detach().to("cpu", copy=True)
        if self.rank == 0 and not only_trained:
            state.update(
                {k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items() if k not in state}
            )
        return state

    def _export(self, directory: Place) -> None:
        state = self._gathered_state()
        if self.rank == 0:
            base = (
                None
                if self.settings.lora is None
                else load_model(replace(self.job.source, adapter=None, dtype="float32"))
            )
            export_model(self.student.model, self.tokenizer, state, directory, adapter_base=base)
        wait_for_all()

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


def _summed(sums: dict[str, Any], device: Any) -> dict[str, float]:
    """Sums over all workers, which all have the same names."""
    import torch
    import torch.distributed as dist

    together = torch.stack([sums[name].to(device) for name in sorted(sums)])
    dist.all_reduce(together)
    return dict(zip(sorted(sums), together.tolist(), strict=True))


def wait_for_all() -> None:
    """Go on when every worker has come so far."""
    import torch.distributed as dist

    dist.barrier()
