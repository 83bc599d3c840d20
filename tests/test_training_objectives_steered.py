"""The steered objective on real engines: the loss of a slow version, whoever shares the batch; frozen means
frozen; rows without a target; a projection that is not linear.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model
from cluster.storage import Place
from jobs.experiment.arms.ogls_sd import OglsArm
from tests.architectures import tiny_model as tiny_model_of
from tests.engine import SGD, job, losses, weights
from tests.worker_group import WorkerGroup, train
from training.batches import collate, stacked
from training.data import ARRAY, COUNTS, Example, Examples, join_examples, write_examples
from training.job import TrainJob
from training.metrics import read_metrics
from training.objectives.divergences import divergence_of
from training.objectives.frozen import FrozenHead
from training.objectives.steered import Targets
from training.targets import DivergenceSettings, SteeredSettings, check_steered, lambda_at

OGLS = SteeredSettings("h0", "h_pos", "h_neg", most=3.0, ramp=4)


def drawn(width: int, rows: int = 9, contexts: int = 1, bare: bool = True, seed: int = 0) -> list[Example]:
    """Examples with states; every third has none and takes cross-entropy."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(rows):
        tokens = int(rng.integers(2, 12))
        ids = tuple(int(i) for i in rng.integers(3, 300, 4 + tokens))
        arrays = {
            name: rng.normal(0, 1, (c, tokens, width)).astype(np.float32)
            for name, c in (("h0", 1), ("h_pos", contexts), ("h_neg", max(1, contexts - 1)))
        }
        has_states = not bare or k % 3
        found.append(Example(ids, 4, 4 + tokens, 1.0 + k % 2, arrays=arrays if has_states else {}))
    return found


def slow_loss(
    student: Any, teacher: Any, rows: list[Example], settings: SteeredSettings, step: int
) -> tuple[float, float]:
    """Loss and exact KL, one row at a time through both models' own projections."""
    lam, total, kl, mass, steered = lambda_at(step, settings), 0.0, 0.0, 0.0, 0.0

    def logits(array: np.ndarray) -> torch.Tensor:
        head = teacher.get_output_embeddings()
        every = head(torch.tensor(array))
        cap = getattr(teacher.config, "final_logit_softcapping", None)
        every = every if cap is None else torch.tanh(every / cap) * cap
        return every.mean(0)

    for row in rows:
        ids = torch.tensor([row.ids[: row.loss_end]])
        own = student(input_ids=ids).logits[0, row.loss_start - 1 : row.loss_end - 1]
        labels = ids[0, row.loss_start : row.loss_end]
        mass += row.weight * len(labels)
        if not row.arrays:
            total += row.weight * torch.nn.functional.cross_entropy(own, labels, reduction="sum").item()
            continue
        target = logits(row.arrays["h0"])
        if settings.plus:
            target = target + lam * (logits(row.arrays["h_pos"]) - logits(row.arrays["h_neg"]))
        total += row.weight * divergence_of(target, own, settings.divergence).sum().item()
        exact = divergence_of(target, own, DivergenceSettings(clip="none")).sum()
        kl += row.weight * exact.item()
        steered += row.weight * len(labels)
    return total / mass, kl / mass


def steered_job(name: str, model: Path, examples: Path, folder: Path, frozen: Path, **about: Any) -> TrainJob:
    from dataclasses import replace

    objective = about.pop("steered")
    settings = {"batch_size": 9, "steps": 3, "warmup_ratio": 0.0, **about}
    own = job(name, model, examples, folder, **settings)
    return replace(own, frozen=ModelSource(str(frozen)), objective=objective)


