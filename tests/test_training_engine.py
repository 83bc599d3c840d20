"""The loop on real DeepSpeed engines in plain processes: gradients, resume, other worker counts, memory that
is given back.
"""

import gc
import json
import resource
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.models.loading import ModelSource, import_transformers, load_model, load_tokenizer
from cluster.models.sampling import Completion, Sampling, sample
from cluster.models.vocabulary import Head
from cluster.storage import Place
from tests.worker_group import WorkerGroup, train
from training.batches import collate
from training.data import Example, Examples, write_examples
from training.job import TrainJob
from training.metrics import read_metrics
from training.objectives.objective import Objective, Sums, Tensors, hidden_states
from training.settings import LoraSettings, TrainSettings

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


@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        (0, "float32"),
        pytest.param(1, "float32", marks=pytest.mark.slow),
        pytest.param(2, "float32", marks=pytest.mark.slow),
        (3, "float32"),
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


def train_pairs(rank: int, jobs: list[TrainJob], checkpoints: Path) -> None:
    from training.objectives import OBJECTIVES

    OBJECTIVES["weighted_cross_entropy"] = Objective(
        pairwise_loss,
        lambda examples: examples.weight / 2,
        lambda model: torch.nn.Linear(model.config.hidden_size, 1),
    )
    train(rank, jobs, checkpoints)


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 3])
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
    group = WorkerGroup(2)
    try:
        group.run(train_pairs, [pairs], tmp_path / "checkpoints")
    finally:
        group.close()
    told = read_metrics(Place(pairs.output))
    assert all(row["answer_tokens"] == 8 for row in told)  # the mass of eight pairs
    assert 0.0 <= told[0]["right"] < 1.0
    assert told[-1]["right"] == 1.0
    assert told[-1]["loss_nats"] < 0.3 * told[0]["loss_nats"]
    assert not [name for name in weights(pairs) if "attached" in name]


@pytest.mark.parametrize(
    ("stage", "lora"),
    [
        pytest.param(1, False, marks=pytest.mark.slow),
        (3, False),
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
    with pytest.raises(AssertionError, match="the optimizer of the training before is not there"):
        one.run(train, [lost], tmp_path / "checkpoints")


@pytest.mark.parametrize(
    ("stage", "lora", "precision"),
    [
        (1, False, "bfloat16"),
        pytest.param(3, False, "float32", marks=pytest.mark.slow),
        pytest.param(2, True, "float32", marks=pytest.mark.slow),
        pytest.param(3, True, "float32", marks=pytest.mark.slow),
        (3, True, "bfloat16"),
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
        pytest.param(1, False, "float32", marks=pytest.mark.slow),
        (1, False, "bfloat16"),
        pytest.param(2, False, "float32", marks=pytest.mark.slow),
        pytest.param(3, False, "float32", marks=pytest.mark.slow),
        pytest.param(2, True, "float32", marks=pytest.mark.slow),
        (3, True, "float32"),
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


def let_go(rank: int, model: Path, settings: TrainSettings) -> list[str]:
    """Train two steps, release, and name what is still alive."""
    from training.engine import start

    student = start(
        ModelSource(str(model)), settings, torch.distributed.get_world_size(), torch.device("cpu")
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


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
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
