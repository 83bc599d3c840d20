"""The one training loop: what each Ray Train worker runs, for a queue of training jobs, on a DeepSpeed
engine.

One worker group trains many jobs in turn (arms, students, seeds), because starting a group costs more than a
short fine-tune. Every random choice follows from (seed, step), so a job that is killed and resumed ends at
the same weights. DeepSpeed is imported here and only here, inside the worker.
"""

import contextlib
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
from cluster.models.loading import ModelSource, load_model, load_tokenizer, steady_positions, stretched_above
from cluster.seeds import derive_seed
from cluster.storage import Place
from training.checkpoints import Marker, export_model, on_this_node, whole_checkpoints, write_marker
from training.data import Examples, Rows, collate, count_examples, count_steps, deal, global_batches
from training.metrics import METRICS, MetricsFile
from training.settings import TrainSettings, engine_config, learning_rate_at

DONE = "DONE.json"
FAILED = "FAILED.json"  # why a training ended that would end there again


@dataclass(frozen=True)
class TrainJob:
    """One training: a start model, examples, and the directory (local or by URI) that gets `model/`, metrics
    and a DONE file.

    With `until`, this attempt ends after that many steps with a checkpoint, an export to `step-<until>/` and
    a file `PAUSED-<until>.json`; the same job without it, or with a later one, goes on from there to the same
    weights.
    """

    job_id: str
    source: ModelSource
    examples: str
    output: str
    seed: int
    settings: TrainSettings
    export_steps: tuple[int, ...] = ()
    chat_template: str | None = None
    until: int | None = None

    @property
    def steps(self) -> int:
        """How many optimizer steps are done when this attempt has ended."""
        s = self.settings
        total = count_steps(count_examples(Place(self.examples)), s.batch_size, s.epochs, s.steps)
        return min(self.until or total, total)

    @property
    def failure(self) -> str:
        """Why the last attempt ended before its time; empty when it did not."""
        try:
            return str(json.loads((Place(self.output) / FAILED).read_text())["reason"])
        except FileNotFoundError:
            return ""

    def forget_failure(self) -> None:
        """Let the next attempt begin without what the last one ended with."""
        with contextlib.suppress(FileNotFoundError):
            (Place(self.output) / FAILED).unlink()

    @property
    def has_ended(self) -> bool:
        """Whether the whole training is over."""
        return (Place(self.output) / DONE).is_file()

    @property
    def is_done(self) -> bool:
        """Whether this attempt has nothing left to do."""
        return self.has_ended or (
            self.until is not None and (Place(self.output) / paused_name(self.until)).is_file()
        )


