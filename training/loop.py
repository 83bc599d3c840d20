"""The one training loop: what each Ray Train worker runs, for a queue of training jobs, on a DeepSpeed engine.

One worker group trains many jobs in turn (arms, students, seeds), because starting a group costs more than a short
fine-tune. Every random choice follows from (seed, step), so a job that is killed and resumed ends at the same weights.
DeepSpeed is imported here and only here, inside the worker.
"""

import json
import math
import os
import resource
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from cluster.errors import BadInput
from cluster.loading import ModelSource, load_model, load_tokenizer
from cluster.storage import Place
from training.checkpoints import Marker, as_directory, export_model, whole_checkpoints, write_marker
from training.data import Example, collate, count_steps, global_batch, pack, read_examples, split_over_workers
from training.metrics import METRICS, MetricsFile

DONE = "DONE.json"


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters: rank `r`, scale `alpha / r`, on `target_modules` (peft's word for all linear layers by default)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


@dataclass(frozen=True)
class TrainSettings:
    """How a student is fine-tuned. `batch_size` counts examples per optimizer step over all workers."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    learning_rate: float = 1e-3
    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 32
    micro_batch_tokens: int = 4096
    warmup_ratio: float = 0.05
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.01
    gradient_clipping: float = 1.0
    objective: Literal["weighted_cross_entropy"] = "weighted_cross_entropy"
    lora: LoraSettings | None = None
    zero_stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every: int = 200
    deepspeed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainJob:
    """One training: a start model, examples, and the directory (local or by URI) that gets `model/`, metrics and a DONE file.

    With `until`, this attempt ends after that many steps with a checkpoint, an export to `step-<until>/` and a file
    `PAUSED-<until>.json`; the same job without it, or with a later one, goes on from there to the same weights.
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
    def has_ended(self) -> bool:
        """Whether the whole training is over."""
        return (Place(self.output) / DONE).is_file()

    @property
    def is_done(self) -> bool:
        """Whether this attempt has nothing left to do."""
        return self.has_ended or (self.until is not None and (Place(self.output) / paused_name(self.until)).is_file())


def paused_name(step: int | str) -> str:
    """The file that says a job has been trained and exported up to a step."""
    return f"PAUSED-{step}.json"


OWNED_BY_THE_LOOP = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "scheduler")


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that cannot be trained with, before anything starts.

    Raises:
        BadInput: a number out of range, or a DeepSpeed key that the loop computes itself.
    """
    for name, low in (
        ("batch_size", 1),
        ("micro_batch_tokens", 1),
        ("checkpoint_every", 1),
        ("steps", 1),
        ("epochs", 0),
        ("learning_rate", 0),
    ):
        value = getattr(settings, name)
        if value is not None and (value < low or (low == 0 and value == 0)):
            raise BadInput(f"train.{name} is out of range", value, f"{'more than' if low == 0 else 'at least'} {low}", "")
    for key in OWNED_BY_THE_LOOP:
        if settings.deepspeed.get(key, "auto") != "auto":
            raise BadInput(
                f"train.deepspeed sets {key}",
                settings.deepspeed[key],
                '"auto"',
                "it follows from batch_size, micro_batch_tokens and the schedule",
            )


def learning_rate_at(step: int, total: int, settings: TrainSettings) -> float:
    """The learning rate of a 0-based step: linear warm-up, then the schedule down to zero at `total`."""
    warmup = max(1, round(total * settings.warmup_ratio))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    factor = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}[settings.schedule]
    return settings.learning_rate * factor


def engine_config(settings: TrainSettings, accumulation: int, workers: int) -> dict[str, Any]:
    """The DeepSpeed configuration: ours, with the user's section laid over it untouched except for its "auto" values."""
    ours: dict[str, Any] = {
        "train_batch_size": accumulation * workers,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": settings.gradient_clipping,
        "zero_optimization": {"stage": settings.zero_stage},
        "bf16": {"enabled": settings.precision == "bfloat16"},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "torch_adam": True},
        },
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    return _overlay(ours, settings.deepspeed)


