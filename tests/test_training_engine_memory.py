"""The loop on real DeepSpeed engines in plain processes: memory given back, adapters, far checkpoints."""

import gc
import json
import resource
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.models.loading import ModelSource, load_model
from cluster.storage import Place
from tests.engine import (
    job,
    losses,
    weights,
)
from tests.worker_group import WorkerGroup, train
from training.batches import collate
from training.data import Example
from training.job import TrainJob
from training.objective_settings import CROSS_ENTROPY
from training.settings import LoraSettings, TrainSettings


def let_go(rank: int, model: Path, settings: TrainSettings) -> list[str]:
    """Train two steps, release, and name what is still alive."""
    from training.engine import start

    student = start(
        ModelSource(str(model)),
        CROSS_ENTROPY.make(),
        settings,
        torch.distributed.get_world_size(),
        torch.device("cpu"),
    )
    whole = {"engine": student.engine, "model": student.model, "optimizer": student.engine.optimizer}
    alive = {
        name: weakref.ref(thing) for name, thing in (whole | dict(student.model.named_parameters())).items()
    }
    del whole
    rows = [Example(tuple(range(3, 30)), 6, 27)] * 3
    batch = collate([[0, 1], [2]], rows)
    lists: dict[str, Any] = {**batch.inputs("packed"), "labels": batch.labels, "weights": batch.weights}
    for _ in range(2):
        student.engine.set_gradient_accumulation_boundary(True)
        loss, _ = student.engine({k: torch.tensor(v) for k, v in lists.items()})
        student.engine.backward(loss / 50, scale_wrt_gas=False)
        del loss
        student.engine.step()
    student.release()
    del student
    return [name for name, thing in alive.items() if thing() is not None]


@pytest.mark.long
@pytest.mark.parametrize("lora", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "stage", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3]
)
def test_nothing_of_a_training_outlives_it(
    two: WorkerGroup, tiny_model: Path, stage: int, lora: bool
) -> None:
    settings = TrainSettings(
        zero_stage=stage, lora=LoraSettings(r=4) if lora else None, gradient_checkpointing=lora
    )  # type: ignore[arg-type]
    assert two.run(let_go, tiny_model, settings) == [[], []]


def memory_of_a_queue(rank: int, jobs: list[TrainJob], checkpoints: Path) -> list[int]:
    """Resident bytes after each job of a queue."""
    import ctypes

    seen = []
    for j in jobs:
        train(rank, [j], checkpoints)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    return seen


@pytest.mark.slow
def test_a_long_queue_takes_no_more_memory_than_a_short_one(
    one: WorkerGroup, examples: Path, tmp_path: Path
) -> None:
    from tests.test_cluster_models_loading import wide_model

    model = wide_model(tmp_path / "wide")  # 21 MiB of weights; a training holds four times that
    jobs = [
        job(f"j{k}", model, examples, tmp_path, steps=1, batch_size=2, zero_stage=k % 4) for k in range(8)
    ]
    seen = one.run(memory_of_a_queue, jobs, tmp_path / "checkpoints")[0]
    assert max(seen[4:]) - max(seen[:4]) < 21 * 2**20, [f"{s / 2**20:.0f} MiB" for s in seen]


@pytest.mark.long
def test_what_a_lora_training_leaves_is_what_was_trained_also_on_a_bfloat16_base(
    one: WorkerGroup, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    """Merged into bfloat16 weights, 79 % of an update of 2e-5 are rounded away: what is scored next would not
    be what was trained.
    """
    base = tmp_path / "base"
    load_model(ModelSource(str(tiny_model), "bfloat16")).save_pretrained(base)
    (base / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    (base / "tokenizer_config.json").write_bytes((tiny_model / "tokenizer_config.json").read_bytes())
    j = job(
        "lora",
        base,
        examples,
        tmp_path,
        "bfloat16",
        lora=LoraSettings(r=4),
        learning_rate=1e-4,
        precision="bfloat16",
        steps=2,
    )
    one.run(train, [j], tmp_path / "checkpoints")
    before = dict(load_model(ModelSource(str(base))).state_dict())
    merged = weights(j)
    moved = {k: merged[k] - before[k] for k in before if "proj" in k}
    adapter = str(Path(j.output) / "model" / "adapter")
    ideal = dict(load_model(ModelSource(str(base), adapter=adapter)).state_dict())
    for name, update in moved.items():
        wanted = ideal[name] - before[name]
        assert 0 < float(wanted.abs().max()) < 1e-3
        assert float((update - wanted).norm()) <= 1e-3 * float(wanted.norm()), name
    scored = load_model(ModelSource(str(base), "bfloat16", adapter=adapter))  # what the next round scores
    ids = torch.tensor([list(range(5, 40))])
    exact = load_model(ModelSource(str(base), adapter=adapter))(input_ids=ids).logits
    plain = load_model(ModelSource(str(base)))(input_ids=ids).logits
    half_of_plain = load_model(ModelSource(str(base), "bfloat16"))(input_ids=ids).logits.float()
    shift = scored(input_ids=ids).logits.float() - half_of_plain
    assert float((shift * (exact - plain)).sum()) > 0.5 * float(((exact - plain) ** 2).sum()), (
        "the adapter's effect is gone"
    )


def test_a_second_training_goes_on_from_the_adapter_of_the_first(
    one: WorkerGroup, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    first = job("first", tiny_model, examples, tmp_path, lora=LoraSettings(r=4))
    one.run(train, [first], tmp_path / "checkpoints")
    adapter = str(Path(first.output) / "model" / "adapter")
    second = job("second", tiny_model, examples, tmp_path, lora=LoraSettings(r=4))
    second = replace(second, source=replace(second.source, adapter=adapter))
    one.run(train, [second], tmp_path / "checkpoints")
    assert losses(second)[0] < losses(first)[0] - 0.1
    assert (
        json.loads((Path(second.output) / "model" / "adapter" / "adapter_config.json").read_text())["r"] == 4
    )


def fetch(rank: int, uri: str, keys: dict[str, str]) -> tuple[list[str], int]:
    """Open a checkpoint of an object store as two workers of one machine do; what lies there, and how often
    this one fetched it.
    """
    import os

    os.environ.update(keys)
    from training import checkpoints

    copies = []
    copy_files = checkpoints.fs.copy_files
    checkpoints.fs.copy_files = lambda *a, **k: (copies.append(1), copy_files(*a, **k))
    try:
        with checkpoints.on_this_node(Place(uri), rank == 0) as folder:
            return sorted(p.name for p in folder.iterdir()), len(copies)
    finally:
        checkpoints.fs.copy_files = copy_files


def test_a_checkpoint_on_an_object_store_is_fetched_once_for_all_workers_of_a_machine(
    two: WorkerGroup, s3_bucket: str
) -> None:
    import os

    place = Place(f"{s3_bucket}/checkpoints/one")
    for name in ("a.pt", "b.pt"):
        (place / name).write_bytes(b"1")
    keys = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    assert two.run(fetch, str(place), keys) == [(["a.pt", "b.pt"], 1), (["a.pt", "b.pt"], 0)]
