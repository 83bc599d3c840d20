"""The training loop on real Ray Train and DeepSpeed: equal losses everywhere, exact resume after a kill,
usable exports.
"""

import contextlib
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.proof import prove
from cluster.models.rendering import Renderer
from cluster.session import Cluster
from cluster.storage import Place
from jobs.experiment.placement import Placement
from tests.in_process import InProcess
from training.batches import Layout
from training.checkpoints import Marker, read_marker, write_marker
from training.data import Example, Examples, write_examples
from training.job import TrainJob
from training.metrics import read_metrics
from training.objectives.cross_entropy import weighted_cross_entropy
from training.objectives.objective import token_mass
from training.settings import TrainSettings, check_settings, engine_config, learning_rate_at
from training.trainer import TrainingFailed, WorkerGroup, train_jobs, train_lanes

# Weights after a killed and resumed run against an undisturbed one: the same arithmetic, so nearly bit for
# bit.
RESUME_TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    g = torch.Generator().manual_seed(2)
    rows = []
    for _ in range(40):
        n = int(torch.randint(20, 60, (1,), generator=g))
        rows.append(Example(tuple(torch.randint(3, 300, (n,), generator=g).tolist()), 6, n, 1.0 + n % 2))
    path = tmp_path_factory.mktemp("examples") / "examples.arrow"
    write_examples(Place(str(path)), rows)
    return path


def job(name: str, model: Path, examples: Path, folder: Path, **settings: Any) -> TrainJob:
    given = TrainSettings(
        **(
            {"steps": 6, "batch_size": 8, "learning_rate": 2e-3, "micro_batch_tokens": 150, "zero_stage": 1}
            | settings
        )
    )
    return TrainJob(name, ModelSource(str(model)), str(examples), str(folder / name), 7, given)


def losses(j: TrainJob) -> list[float]:
    return [row["loss_nats"] for row in read_metrics(Place(j.output))]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(ModelSource(str(directory))).state_dict())