def paused_name(step: int | str) -> str:
    """The file that says a job has been trained and exported up to a step."""
    return f"PAUSED-{step}.json"


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

        self.job, self.settings, self.output, self.checkpoints = (
            job,
            job.settings,
            Place(job.output),
            checkpoints,
        )
        self.worker, self.rank, self.workers, self.device = worker, worker.rank, worker.workers, worker.device
        self.examples = Examples(Place(job.examples))
        self.total = count_steps(
            len(self.examples), self.settings.batch_size, self.settings.epochs, self.settings.steps
        )
        torch.manual_seed(derive_seed(job.seed, "start"))
        self.tokenizer = load_tokenizer(job.source)
        if job.chat_template is not None:
            self.tokenizer.chat_template = job.chat_template
        self.end = min(job.until or self.total, self.total)
        self.found = self._newest_checkpoint()
        sharded = engine_config(self.settings, self.workers)["zero_optimization"]["stage"] > 0
        self.resized = sharded and self.found is not None and self.found[2] != self.workers
        self.student = start(job.source, self.settings, self.workers, self.device, universal=self.resized)
        self.alone_above = stretched_above(self.student.model)

    def run(self) -> None:
        """Train from the newest checkpoint to the end of this attempt, export, and let everything go."""
        first, end = self._resume(), self.end
        metrics = MetricsFile(self.output / METRICS, first) if self.rank == 0 else None
        batches = global_batches(len(self.examples), self.settings.batch_size, self.job.seed, first, end)
        for step, batch in zip(range(first, end), batches, strict=True):
            began = time.monotonic()
            loss, tokens, passes = self._step(step, batch)
            done, seconds = step + 1, round(time.monotonic() - began, 4)
            if metrics is not None:
                row = {
                    "step": done,
                    "of": self.total,
                    "loss_nats": loss,
                    "answer_tokens": tokens,
                    "seconds": seconds,
                }
                metrics.append(row | {"passes": passes})
            if done in self.job.export_steps:
                self._export(self.output / f"step-{done}")
            if done < self.total and (done % self.settings.checkpoint_every == 0 or done == end):
                if metrics is not None and not self.output.is_local:
                    metrics.save()
                self._checkpoint(done, loss)
        if metrics is not None:
            metrics.save()
        self._export(self.output / ("model" if end == self.total else f"step-{end}"))
        self._mark(DONE if end == self.total else paused_name(end))
        self.student.release()

    def fail(self, reason: str) -> None:
        """Say why this job cannot be trained, and let everything go."""
        if self.rank == 0:
            content = json.dumps({"job": self.job.job_id, "reason": reason})
            (self.output / FAILED).write_bytes(content.encode())
        wait_for_all()
        self.student.release()

    def _step(self, step: int, batch: list[int]) -> tuple[float, float, int]:
        """One optimizer step; returns the mean loss in nats per answer token over the global batch, its token
        weight, its passes.
        """
        import torch
        import torch.distributed as dist

        torch.manual_seed(derive_seed(self.job.seed, step, self.rank))
        engine, settings = self.student.engine, self.settings
        lengths = self.examples.lengths
        shares = deal(
            batch, lengths, self.workers, settings.micro_batch_tokens, self.student.layout, self.alone_above
        )
        micro = shares[self.rank]
        total_weight = float(sum(self.examples.mass[i] for i in batch))
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.total, settings)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        spare = min(batch, key=lambda i: (lengths[i], i))
        for k, rows in enumerate(micro):
            engine.set_gradient_accumulation_boundary(k + 1 == len(micro))
            loss = engine(self._tensors(rows or [[spare]], masked=not rows))
            loss_sum += loss.detach()
            # DeepSpeed takes the mean over workers; the sum of what they give is the mean over the global
            # batch's tokens.
            engine.backward(loss * (self.workers / total_weight), scale_wrt_gas=False)
        engine.step()
        dist.all_reduce(loss_sum)
        mean = float(loss_sum) / total_weight
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss of step {step} is {mean}; lower the learning rate")
        return mean, total_weight, len(micro)

    def _tensors(self, rows: Rows, masked: bool) -> dict[str, Any]:
        """A micro-batch on the device; a masked one has no loss, and is there because every worker makes as
        many passes.
        """
        import torch

        if any(self.examples.lengths[i] > self.alone_above for row in rows for i in row):
            steady_positions(self.student.model)
        batch = collate(rows, self.examples)
        lists: dict[str, Any] = {**batch.inputs(self.student.layout), "labels": batch.labels}
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
        import torch.distributed as dist

        with tempfile.TemporaryDirectory() as folder:
            frozen = self.settings.lora is not None
            self.student.engine.save_checkpoint(folder, tag="step", exclude_frozen_parameters=frozen)
            files: list[dict[str, int] | None] = [None] * self.workers
            dist.all_gather_object(files, Place(folder).files())
            if self.rank == 0:
                merged = {name: size for part in files if part for name, size in part.items()}
                write_marker(Path(folder), Marker(self.job.job_id, step, self.workers, merged))
            self.worker.report({"step": step, "loss_nats": loss}, folder)

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


def wait_for_all() -> None:
    """Go on when every worker has come so far."""
    import torch.distributed as dist

    dist.barrier()
