"""The loop on real DeepSpeed engines in plain processes: gradients, losses, objectives."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from cluster.models.loading import ModelSource, import_transformers, load_model, load_tokenizer
from cluster.models.sampling import Completion, Sampling, sample
from cluster.models.vocabulary import Head
from cluster.storage import Place
from tests.engine import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    SGD,
    job,
    losses,
    weights,
)
from tests.worker_group import WorkerGroup, train
from training.data import Example, Examples, write_examples
from training.job import TrainJob
from training.metrics import read_metrics
from training.objectives.objective import Objective, Sums, Tensors, hidden_states
from training.settings import LoraSettings


def plain_gradient(model: Path, rows: Examples) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss per answer token, one example after another through the model's own
    forward.
    """
    student = load_model(ModelSource(str(model)))
    total = sum(e.loss_tokens * e.weight for e in rows)
    for e in rows:
        logits = student(input_ids=torch.tensor([e.ids])).logits[0, e.loss_start - 1 : e.loss_end - 1]
        target = torch.tensor(e.ids[e.loss_start : e.loss_end])
        (torch.nn.functional.cross_entropy(logits, target, reduction="sum") * e.weight / total).backward()
    return {name: p.grad.clone() for name, p in student.named_parameters()}


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        (0, "float32"),
        pytest.param(1, "float32", marks=pytest.mark.slow),
        pytest.param(2, "float32", marks=pytest.mark.slow),
        pytest.param(3, "float32", marks=pytest.mark.slow),
        pytest.param(1, "bfloat16", marks=pytest.mark.slow),
        (2, "bfloat16"),
        pytest.param(3, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_steps_gradient_is_the_plain_one_whatever_shares_the_work(
    one: WorkerGroup,
    two: WorkerGroup,
    tiny_model: Path,
    examples: Path,
    tmp_path: Path,
    stage: int,
    precision: str,
) -> None:
    """The loss cannot see gradients ten times too large; a step of gradient descent can."""
    rows = Examples(Place(str(examples)))
    expected = plain_gradient(tiny_model, rows)
    start = dict(load_model(ModelSource(str(tiny_model))).state_dict())
    settings = {
        "steps": 1,
        "batch_size": 40,
        "learning_rate": 1.0,
        "warmup_ratio": 0.0,
        "schedule": "constant",
        "gradient_clipping": 0.0,
    }
    for group in (one, two):
        j = job(
            f"w{group.workers}",
            tiny_model,
            examples,
            tmp_path,
            zero_stage=stage,
            precision=precision,
            deepspeed=SGD,
            **settings,
        )
        group.run(train, [j], tmp_path / "checkpoints")
        after = weights(j)
        for name, gradient in expected.items():
            error = float(((start[name] - after[name].float()) - gradient).norm() / gradient.norm())
            rounding = 2**-8 * float(start[name].norm() / gradient.norm()) if precision == "bfloat16" else 0.0
            assert error <= GRADIENT_TOLERANCE[precision] + rounding, (group.workers, name, error)
        assert read_metrics(Place(j.output))[0]["passes"] > 1, "one pass accumulates nothing"


@pytest.mark.long
def test_zero_stages_and_worker_counts_give_the_same_losses_and_usable_exports(
    one: WorkerGroup, two: WorkerGroup, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    plain = [job(f"z{z}", tiny_model, examples, tmp_path / "two", zero_stage=z) for z in (1, 2)]
    # a user's own section
    plain.append(
        job("z3", tiny_model, examples, tmp_path / "two", deepspeed={"zero_optimization": {"stage": 3}})
    )
    lora = job("lora", tiny_model, examples, tmp_path / "two", zero_stage=2, lora=LoraSettings(r=4, alpha=8))
    two.run(train, [*plain, lora], tmp_path / "checkpoints")
    alone = [
        job("z1", tiny_model, examples, tmp_path / "one"),
        replace(lora, output=str(tmp_path / "one" / "lora")),
    ]
    one.run(train, alone, tmp_path / "checkpoints-of-one")
    for j in plain:
        assert losses(j) == pytest.approx(losses(alone[0]), abs=LOSS_TOLERANCE["float32"]), j.job_id
    assert losses(lora) == pytest.approx(losses(alone[1]), abs=LOSS_TOLERANCE["float32"])
    assert losses(plain[0])[-1] < losses(plain[0])[0]
    start = dict(load_model(ModelSource(str(tiny_model))).state_dict())
    for j in [*plain, lora]:
        directory = Path(j.output) / "model"
        assert not list(directory.glob("*.bin"))
        model = import_transformers().AutoModelForCausalLM.from_pretrained(directory)
        tokenizer = load_tokenizer(ModelSource(str(directory)))
        completion = sample(
            model.eval(), [tokenizer("chain: 3 t+4")["input_ids"]], Sampling(5, frozenset({2}))
        )[0]
        assert isinstance(completion, Completion)
        assert completion.ids or completion.finish == "stop"
        assert max(float((weights(j)[k] - start[k]).abs().max()) for k in start) > 1e-4, j.job_id
    assert (Path(lora.output) / "model" / "adapter" / "adapter_model.safetensors").is_file()
    first, second = weights(plain[0]), weights(plain[2])
    assert max(float((first[k] - second[k]).abs().max()) for k in first) < 1e-3


def train_in_small_chunks(rank: int, jobs: list[TrainJob], checkpoints: Path) -> None:
    from training.objectives import chunked as objectives

    # twenty positions: 1, 2 and 3 calls for 22, 39 and 81 answer tokens
    objectives.CHUNK_BYTES["cpu"] = 4 * 321 * 20
    train(rank, jobs, checkpoints)


@pytest.mark.long
def test_workers_whose_micro_batches_need_more_chunks_than_others_do_not_wait_for_ever(
    two: WorkerGroup, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    settings = {"zero_stage": 3, "micro_batch_tokens": 60, "batch_size": 5, "steps": 4}
    whole = job("whole", tiny_model, examples, tmp_path, **settings)
    chunked = job("chunked", tiny_model, examples, tmp_path, **settings)
    two.run(train, [whole], tmp_path / "checkpoints")
    two.run(train_in_small_chunks, [chunked], tmp_path / "checkpoints")
    assert losses(chunked) == pytest.approx(losses(whole), abs=1e-5)


def pairwise_loss(head: Head, attached: torch.nn.Module | None, batch: Tensors) -> Sums:
    """A made-up objective over pairs: the hinge of what a value head says of the first against the second."""
    assert attached is not None
    hidden = hidden_states(head, batch)
    values = attached(hidden)[..., 0]
    total, right = values.sum() * 0.0, hidden.new_zeros(())
    groups, owners = batch["groups"], batch["owners"]
    for group in groups[groups >= 0].unique():
        here = owners[groups == group]
        assert len(here.unique()) == 2, "a pair was parted"
        of = groups == group
        first, second = (values[of & (owners == one)].mean() for one in sorted(here.unique().tolist()))
        weight = batch["weights"][of].max()
        total = total + weight * torch.relu(1.0 - (first - second))
        right = right + weight * (first > second)
    return total, {"right": right}


@dataclass(frozen=True)
class OfPairs:
    """An objective of a test's own: its settings travel with the training."""

    name: ClassVar[str] = "pairs"

    def make(self) -> Objective:
        return Objective(
            pairwise_loss,
            lambda examples: examples.weight / 2,
            lambda model, frozen: torch.nn.Linear(model.config.hidden_size, 1),
        )


@pytest.mark.long
@pytest.mark.parametrize("stage", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_objective_may_attach_a_head_look_at_pairs_and_say_more_than_a_loss(
    tiny_model: Path, tmp_path: Path, stage: int
) -> None:
    """Two workers and eight pairs of which the first has a mark: what was attached learns to tell them."""
    rows = [
        Example((*range(20, 30), 7 if k % 2 == 0 else 9, *range(40, 40 + k)), 5, 11 + k, 1.0, k // 2)
        for k in range(16)
    ]
    write_examples(Place(str(tmp_path / "pairs.arrow")), rows)
    pairs = job("pairs", tiny_model, tmp_path / "pairs.arrow", tmp_path, zero_stage=stage, steps=30)
    pairs = replace(pairs, objective=OfPairs())
    group = WorkerGroup(2)
    try:
        group.run(train, [pairs], tmp_path / "checkpoints")
    finally:
        group.close()
    told = read_metrics(Place(pairs.output))
    assert all(row["answer_tokens"] == 8 for row in told)  # the mass of eight pairs
    assert 0.0 <= told[0]["right"] < 1.0
    assert told[-1]["right"] == 1.0
    assert told[-1]["loss_nats"] < 0.3 * told[0]["loss_nats"]
    assert not [name for name in weights(pairs) if "attached" in name]


def test_any_seed_of_63_bits_trains(
    one: WorkerGroup, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    """A seed of 5,000 overflowed torch's after the teachers had been paid."""
    ends = []
    for seed in (5_000, 2**63 - 1):
        j = job(
            f"seed{seed}",
            tiny_model,
            examples,
            tmp_path,
            seed=seed,
            steps=2,
            lora=LoraSettings(r=4, dropout=0.5),
        )
        one.run(train, [j], tmp_path / "checkpoints")
        ends.append(losses(j))
    assert ends[0] != ends[1]
