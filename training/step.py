"""One optimizer step: a global batch dealt to the workers, their passes, and one mean over all of them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.models.positions import steady_positions
from cluster.seeds import derive_seed
from training.batches import Rows, collate, deal_groups, examples_of, stacked
from training.data import ARRAY, COUNTS, TREES, Examples
from training.job import TrainJob
from training.objectives.objective import trees_of
from training.settings import learning_rate_at
from training.worker import Worker

if TYPE_CHECKING:
    from training.engine import Student


@dataclass(frozen=True)
class Stepper:
    """Makes the optimizer steps of a training on this worker.

    Attributes:
        mass: the mass of each example under the job's objective.
        total: the number of steps of the whole training.
        alone_above: examples longer than this have a pass of their own.
    """

    job: TrainJob
    worker: Worker
    student: "Student"
    examples: Examples
    mass: np.ndarray
    total: int
    alone_above: float

    def take(self, step: int, batch: list[int]) -> tuple[dict[str, float], float, int]:
        """One optimizer step on a global batch of groups.

        Returns:
            The mean over the global batch's mass of the loss, as `loss_nats`, and of the objective's metrics;
            the mass; this worker's passes.
        """
        import torch

        torch.manual_seed(derive_seed(self.job.seed, step, self.worker.rank))
        engine, settings, examples = self.student.engine, self.job.settings, self.examples
        limit = settings.micro_batch_tokens
        workers, layout = self.worker.workers, self.student.layout
        widths = self.alone_above, self.student.even_width
        shares = deal_groups(batch, examples, workers, limit, layout, *widths)
        micro = shares[self.worker.rank]
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
            tensors = self._tensors(rows or spare, masked=not rows)
            loss, metrics = engine({**tensors, "step": torch.tensor(self.job.first + step)})
            for name, value in {"loss_nats": loss.detach(), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + value.double()
            # DeepSpeed takes the mean over workers. The sum over workers is what gives the mean over the
            # global batch's mass.
            engine.backward(loss * (workers / mass), scale_wrt_gas=False)
        engine.step()
        means = {name: value / mass for name, value in _summed(sums, self.worker.device).items()}
        if not math.isfinite(means["loss_nats"]):
            raise FloatingPointError(
                f"the loss of step {step} is {means['loss_nats']}; lower the learning rate"
            )
        return means, mass, len(micro)

    def _tensors(self, rows: Rows, masked: bool) -> dict[str, Any]:
        """A micro-batch on the device. A masked one has no loss. It only exists because all workers make
        equally many passes.
        """
        import torch

        if any(self.examples.lengths[i] > self.alone_above for row in rows for i in row):
            steady_positions(self.student.model)
        is_shared = self.student.layout == "shared"
        batch = collate(rows, self.examples, self.examples.common if is_shared else None)
        lists: dict[str, Any] = {**batch.inputs(self.student.layout), "labels": batch.labels}
        if self.examples.has_groups:
            lists |= {"owners": batch.owners, "groups": batch.groups}
        tensors = {name: torch.tensor(value, device=self.worker.device) for name, value in lists.items()}
        tensors["weights"] = torch.tensor(batch.weights, device=self.worker.device, dtype=torch.float32)
        if is_shared:
            tensors[TREES] = trees_of(batch)
        if masked:
            tensors["weights"].zero_()
        for name, width in self.examples.widths.items():
            array, counts = stacked(batch, name, width)
            tensors[ARRAY + name] = torch.from_numpy(array).to(self.worker.device)
            tensors[COUNTS + name] = torch.from_numpy(counts).to(self.worker.device)
        return tensors


def _summed(sums: dict[str, Any], device: Any) -> dict[str, float]:
    """Add up sums over all workers. All workers have the same names."""
    import torch
    import torch.distributed as dist

    together = torch.stack([sums[name].to(device) for name in sorted(sums)])
    dist.all_reduce(together)
    return dict(zip(sorted(sums), together.tolist(), strict=True))
