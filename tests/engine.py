"""What tests of the training engine share: worker groups without Ray, examples, and jobs over them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.models.loading import ModelSource, load_model
from cluster.storage import Place
from tests.worker_group import WorkerGroup
from training.data import Example, write_examples
from training.job import TrainJob
from training.metrics import read_metrics
from training.settings import TrainSettings

SGD = {"optimizer": {"type": "SGD", "params": {"lr": 1.0}}}


# A step of plain gradient descent shows the gradient itself. Relative errors of a parameter's gradient.
GRADIENT_TOLERANCE = {"float32": 1e-4, "bfloat16": 6e-2}


RESUME_TOLERANCE = 1e-6


# Losses of one job with other worker counts: sums in another order.
LOSS_TOLERANCE = {"float32": 2e-4, "bfloat16": 2e-2}


WEIGHT_TOLERANCE = {"float32": 2e-4, "bfloat16": 2**-7}  # half precision: one step of a weight near 1


@pytest.fixture(scope="module")
def one() -> Iterator[WorkerGroup]:
    group = WorkerGroup(1)
    yield group
    group.close()


@pytest.fixture(scope="module")
def two() -> Iterator[WorkerGroup]:
    group = WorkerGroup(2)
    yield group
    group.close()


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty examples whose answers have from 3 to 81 tokens."""
    g = torch.Generator().manual_seed(2)
    rows = []
    for n in [3 + 78 * k // 39 for k in range(40)]:
        ids = tuple(torch.randint(3, 300, (6 + n,), generator=g).tolist())
        rows.append(Example(ids, 6, 6 + n, 1.0 + n % 2))
    path = tmp_path_factory.mktemp("examples") / "examples.arrow"
    write_examples(Place(str(path)), rows)
    return path


def job(
    name: str,
    model: Path,
    examples: Path,
    folder: Path,
    dtype: Any = "float32",
    seed: int = 7,
    **settings: Any,
) -> TrainJob:
    given = {
        "steps": 6,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "micro_batch_tokens": 150,
        "zero_stage": 1,
    } | settings
    return TrainJob(
        name, ModelSource(str(model), dtype), str(examples), str(folder / name), seed, TrainSettings(**given)
    )


def weights(j: TrainJob, folder: str = "model") -> dict[str, torch.Tensor]:
    return dict(load_model(ModelSource(str(Path(j.output) / folder))).state_dict())


def losses(j: TrainJob) -> list[float]:
    return [row["loss_nats"] for row in read_metrics(Place(j.output))]
