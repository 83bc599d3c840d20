"""How many workers each stage has, and what each is given."""

import math

from pydantic import Field

from cluster.placement import Needs
from cluster.pool import SHARD_DEADLINE_S
from jobs.experiment.section import Section
from training.waiting import START_DEADLINE_S


class TrainPlacement(Section):
    """What each train worker is given; what is not set is as for the student's other actors.

    GPUs are whole: half a GPU is enough to score with, but two workers of one group cannot share one under
    NCCL.
    """

    num_cpus: float | None = Field(None, ge=0)
    num_gpus: int | None = Field(None, ge=0)
    memory_gib: float | None = Field(None, ge=0)
    labels: dict[str, str] | None = None


class Placement(Section):
    """Workers of each stage and what each is given; `labels` are those that the nodes of students must carry.
    A training is shared by `train_workers`, and `train_lanes` trainings run side by side.

    A shard, or a model's loading, that takes longer than `shard_deadline_s` counts as a death of its actor.
    A worker group that has not got to work within `train_start_deadline_s`, waiting for room included, ends
    the run.
    Cluster settings never change results or ids.
    """

    score_workers: int = Field(2, ge=1)
    evaluate_workers: int = Field(2, ge=1)
    train_workers: int = Field(1, ge=1)
    train_lanes: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0, le=1)
    memory_gib: float = Field(0.0, ge=0)
    labels: dict[str, str] = Field(default_factory=dict)
    train: TrainPlacement = TrainPlacement()
    max_failures: int = Field(3, ge=0)
    shard_deadline_s: float = Field(SHARD_DEADLINE_S, gt=0)
    train_start_deadline_s: float = Field(START_DEADLINE_S, gt=0)

    @property
    def needs(self) -> Needs:
        """What one actor with a student asks of the cluster."""
        return Needs(self.num_cpus, self.num_gpus, self.memory_gib, tuple(sorted(self.labels.items())))

    @property
    def train_needs(self) -> Needs:
        """What one train worker asks of the cluster: at least one CPU, unless a GPU does its work, and whole
        GPUs.
        """
        t = self.train
        gpus = math.ceil(self.num_gpus) if t.num_gpus is None else t.num_gpus
        cpus = t.num_cpus if t.num_cpus is not None else max(self.num_cpus, 0.1 if gpus else 1.0)
        labels = self.labels if t.labels is None else t.labels
        return Needs(
            cpus,
            float(gpus),
            self.memory_gib if t.memory_gib is None else t.memory_gib,
            tuple(sorted(labels.items())),
        )