def _overlay(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    result = dict(ours)
    for key, value in theirs.items():
        if value == "auto":
            continue
        both = isinstance(value, dict) and isinstance(ours.get(key), dict)
        result[key] = _overlay(ours[key], value) if both else value
    return result


def train_worker(config: dict[str, Any]) -> None:
    """Entry of a Ray Train worker: train every job of the queue that is not done, in order."""
    for job in config["jobs"]:
        if not job.is_done:
            _JobRun(job, Place(config["checkpoints"])).run()


def _objective_module(model: Any, objective: Any) -> Any:
    """The model and its objective as one module: ZeRO-3 gathers parameters right only inside its root module's forward."""
    import torch

    class ObjectiveModule(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: dict[str, Any]) -> Any:
            return objective(self.model, batch)[0]

    return ObjectiveModule()


class _JobRun:
    """One job on this rank: engine, data plan, resume, steps, export."""

    def __init__(self, job: TrainJob, checkpoints: Place) -> None:
        import ray.train
        import torch

        self.job, self.settings, self.output, self.checkpoints = job, job.settings, Place(job.output), checkpoints
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.examples: list[Example] = read_examples(Place(job.examples))
        self.lengths = [e.length for e in self.examples]
        s = self.settings
        self.total = count_steps(len(self.examples), s.batch_size, s.epochs, s.steps)
        self.accumulation = max(
            len(pack(share, self.lengths, s.micro_batch_tokens))
            for step in range(self.total)
            for share in split_over_workers(global_batch(len(self.examples), s.batch_size, job.seed, step), self.lengths, self.workers)
        )
        self.accumulation = max(1, self.accumulation)
        torch.manual_seed(job.seed)
        self.tokenizer = load_tokenizer(job.source)
        if job.chat_template is not None:
            self.tokenizer.chat_template = job.chat_template
        self.engine = self._start_engine()

    def _start_engine(self) -> Any:
        import deepspeed
        import deepspeed.ops
        import torch

        from cluster.heads import check_projection
        from training.objectives import OBJECTIVES

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else every init compiles it, and hangs on a stale lock
        model = load_model(self.job.source)
        check_projection(model)
        if self.settings.precision == "bfloat16":
            model = model.to(torch.bfloat16)
        model.train()
        if self.settings.lora is not None:
            from peft import LoraConfig, get_peft_model

            lora = self.settings.lora
            targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
            model = get_peft_model(
                model,
                LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"),
            )
        trainable = [p for p in model.parameters() if p.requires_grad]
        module = _objective_module(model, OBJECTIVES[self.settings.objective])
        engine, *_ = deepspeed.initialize(
            model=module, model_parameters=trainable, config=engine_config(self.settings, self.accumulation, self.workers)
        )
        return engine

    def run(self) -> None:
        end = min(self.job.until or self.total, self.total)
        start = self._resume(end)
        metrics = MetricsFile(self.output / METRICS, start) if self.rank == 0 else None
        for step in range(start, end):
            began = time.monotonic()
            loss, tokens = self._step(step)
            done, seconds = step + 1, round(time.monotonic() - began, 4)
            if metrics is not None:
                metrics.append({"step": done, "of": self.total, "loss_nats": loss, "answer_tokens": tokens, "seconds": seconds})
            if done in self.job.export_steps:
                self._export(self.output / f"step-{done}")
            if done < self.total and (done % self.settings.checkpoint_every == 0 or done == end):
                if metrics is not None and not self.output.is_local:
                    metrics.save()
                self._checkpoint(done, loss)
        if metrics is not None:
            metrics.save()
        if end < self.total:
            self._export(self.output / f"step-{end}")
            self._mark(paused_name(end))
        else:
            self._export(self.output / "model")
            self._mark(DONE)

    def _step(self, step: int) -> tuple[float, float]:
        """One optimizer step; returns the mean loss in nats per answer token over the global batch, and its token weight."""
        import torch
        import torch.distributed as dist

        torch.manual_seed((self.job.seed * 1_000_003 + step) * 4099 + self.rank)
        batch = global_batch(len(self.examples), self.settings.batch_size, self.job.seed, step)
        shares = split_over_workers(batch, self.lengths, self.workers)
        micro = pack(shares[self.rank], self.lengths, self.settings.micro_batch_tokens)
        total_weight = sum(self.examples[i].loss_tokens * self.examples[i].weight for i in batch)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.total, self.settings)
        loss_sum = 0.0
        for k in range(self.accumulation):
            rows = micro[k] if k < len(micro) else [[batch[0]]]
            tensors = self._tensors(rows, masked=k >= len(micro))
            loss = self.engine(tensors)
            loss_sum += float(loss.detach())
            # DeepSpeed averages over workers and micro-batches; undo both to get the mean over the global batch's tokens.
            self.engine.backward(loss * (self.workers * self.accumulation / total_weight))
            self.engine.step()
        summed = torch.tensor([loss_sum], dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        mean = float(summed) / total_weight
        if not math.isfinite(mean):
            raise FloatingPointError(f"training {self.job.job_id}: the loss of step {step} is {mean}; lower the learning rate")
        return mean, total_weight

    def _tensors(self, rows: list[list[int]], masked: bool) -> dict[str, Any]:
        import torch

        pad = self.tokenizer.pad_token_id or 0
        batch = collate(rows, self.examples, pad)
        tensors = {
            "input_ids": torch.tensor(batch.input_ids, device=self.device),
            "position_ids": torch.tensor(batch.position_ids, device=self.device),
            "labels": torch.tensor(batch.labels, device=self.device),
            "weights": torch.tensor(batch.weights, device=self.device, dtype=torch.float32),
        }
        if masked:  # a worker with fewer micro-batches than others still has to take part in the collectives
            tensors["weights"].zero_()
        return tensors

    def _resume(self, end: int) -> int:
        """Load the newest whole checkpoint of this job that is not beyond `end`, if there is one, and return its step."""
        import torch.distributed as dist

        found = [whole_checkpoints(self.checkpoints, self.job.job_id, self.workers)] if self.rank == 0 else [[]]
        dist.broadcast_object_list(found)  # shared storage may show the ranks different files for a moment
        for step, checkpoint in found[0]:
            if step > end:  # a run that does not stop here has been further
                continue
            with as_directory(checkpoint) as folder:
                path, _ = self.engine.load_checkpoint(str(folder), tag="step", load_module_strict=self.settings.lora is None)
            if path is not None:
                return step
        return 0

    def _checkpoint(self, step: int, loss: float) -> None:
        import ray.train
        import torch.distributed as dist

        with tempfile.TemporaryDirectory() as folder:
            self.engine.save_checkpoint(folder, tag="step", exclude_frozen_parameters=self.settings.lora is not None)
            files: list[dict[str, int] | None] = [None] * self.workers
            dist.all_gather_object(files, Place(folder).files())
            if self.rank == 0:
                merged = {name: size for part in files if part for name, size in part.items()}
                write_marker(Path(folder), Marker(self.job.job_id, step, self.workers, merged))
            ray.train.report({"step": step, "loss_nats": loss}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _gathered_state(self) -> dict[str, Any]:
        """The state dict (for LoRA: the adapter's part) on the CPU of rank 0; ZeRO-3 parameters are gathered one at a time."""
        import deepspeed

        module, only_trained = self.engine.module.model, self.settings.lora is not None
        state: dict[str, Any] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if only_trained and not parameter.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.engine.zero_optimization_stage() == 3):
                if self.rank == 0:
                    state[name] = parameter.detach().to("cpu", copy=True)
        if self.rank == 0 and not only_trained:
            state.update({k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items() if k not in state})
        return state

    def _export(self, directory: Place) -> None:
        import torch.distributed as dist

        state = self._gathered_state()
        if self.rank == 0:
            base = None if self.settings.lora is None else load_model(self.job.source)
            export_model(self.engine.module.model, self.tokenizer, state, directory, adapter_base=base)
        dist.barrier()

    def _mark(self, name: str) -> None:
        """Write the file that ends this attempt, and let the engine go."""
        import torch.distributed as dist

        if self.rank == 0:
            record = {"job": self.job.job_id, "steps": self.total, "settings": asdict(self.settings), "pid": os.getpid()}
            record["peak_memory_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            (self.output / name).write_bytes(json.dumps(record).encode())
        dist.barrier()
        self.engine.destroy()
