"""What a training saves: checkpoints, the optimizer state for the next round, and exported models."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.models.plain_way import probe_texts
from cluster.storage import Place
from training.checkpoints import COMPLETE, Marker, copy_folder, write_marker
from training.exports import NotWhatWasTrained, export_model, probe_of
from training.job import OPTIMIZER, TrainJob
from training.worker import Worker, wait_for_all

if TYPE_CHECKING:
    from training.engine import Student


def checkpoint(job: TrainJob, worker: Worker, student: "Student", step: int, loss: float) -> None:
    """Save this worker's part of a checkpoint and report it."""
    with tempfile.TemporaryDirectory() as folder:
        marker = _save_own_part(job, worker, student, folder, step)
        if worker.rank == 0:
            write_marker(Path(folder), marker)
        worker.report({"step": step, "loss_nats": loss}, folder)


def _save_own_part(job: TrainJob, worker: Worker, student: "Student", folder: str, step: int) -> Marker:
    """Write this worker's part of a checkpoint. Returns the marker of the whole."""
    import torch.distributed as dist

    student.engine.save_checkpoint(
        folder, tag="step", exclude_frozen_parameters=job.settings.lora is not None
    )
    files: list[dict[str, int] | None] = [None] * worker.workers
    dist.all_gather_object(files, Place(folder).files())
    merged = {name: size for part in files if part for name, size in part.items()}
    return Marker(job.job_id, step, worker.workers, merged)


def keep_optimizer(job: TrainJob, worker: Worker, student: "Student", step: int) -> None:
    """Save the whole training state for the training that continues from this one."""
    place = Place(job.output) / OPTIMIZER
    with tempfile.TemporaryDirectory() as folder:
        marker = _save_own_part(job, worker, student, folder, step)
        copy_folder(Path(folder), place)
        wait_for_all()
        if worker.rank == 0:
            (place / COMPLETE).write_bytes(json.dumps(asdict(marker)).encode())


def export(job: TrainJob, worker: Worker, student: "Student", tokenizer: Any, directory: Place) -> None:
    """Write the student with its present weights, as a directory that `from_pretrained` loads.

    Raises:
        NotWhatWasTrained: the export is another model. It is raised on all workers.
        FloatingPointError: the student's logits are not finite.
    """
    import torch.distributed as dist

    model = student.model
    probe = probe_of(student.logits, probe_texts(model), model.dtype)
    state = _gathered_state(job, worker, student)
    problem = [""]
    if worker.rank == 0:
        try:
            export_model(model, tokenizer, state, directory, job.source, probe, job.stop_ids)
        except NotWhatWasTrained as error:
            problem = [str(error)]
    dist.broadcast_object_list(problem)
    if problem[0]:
        raise NotWhatWasTrained(problem[0])


def _gathered_state(job: TrainJob, worker: Worker, student: "Student") -> dict[str, Any]:
    """The state dict (for LoRA: the adapter's part) on the CPU of rank 0; ZeRO-3 parameters are gathered one
    at a time.
    """
    import deepspeed

    module, only_trained = student.model, job.settings.lora is not None
    state: dict[str, Any] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if only_trained and not parameter.requires_grad:
            continue
        with deepspeed.zero.GatheredParameters([parameter], enabled=student.is_sharded):
            if worker.rank == 0:
                state[name] = parameter.detach().to("cpu", copy=True)
    if worker.rank == 0 and not only_trained:
        state.update(
            {k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items() if k not in state}
        )
    return state
