"""The loop on real DeepSpeed engines in plain processes: trainings that stop, go on, share an optimizer."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.models.loading import ModelSource
from cluster.storage import Place
from tests.engine import (
    LOSS_TOLERANCE,
    RESUME_TOLERANCE,
    WEIGHT_TOLERANCE,
    job,
    losses,
    weights,
)
from tests.worker_group import WorkerGroup, train
from training.metrics import read_metrics
from training.settings import LoraSettings


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "lora"),
    [
        (1, False),
        pytest.param(3, False, marks=pytest.mark.slow),
        pytest.param(2, True, marks=pytest.mark.slow),
    ],
)
def test_rounds_on_one_optimizer_end_where_one_training_does(
    one: WorkerGroup,
    two: WorkerGroup,
    tiny_model: Path,
    examples: Path,
    tmp_path: Path,
    stage: int,
    lora: bool,
) -> None:
    """Every step sees all examples, so that three rounds of two steps see what one training of six sees. The
    last round has another number of workers.
    """
    settings = {"zero_stage": stage, "batch_size": 64, "lora": LoraSettings(r=4, alpha=8) if lora else None}
    whole = job("whole", tiny_model, examples, tmp_path, steps=6, **settings)
    two.run(train, [whole], tmp_path / "checkpoints")
    told, carried, source = [], None, whole.source
    for k, group in enumerate((two, two, one)):
        part = replace(
            job(f"round-{k}", tiny_model, examples, tmp_path, steps=2, **settings),
            source=source,
            carried=carried,
            keeps_optimizer=k < 2,
            first=2 * k,
            schedule_steps=6,
        )
        group.run(train, [part], tmp_path / f"checkpoints-{k}")
        told += losses(part)
        carried, source = f"{part.output}/optimizer", ModelSource(f"{part.output}/model")
        if lora:
            source = replace(whole.source, adapter=f"{part.output}/model/adapter")
    assert told[:4] == pytest.approx(losses(whole)[:4], abs=RESUME_TOLERANCE)
    assert told[4:] == pytest.approx(losses(whole)[4:], abs=LOSS_TOLERANCE["float32"])
    end, expected = weights(part), weights(whole)
    assert max(float((end[k] - expected[k]).abs().max()) for k in expected) <= WEIGHT_TOLERANCE["float32"]
    assert not (Path(part.output) / "optimizer").exists()


def test_a_round_without_the_optimizer_of_the_one_before_is_refused_by_name(
    one: WorkerGroup, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    lost = replace(job("lost", tiny_model, examples, tmp_path), carried=str(tmp_path / "nowhere"))
    with pytest.raises(AssertionError, match="the optimizer state of the previous round is missing"):
        one.run(train, [lost], tmp_path / "checkpoints")


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "lora", "precision"),
    [
        (1, False, "bfloat16"),
        pytest.param(3, False, "float32", marks=pytest.mark.slow),
        pytest.param(2, True, "float32", marks=pytest.mark.slow),
        pytest.param(3, True, "float32", marks=pytest.mark.slow),
        pytest.param(3, True, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_training_that_stops_and_goes_on_ends_where_an_undisturbed_one_does(
    two: WorkerGroup, tiny_model: Path, examples: Path, tmp_path: Path, stage: int, lora: bool, precision: str
) -> None:
    settings = {
        "zero_stage": stage,
        "lora": LoraSettings(r=4, alpha=8) if lora else None,
        "precision": precision,
        "checkpoint_every": 2,
    }
    calm = job("calm", tiny_model, examples, tmp_path, **settings)
    two.run(train, [calm], tmp_path / "calm-checkpoints")
    struck = job("struck", tiny_model, examples, tmp_path, **settings)
    two.run(train, [replace(struck, until=4)], tmp_path / "checkpoints")
    assert (Path(struck.output) / "PAUSED-4.json").is_file()
    two.run(train, [struck], tmp_path / "checkpoints")
    assert losses(struck) == pytest.approx(losses(calm), abs=RESUME_TOLERANCE)
    one_, other = weights(calm), weights(struck)
    assert max(float((one_[k].float() - other[k].float()).abs().max()) for k in one_) <= RESUME_TOLERANCE
    assert losses(calm)[-1] < losses(calm)[0]


@pytest.mark.parametrize(
    ("stage", "lora", "precision"),
    [
        pytest.param(0, False, "float32", marks=pytest.mark.slow),
        (1, False, "float32"),
        pytest.param(1, False, "bfloat16", marks=pytest.mark.slow),
        pytest.param(2, False, "float32", marks=pytest.mark.slow),
        pytest.param(3, False, "float32", marks=pytest.mark.slow),
        pytest.param(2, True, "float32", marks=pytest.mark.slow),
        pytest.param(3, True, "float32", marks=pytest.mark.slow),
    ],
)
def test_a_training_goes_on_with_another_number_of_workers(
    one: WorkerGroup,
    two: WorkerGroup,
    tiny_model: Path,
    examples: Path,
    tmp_path: Path,
    stage: int,
    lora: bool,
    precision: str,
) -> None:
    settings = {
        "zero_stage": stage,
        "lora": LoraSettings(r=4, alpha=8) if lora else None,
        "precision": precision,
        "checkpoint_every": 2,
    }
    calm = job("calm", tiny_model, examples, tmp_path, **settings)
    two.run(train, [calm], tmp_path / "calm-checkpoints")
    for first, then in ((two, one), (one, two)):
        resized = job(f"from{first.workers}", tiny_model, examples, tmp_path, **settings)
        first.run(train, [replace(resized, until=4)], tmp_path / "checkpoints")
        then.run(train, [resized], tmp_path / "checkpoints")
        assert losses(resized) == pytest.approx(losses(calm), abs=LOSS_TOLERANCE[precision])
        assert [row["step"] for row in read_metrics(Place(resized.output))] == list(range(1, 7))
        apart = max(
            float((a.float() - weights(resized)[k].float()).abs().max()) for k, a in weights(calm).items()
        )
        assert apart <= WEIGHT_TOLERANCE[precision], "the optimizer's moments were lost on the way"