@pytest.mark.slow  # the chaos suite kills workers too
def test_a_worker_killed_in_mid_training_resumes_to_the_same_weights(
    ray_cluster: Cluster, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    """Two trainings of the same thing in one queue; a worker is killed in the second."""
    calm = job("calm", tiny_model, examples, tmp_path, steps=30, checkpoint_every=5, micro_batch_tokens=60)
    struck = replace(calm, job_id="struck", output=str(tmp_path / "struck"))
    killed: list[int] = []
    totals: set[int] = set()

    def kill_once_it_has_checkpoints(done: int, total: int) -> None:
        totals.add(total)
        if done >= 42 and not killed:
            os.kill(_train_workers()[-1], signal.SIGKILL)
            killed.append(done)

    train_jobs(
        [calm, struck],
        name="q",
        storage=Place(str(tmp_path / "ray")),
        group=WorkerGroup(2),
        on_progress=kill_once_it_has_checkpoints,
    )
    assert killed, "nothing was killed: the test proved nothing"
    assert killed[0] < 60
    assert totals == {60}
    assert [row["step"] for row in read_metrics(Place(struck.output))] == list(range(1, 31))
    assert losses(struck) == pytest.approx(losses(calm), abs=RESUME_TOLERANCE)
    one, two = weights(Path(calm.output) / "model"), weights(Path(struck.output) / "model")
    assert max(float((one[k] - two[k]).abs().max()) for k in one) <= RESUME_TOLERANCE
    assert not (tmp_path / "ray" / "q").exists()  # checkpoints are gone once the queue is done


def _train_workers() -> list[int]:
    """Pids of the Ray Train workers of this process's own Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(process.cmdline()[:1]):
                found.append(process.pid)
    return found


def train_here(jobs: list[TrainJob]) -> None:
    """Train in this process, without Ray."""
    InProcess().train(jobs, "here", Place("/nowhere"), Placement(), lambda done, total: None)


@pytest.mark.slow
def test_a_training_on_an_object_store_stops_and_goes_on_from_its_checkpoint_there(
    ray_cluster: Cluster, tiny_model: Path, examples: Path, tmp_path: Path, s3_bucket: str
) -> None:
    """Examples, output and Ray Train's checkpoints are at URIs; a break after the third step."""
    here = job("here", tiny_model, examples, tmp_path, steps=4)
    train_here([here])
    away = replace(here, job_id="away", examples=f"{s3_bucket}/e.arrow", output=f"{s3_bucket}/away")
    Place(away.examples).write_bytes(examples.read_bytes())
    storage = Place(f"{s3_bucket}/ray")
    train_jobs([replace(away, until=3)], name="away", storage=storage)
    assert [name for name in (storage / "away").files() if name.endswith("COMPLETE.json")]
    train_jobs([away], name="away", storage=storage)
    assert storage.files() == {}  # checkpoints are gone once the queue is done
    assert losses(away) == pytest.approx(losses(here), abs=RESUME_TOLERANCE)
    folder = tmp_path / "fetched"
    for name in Place(away.output).files():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((Place(away.output) / name).read_bytes())
    one, two = weights(folder / "model"), weights(Path(here.output) / "model")
    assert max(float((one[k] - two[k]).abs().max()) for k in one) <= RESUME_TOLERANCE


def test_a_finished_job_is_not_trained_again(
    ray_cluster: Cluster, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    done = job("done", tiny_model, examples, tmp_path, steps=1)
    Path(done.output).mkdir(parents=True)
    (Path(done.output) / "DONE.json").write_text("{}")
    train_jobs([done], name="q", storage=Place(str(tmp_path / "ray")))
    assert not (Path(done.output) / "metrics.jsonl").exists()


@pytest.mark.long
def test_no_compiler_is_needed_and_a_loss_that_is_not_finite_stops_training_with_the_step_and_a_remedy(
    ray_cluster: Cluster, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    """Train with every program on the PATH except compilers and ninja: nothing is built. The second training
    of the queue goes wrong.
    """
    without = tmp_path / "bin"
    without.mkdir()
    for program in [*Path("/bin").iterdir(), *Path("/usr/bin").iterdir()]:
        if (
            not re.search(r"gcc|g\+\+|^cc$|c\+\+|clang|nvcc|ninja|^ld|^as$", program.name)
            and not (without / program.name).exists()
        ):
            (without / program.name).symlink_to(program)
    assert shutil.which("gcc", path=str(without)) is None
    cache = tmp_path / "extensions"
    environment = {"PATH": str(without), "TORCH_EXTENSIONS_DIR": str(cache), "CC": "", "CXX": ""}
    one = job("nogcc", tiny_model, examples, tmp_path, steps=1)
    # 1e39 is infinite in float32
    write_examples(Place(str(tmp_path / "heavy.arrow")), [Example(tuple(range(3, 30)), 6, 27, 1e39)] * 8)
    wild = job("wild", tiny_model, tmp_path / "heavy.arrow", tmp_path, steps=5)
    with pytest.raises(
        TrainingFailed, match=r"training wild; got the loss of step 0 is (nan|inf); lower the learning rate"
    ):
        train_jobs(
            [one, wild],
            name="q",
            storage=Place(str(tmp_path / "ray")),
            group=WorkerGroup(environment=environment),
        )
    assert one.is_done
    assert not list(cache.rglob("*"))


@pytest.mark.slow
def test_trainings_in_lanes_end_where_plain_ones_do_each_lane_in_its_own_process(
    ray_cluster: Cluster, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    said: list[tuple[int, int]] = []
    plain, lanes = (
        [replace(job(f"j{k}", tiny_model, examples, tmp_path / folder, steps=3), seed=k) for k in (1, 2, 3)]
        for folder in ("plain", "lanes")
    )
    train_here(plain)
    train_lanes(
        lanes,
        2,
        name="lanes",
        storage=Place(str(tmp_path / "ray")),
        on_progress=lambda done, total: said.append((done, total)),
    )
    assert said[-1] == (9, 9)
    for j, expected in zip(lanes, plain, strict=True):
        one, two = (weights(Path(x.output) / "model") for x in (j, expected))
        assert max(float((one[name] - two[name]).abs().max()) for name in one) <= RESUME_TOLERANCE
    pids = [done_by(Path(j.output)) for j in lanes]
    assert pids[0] == pids[2] != pids[1]


def done_by(output: Path) -> int:
    """The process that finished a training."""
    return int(json.loads((output / "DONE.json").read_text())["pid"])


def test_the_objective_is_the_weighted_mean_over_answer_tokens_and_packing_does_not_change_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    from training.batches import collate

    model = load_model(ModelSource(str(tiny_model)))
    g = torch.Generator().manual_seed(0)
    rows = [
        Example(tuple(torch.randint(3, 300, (n,), generator=g).tolist()), 4, n - 1, w)
        for n, w in ((20, 1.0), (13, 0.5), (9, 2.0))
    ]
    rows[0] = replace(rows[0], gaps=((7, 11), (15, 16)))  # what others say between turns

    def tensors(rows_of: list[list[int]], layout: Layout) -> dict[str, torch.Tensor]:
        batch = collate(rows_of, rows)
        given = {**batch.inputs(layout), "labels": batch.labels, "weights": batch.weights}
        return {name: torch.tensor(value) for name, value in given.items()}

    expected, total = 0.0, 0.0
    for e in rows:
        with torch.no_grad():
            log_p = torch.log_softmax(model(input_ids=torch.tensor([e.ids])).logits[0].double(), -1)
        for t in (t for t in range(e.loss_start, e.loss_end) if not any(a <= t < b for a, b in e.gaps)):
            expected -= e.weight * float(log_p[t - 1, e.ids[t]])
            total += e.weight
    head = prove(model, ("projection",)).head
    layouts: list[tuple[list[list[int]], Layout]] = [
        ([[0], [1], [2]], "packed"),
        ([[0], [1, 2]], "packed"),
        ([[0, 1, 2]], "packed"),
        ([[0], [1], [2]], "padded"),
    ]
    for rows_of, layout in layouts:
        loss, _ = weighted_cross_entropy(head, None, tensors(rows_of, layout))
        assert float(loss) == pytest.approx(expected, rel=1e-5)
    write_examples(Place(str(tmp_path / "rows.arrow")), rows)
    assert float(token_mass(Examples(Place(str(tmp_path / "rows.arrow")))).sum()) == pytest.approx(total)


def test_a_checkpoint_with_a_missing_or_short_file_is_not_whole(tmp_path: Path) -> None:
    here = Place(str(tmp_path))
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "a.pt").write_bytes(b"12345")
    assert read_marker(here) is None
    write_marker(tmp_path, Marker("j", 3, 2, here.files()))
    assert read_marker(here) == Marker("j", 3, 2, {"step/a.pt": 5})
    (tmp_path / "step" / "a.pt").write_bytes(b"1")
    assert read_marker(here) is None
    shutil.rmtree(tmp_path / "step")
    (tmp_path / "COMPLETE.json").write_text("{")
    assert read_marker(here) is None


def test_a_users_deepspeed_section_is_laid_over_ours_and_auto_keeps_ours() -> None:
    theirs = {
        "zero_optimization": {"stage": 3, "overlap_comm": True},
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
    }
    config = engine_config(TrainSettings(deepspeed=theirs, gradient_clipping=0.3), workers=2)
    assert config["zero_optimization"] == {"stage": 3, "overlap_comm": True}
    assert config["gradient_clipping"] == 0.3
    assert config["bf16"] == {"enabled": False}
    assert config["train_batch_size"] == 2 * config["gradient_accumulation_steps"]
    json.dumps(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "train.batch_size is out of range; got 0"),
        ({"checkpoint_every": 0}, "train.checkpoint_every"),
        ({"epochs": 0}, "train.epochs"),
        ({"tokens": 0}, "train.tokens is out of range"),
        ({"tokens": 900, "steps": 3}, "train.steps and train.tokens both say how long"),
        (
            {"deepspeed": {"gradient_accumulation_steps": 4}},
            "train.deepspeed sets gradient_accumulation_steps",
        ),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_settings(TrainSettings(**settings))
    check_settings(TrainSettings(deepspeed={"gradient_accumulation_steps": "auto"}))


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    s = TrainSettings(learning_rate=1.0, warmup_ratio=0.1)
    rates = [learning_rate_at(i, 100, s) for i in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.01
    assert learning_rate_at(50, 100, replace(s, schedule="constant")) == 1.0


def test_an_export_keeps_the_template_for_tools_beside_the_one_that_was_trained_with(
    ray_cluster: Cluster, tiny_model: Path, examples: Path, tmp_path: Path
) -> None:
    """As Command R and Hermes have them. Without it the export showed no tools to its student."""
    start = tmp_path / "start"
    shutil.copytree(tiny_model, start)
    tokenizer = load_tokenizer(ModelSource(str(start)))
    chat = str(tokenizer.chat_template)
    tokenizer.chat_template = {"default": chat, "tool_use": "{{ tools | tojson }}" + chat}
    tokenizer.save_pretrained(start)
    own = Renderer(load_tokenizer(ModelSource(str(start))))
    assert own.with_tools
    trained = replace(
        job("two", start, examples, tmp_path, steps=1),
        chat_template=own.template,
        tool_template=own.with_tools,
    )
    train_jobs([trained], name="two", storage=Place(str(tmp_path / "ray")), group=WorkerGroup(1))
    exported = Renderer(load_tokenizer(ModelSource(str(tmp_path / "two" / "model"))))
    assert (exported.template, exported.with_tools) == (own.template, own.with_tools)
    assert exported.fingerprint == own.fingerprint