@pytest.fixture(scope="module")
def teacher(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same vocabulary with a projection of its own."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    model = load_model(ModelSource(str(tiny_model)))
    with torch.no_grad():
        model.lm_head.weight.mul_(1.7)
    model.save_pretrained(folder)
    for file in tiny_model.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.long
def test_the_loss_is_a_slow_version_s_whoever_shares_the_batch(
    one: WorkerGroup,
    two: WorkerGroup,
    tiny_model: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    student, frozen = load_model(ModelSource(str(tiny_model))), load_model(ModelSource(str(teacher)))
    rows = drawn(student.config.hidden_size)
    place = Place(str(tmp_path / "rows.arrow"))
    write_examples(place, rows)
    found = {}
    for name, group, tokens in (("whole", one, 4096), ("parted", one, 20), ("shared", two, 20)):
        own = steered_job(
            name, tiny_model, place.path, tmp_path, teacher, steered=OGLS, micro_batch_tokens=tokens
        )
        group.run(train, [own], tmp_path / "checkpoints")
        found[name] = own
    loss, kl = slow_loss(student, frozen, rows, OGLS, 0)
    told = {name: read_metrics(Place(j.output)) for name, j in found.items()}
    for own in told.values():
        assert own[0]["loss_nats"] == pytest.approx(loss, rel=1e-5)
        assert own[0]["exact_kl_nats"] == pytest.approx(kl, rel=1e-5)
        share = sum(r.weight * r.loss_tokens for r in rows if r.arrays) / own[0]["answer_tokens"]
        assert own[0]["steered"] == pytest.approx(share)
        assert [r["lambda"] / r["steered"] for r in own] == pytest.approx([0.75, 1.5, 2.25])
    for name in ("parted", "shared"):
        assert losses(found[name]) == pytest.approx(losses(found["whole"]), rel=1e-4)
    assert not [n for n in weights(found["whole"]) if "attached" in n or "frozen" in n]


def test_a_step_follows_the_gradient_to_the_student_alone(
    one: WorkerGroup,
    tiny_model: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    student = load_model(ModelSource(str(tiny_model)))
    rows = drawn(student.config.hidden_size, bare=False)
    place = Place(str(tmp_path / "rows.arrow"))
    write_examples(place, rows)
    before = {p.name: p.read_bytes() for p in teacher.iterdir()}
    settings = SteeredSettings("h0", "h_pos", "h_neg", ramp=0, divergence=DivergenceSettings(clip="none"))
    plain = {"gradient_clipping": 0.0, "deepspeed": SGD, "zero_stage": 0, "weight_decay": 0.0}
    about = {"steered": settings, "steps": 1, "learning_rate": 1.0, "schedule": "constant", **plain}
    own = steered_job("step", tiny_model, place.path, tmp_path, teacher, **about)
    one.run(train, [own], tmp_path / "checkpoints")
    head = FrozenHead(ModelSource(str(teacher)))
    mass = sum(r.weight * r.loss_tokens for r in rows)
    for row in rows:
        ids = torch.tensor([row.ids[: row.loss_end]])
        logits = student(input_ids=ids).logits[0, row.loss_start - 1 : row.loss_end - 1]
        h0, plus, minus = (torch.tensor(row.arrays[n][0]) for n in ("h0", "h_pos", "h_neg"))
        target = head.logits(h0 + 3.0 * (plus - minus))
        (divergence_of(target, logits, settings.divergence).sum() * row.weight / mass).backward()
    after = weights(own)
    for name, parameter in student.named_parameters():
        if name in after and parameter.grad is not None:
            moved = parameter.detach() - after[name]
            scale = float(parameter.grad.abs().max()) or 1.0
            assert float((moved - parameter.grad).abs().max()) < 1e-3 * scale + 1e-6, name
    assert {p.name: p.read_bytes() for p in teacher.iterdir()} == before


def test_a_student_that_is_its_own_target_learns_nothing(
    one: WorkerGroup,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    student = load_model(ModelSource(str(tiny_model)))
    rows = []
    for row in drawn(student.config.hidden_size, bare=False):
        ids = torch.tensor([row.ids[: row.loss_end]])
        states = student.model(input_ids=ids).last_hidden_state[:, row.loss_start - 1 : row.loss_end - 1]
        rows.append(Example(row.ids, row.loss_start, row.loss_end, arrays={"h0": states.detach().numpy()}))
    place = Place(str(tmp_path / "rows.arrow"))
    write_examples(place, rows)
    for divergence in ("forward", "reverse", "jsd"):
        own_divergence = DivergenceSettings(divergence=divergence)  # type: ignore[arg-type]
        about = SteeredSettings("h0", divergence=own_divergence)
        own = steered_job(divergence, tiny_model, place.path, tmp_path, tiny_model, steered=about, steps=1)
        one.run(train, [own], tmp_path / "checkpoints")
        (told,) = read_metrics(Place(own.output))
        assert abs(told["loss_nats"]) < 1e-6
        assert told["agreement"] == pytest.approx(1.0)


def test_a_capped_projection_averages_logits(one: WorkerGroup, tmp_path: Path) -> None:
    """Three right contexts and two wrong ones: their mean logits are no projection of a mean state."""
    model = tiny_model_of("gemma2", final_logit_softcapping=2.0)
    folder = tmp_path / "gemma2"
    model.save_pretrained(folder)
    from jobs.miniature.initial_model import make_initial_model

    make_initial_model(tmp_path / "words", seed=3)
    for file in (tmp_path / "words").glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    rows = [
        Example(
            tuple(i % 60 for i in r.ids),
            r.loss_start,
            r.loss_end,
            r.weight,
            arrays={n: 4 * a for n, a in r.arrays.items()},
        )
        for r in drawn(model.config.hidden_size, contexts=3, bare=False)
    ]
    place = Place(str(tmp_path / "rows.arrow"))
    write_examples(place, rows)
    own = steered_job("capped", folder, place.path, tmp_path, folder, steered=OGLS, steps=1)
    one.run(train, [own], tmp_path / "checkpoints")
    loss, kl = slow_loss(model, model, rows, OGLS, 0)
    (told,) = read_metrics(Place(own.output))
    assert told["loss_nats"] == pytest.approx(loss, rel=1e-4)
    assert told["exact_kl_nats"] == pytest.approx(kl, rel=1e-4)
    wrong = [
        Example(
            r.ids, 4, r.loss_end, r.weight, arrays={n: a.mean(0, keepdims=True) for n, a in r.arrays.items()}
        )
        for r in rows
    ]
    assert slow_loss(model, model, wrong, OGLS, 0)[1] != pytest.approx(kl, rel=1e-2)


def test_arrays_come_back_from_files_as_they_went_in_joined_or_not(tmp_path: Path) -> None:
    rows = drawn(6, contexts=3)
    pieces = [Place(str(tmp_path / f"{k}.arrow")) for k in range(3)]
    for k, piece in enumerate(pieces):
        write_examples(piece, rows[3 * k : 3 * k + 3])
    whole, joined = Place(str(tmp_path / "whole.arrow")), Place(str(tmp_path / "joined.arrow"))
    write_examples(whole, rows)
    assert join_examples(pieces, joined) == len(rows)
    assert joined.read_bytes() == whole.read_bytes()
    read = Examples(whole)
    assert read.widths == {"h0": 6, "h_neg": 6, "h_pos": 6}
    for row, found in zip(rows, read, strict=True):
        assert found == row
        assert found.arrays.keys() == row.arrays.keys()
        for name, array in row.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array)
    batch = collate([[2, 0, 5], [1]], read)
    states, counts = stacked(batch, "h_pos", 6)
    at = 0
    for i in (2, 0, 5, 1):
        n = rows[i].loss_tokens
        for c, own in enumerate(rows[i].arrays.get("h_pos", [])):
            np.testing.assert_array_equal(states[c, at : at + n], own)
        assert (counts[at : at + n] == len(rows[i].arrays.get("h_pos", []))).all()
        at += n
    assert at == states.shape[1]


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="plus and minus"):
        check_steered(SteeredSettings(plus="h_pos"))
    with pytest.raises(BadInput, match="lambda"):
        check_steered(SteeredSettings(most=-1.0))
    assert lambda_at(0, SteeredSettings(most=2.0, ramp=0)) == 2.0


# fixture F of the spec: four words; the projection is the identity, so states are logits
Z0 = np.array([1.0, 0.0, -1.0, 0.0])
RIGHT_CONTEXTS = np.array([[2.0, 0.0, 0.0, -1.0], [1.0, 1.0, -1.0, 0.0]])
WRONG_CONTEXTS = np.array([[0.0, 2.0, -1.0, 0.0], [1.0, 1.0, 0.0, -2.0]])
STUDENT = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)


def target_of(
    settings: SteeredSettings, lam: float, is_linear: bool = True, **states: np.ndarray
) -> torch.Tensor:
    """The target of one token, from states [C, V] by name."""
    head: Any = SimpleNamespace(is_linear=is_linear, logits=lambda h: h, size=4)
    batch = {}
    for name, array in states.items():
        batch[ARRAY + name] = torch.from_numpy(np.atleast_2d(array)[:, None, :])
        batch[COUNTS + name] = torch.tensor([len(np.atleast_2d(array))])
    return Targets(settings, head, batch, lam).logits(slice(0, 1))


def arm_of(target: str) -> SteeredSettings:
    settings = OglsArm.model_validate({"kind": "ogls_sd", "name": "x", "target": target}).steered
    assert settings is not None
    return settings


@pytest.mark.parametrize(
    ("lam", "expected", "entropy", "moved"),
    [
        (0, (0.534447, 0.196612, 0.072329, 0.196612), 1.164406, 0.0),
        (1, (0.756027, 0.037640, 0.037640, 0.168692), 0.758559, 0.149578),
        (3, (0.917654, 0.000837, 0.006183, 0.075326), 0.311022, 0.404030),
    ],
)
def test_the_target_of_the_fixture_whether_states_or_logits_are_averaged(
    lam: float, expected: tuple[float, ...], entropy: float, moved: float
) -> None:
    means = {"h0": Z0, "h_pos": RIGHT_CONTEXTS.mean(0), "h_neg": WRONG_CONTEXTS.mean(0)}
    each = {"h0": Z0, "h_pos": RIGHT_CONTEXTS, "h_neg": WRONG_CONTEXTS}
    for is_linear, states in ((True, means), (False, each)):
        p = torch.softmax(target_of(arm_of("ogls"), lam, is_linear, **states), 1)[0]
        assert p.tolist() == pytest.approx(expected, abs=1e-6)
        assert float(-(p * p.log()).sum()) == pytest.approx(entropy, abs=1e-6)
        p0 = torch.softmax(torch.from_numpy(Z0), 0)
        assert float((p * (p / p0).log()).sum()) == pytest.approx(moved, abs=1e-6)
    # log-probabilities for logits, and any constant added to a context, change nothing
    constants = np.array([[10.0], [-7.0]])
    logged = {
        "h0": torch.log_softmax(torch.from_numpy(Z0), 0).numpy(),
        "h_pos": torch.log_softmax(torch.from_numpy(RIGHT_CONTEXTS), 1).numpy() + constants,
        "h_neg": torch.log_softmax(torch.from_numpy(WRONG_CONTEXTS), 1).numpy() + 3.0,
    }
    same = torch.softmax(target_of(arm_of("ogls"), lam, False, **logged), 1)[0]
    whole = torch.softmax(target_of(arm_of("ogls"), lam, True, **means), 1)[0]
    assert same.tolist() == pytest.approx(whole.tolist(), abs=1e-12)


@pytest.mark.parametrize(
    ("target", "expected", "kl"),
    [
        ("positive_only", (0.657233, 0.241783, 0.088947, 0.012038), 0.614342),
        ("positive_mean", (0.610296, 0.224515, 0.082595, 0.082595), 0.470448),
        ("opsd_incorrect", (0.757313, 0.102491, 0.102491, 0.037704), 0.840121),
        ("lambda_zero", (0.534447, 0.196612, 0.072329, 0.196612), 0.382650),
    ],
)
def test_targets_of_other_arms_on_the_fixture(target: str, expected: tuple[float, ...], kl: float) -> None:
    pools = {"h_pos": RIGHT_CONTEXTS.mean(0), "h_neg": WRONG_CONTEXTS.mean(0)}
    logits = target_of(arm_of(target), 3.0, h0=Z0, h_s=RIGHT_CONTEXTS[0], **pools)
    assert torch.softmax(logits, 1)[0].tolist() == pytest.approx(expected, abs=1e-6)
    exact = divergence_of(logits, STUDENT, DivergenceSettings(clip="none"))
    assert exact.item() == pytest.approx(kl, abs=1e-6)


def test_a_rollout_in_its_own_wrong_pool_is_told_not_to_say_what_it_said() -> None:
    """A teacher that copies what it is shown; y_j has word 0 here, the other wrong one 2, the reference 1."""

    def shown(word: int) -> np.ndarray:
        return np.log(0.2 * 0.25 + 0.8 * (np.arange(4) == word))

    def target(*wrong: int, lam: float = 1.0) -> list[float]:
        pools = {"h_pos": shown(1), "h_neg": np.mean([shown(w) for w in wrong], 0)}
        logits = target_of(arm_of("ogls"), lam, h0=np.log(np.full(4, 0.25)), **pools)
        return [float(p) for p in torch.softmax(logits, 1)[0]]

    assert target(0, 2) == pytest.approx([0.013121, 0.919661, 0.013121, 0.054098], abs=1e-6)
    assert target(2) == pytest.approx([0.052469, 0.891975, 0.003086, 0.052469], abs=1e-6)
    assert target(0) == pytest.approx([0.003086, 0.891975, 0.052469, 0.052469], abs=1e-6)
    assert target(0, 2, lam=3.0)[0] == pytest.approx(3e-6, rel=0.2)
