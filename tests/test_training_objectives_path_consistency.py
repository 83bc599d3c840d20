"""Path consistency on models: the same loss however a batch is shared, help that is closed, the value head
and its moving average, and a student that goes to the other model's distribution."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model
from cluster.models.proof import prove
from cluster.storage import Place
from tests.architectures import tiny_model as tiny_model_of
from tests.engine import job, losses, weights
from tests.worker_group import WorkerGroup, train
from training.data import Example, Examples, write_examples
from training.metrics import read_metrics
from training.objectives import chunked
from training.objectives.chunked import chunked_values
from training.objectives.path_consistency import ValueHead, decision_mass
from training.path_settings import (
    DECISION,
    NOT_DECIDED,
    PATH,
    PATH_COLUMNS,
    STATE_ONLY,
    PathSettings,
    check_paths,
)
from training.settings import LoraSettings

HELP = 7  # a token that stands for a call in these tests


def path(rng: np.random.Generator, own: bool, is_cut: bool, may_call: bool = True) -> Example:
    """A prompt of five tokens and a path with calls, each followed by a token of the other model."""
    ids = [int(i) for i in rng.integers(10, 300, 5)]
    rows: list[tuple[float, int, bool, bool, bool]] = []
    for _ in range(int(rng.integers(3, 9))):
        is_call = may_call and bool(rng.random() < 0.3)
        reward = float(rng.normal() - 1.5)
        ids.append(HELP if is_call else int(rng.integers(10, 300)))
        rows.append((reward, DECISION, is_call, may_call, own))
        if is_call:
            ids.append(int(rng.integers(10, 300)))
            rows.append((0.0, NOT_DECIDED, False, False, own))
    if is_cut:
        ids.append(int(rng.integers(10, 300)))
        rows.append((0.0, STATE_ONLY, False, may_call, own))
    array = np.array(rows, dtype=np.float32).reshape(1, len(rows), len(PATH_COLUMNS))
    return Example(tuple(ids), 5, len(ids), 0.5 + own, arrays={PATH: array})


def drawn(count: int = 16, seed: int = 3) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [path(rng, k % 2 == 0, k % 3 == 0, k % 5 != 0) for k in range(count)]


@pytest.fixture
def rollouts(tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "paths.arrow"))
    write_examples(place, drawn())
    return place


def log_policies(model: Any, row: Example) -> list[torch.Tensor]:
    """ln pi of the vocabulary before each token with a loss."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].float()
    return [logits[i - 1] for i in range(row.loss_start, row.loss_end)]


def slow_loss(model: Any, rows: list[Example], s: PathSettings) -> float:
    """The loss with values of 0, or of the logits: by loops, in double precision."""
    total = mass = 0.0
    for row in rows:
        table, path = row.arrays[PATH][0], []
        for at, (logits, (reward, part, is_call, may_call, _)) in enumerate(
            zip(log_policies(model, row), table, strict=True)
        ):
            if part == NOT_DECIDED:
                continue
            logits = logits.double().clone()
            if not may_call:
                logits[HELP] = -torch.inf
            heat = s.alpha if s.value == "logits" else 1.0  # of the policy that acts
            whole = torch.logsumexp(logits / heat, 0)
            value = heat * float(whole) if s.value == "logits" else 0.0
            log_pi = float(logits[row.ids[row.loss_start + at]] / heat - whole)
            path.append((part == DECISION, value, float(reward) - s.alpha * log_pi, bool(is_call), log_pi))
        decisions = [p for p in path if p[0]]
        values = [p[1] for p in path] + [0.0] * (len(path) == len(decisions))
        is_own = bool(table[0, 4])
        for i in range(len(decisions)):
            for length in s.lengths:
                stop = min(i + length, len(decisions)) if length else len(decisions)
                if not is_own:
                    stop = next((k + 1 for k in range(i, stop) if decisions[k][3]), stop)
                c = -values[i] + s.gamma ** (stop - i) * values[stop]
                c += sum(s.gamma ** (k - i) * decisions[k][2] for k in range(i, stop))
                half = c * c / 2 if abs(c) <= s.clip else s.clip * (abs(c) - s.clip / 2)
                total += s.consistency * row.weight * half / (stop - i) / len(s.lengths)
            if not is_own:
                total -= s.cloning * row.weight * decisions[i][4]
        mass += row.weight * len(decisions)
    return total / mass


SETTINGS = (
    PathSettings(value="zero", help_id=HELP, alpha=0.5, lengths=(1, 4, 0)),
    PathSettings(value="logits", help_id=HELP, alpha=0.7, gamma=0.9, lengths=(1, 2, 0), cloning=0.3),
    PathSettings(help_id=HELP, clip=3.0, cloning=0.5),
    PathSettings(help_id=HELP, consistency=0.0, cloning=1.0),
)


@pytest.mark.long
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.value}-{s.consistency:g}-{s.cloning:g}")
def test_a_batch_s_loss_is_a_slow_version_s_whoever_shares_it(
    settings: PathSettings,
    one: WorkerGroup,
    two: WorkerGroup,
    tiny_model: Path,
    rollouts: Place,
    tmp_path: Path,
) -> None:
    found = {}
    for name, group, tokens, stage in (
        ("whole", one, 4096, 0),
        ("parted", one, 40, 1),
        ("shared", two, 40, 3),
    ):
        about = {"steps": 4, "batch_size": 16, "micro_batch_tokens": tokens, "zero_stage": stage}
        own = job(name, tiny_model, Path(rollouts.path), tmp_path, warmup_ratio=0.0, **about)
        found[name] = replace(own, objective=settings)
        group.run(train, [found[name]], tmp_path / "checkpoints")
    rows = list(Examples(rollouts))
    told = read_metrics(Place(found["whole"].output))
    expected = slow_loss(load_model(ModelSource(str(tiny_model))), rows, settings)
    assert told[0]["loss_nats"] == pytest.approx(expected, rel=1e-4)
    assert told[0]["decisions"] == pytest.approx(decision_mass(Examples(rollouts)).sum())
    for name in ("parted", "shared"):
        assert losses(found[name]) == pytest.approx(losses(found["whole"]), rel=5e-4)
    assert told[-1]["loss_nats"] < told[0]["loss_nats"]
    if settings.consistency > 0:
        assert told[0]["own_loss"] + told[0]["others_loss"] > 0
    assert not [n for n in weights(found["whole"]) if "attached" in n or "slow" in n]


@pytest.mark.long
def test_a_resumed_training_has_the_value_head_and_its_average_back(
    one: WorkerGroup, tiny_model: Path, rollouts: Place, tmp_path: Path
) -> None:
    settings = PathSettings(help_id=HELP, slow=0.5)  # a quick average, so that it matters
    about = {"steps": 6, "batch_size": 8, "checkpoint_every": 3}
    whole, halves = (
        replace(job(name, tiny_model, Path(rollouts.path), tmp_path, **about), objective=settings)
        for name in ("whole", "halves")
    )
    one.run(train, [whole], tmp_path / "whole checkpoints")
    one.run(train, [replace(halves, until=3)], tmp_path / "checkpoints")
    one.run(train, [halves], tmp_path / "checkpoints")
    assert losses(halves) == pytest.approx(losses(whole), rel=1e-6)
    values = [row["value"] for row in read_metrics(Place(halves.output))]
    assert values[0] == 0.0  # right at once for alpha 1 without help
    assert values[-1] != 0.0
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(halves)[name], weight, rtol=1e-6, atol=1e-7)


@pytest.mark.long
def test_adapters_learn_from_paths_too(
    one: WorkerGroup, tiny_model: Path, rollouts: Place, tmp_path: Path
) -> None:
    lora = LoraSettings(r=4, alpha=8)
    plain = job("adapters", tiny_model, Path(rollouts.path), tmp_path, steps=3, batch_size=8, lora=lora)
    own = replace(plain, objective=PathSettings(help_id=HELP))
    one.run(train, [own], tmp_path / "checkpoints")
    told = read_metrics(Place(own.output))
    assert told[-1]["value"] != 0.0
    assert told[0]["loss_nats"] == pytest.approx(
        slow_loss_of_first_batch(tiny_model, rollouts, own), rel=1e-3
    )


def slow_loss_of_first_batch(model: Path, rollouts: Place, own: Any) -> float:
    """With the value head, which is 0 before the first step."""
    from training.batches import global_batches

    rows = list(Examples(rollouts))
    (batch,) = global_batches(len(rows), 8, own.seed, 0, 1)
    settings = replace(own.objective, value="zero")
    return slow_loss(load_model(ModelSource(str(model))), [rows[i] for i in batch], settings)


def test_the_average_moves_once_a_step_and_stays_in_float32() -> None:
    head = ValueHead(4, PathSettings(slow=0.9, value_rate=2.0)).to(torch.bfloat16)
    assert head.weight.dtype == torch.bfloat16
    assert head.slow.dtype == torch.float32
    with torch.no_grad():
        head.weight.fill_(0.5)
        head.bias.fill_(1.0)
    states = torch.ones(3, 4, dtype=torch.bfloat16, requires_grad=True)
    for _ in range(3):  # three micro-batches of one step
        values, ahead = head(states, 0)
        assert values.tolist() == pytest.approx([6.0] * 3)  # 2 (4 x 0.5 + 1)
        assert ahead.tolist() == pytest.approx([0.6] * 3)
    _, ahead = head(states, 1)
    assert ahead.tolist() == pytest.approx([6.0 * (1 - 0.9**2)] * 3)
    values.sum().backward()  # type: ignore[no-untyped-call]
    assert states.grad is None  # values do not change the model's states
    assert head.weight.grad is not None
    assert head.weight.grad.tolist() == [[3.0] * 4]  # of the plain value: the rate is not in it
    assert not ahead.requires_grad


@pytest.mark.parametrize("trains_head", [False, True])
def test_several_values_in_chunks_are_the_plain_ones_with_their_gradients(
    trains_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model_of("llama")
    own = model.get_output_embeddings()
    own.weight.requires_grad_(trains_head)
    head = prove(model, ("projection",)).head
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, own.weight.shape[1], generator=g).requires_grad_(True)
    scale = torch.randn(37, 2, generator=g)

    def values_of(logits: torch.Tensor, part: slice) -> torch.Tensor:
        whole = torch.logsumexp(logits, 1)
        return torch.stack([logits[:, 3] - whole, whole], dim=1)

    def run() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        hidden.grad = own.weight.grad = None
        found = chunked_values(head, hidden, values_of)
        (found * scale).sum().backward()  # type: ignore[no-untyped-call]
        assert hidden.grad is not None
        return found.detach(), hidden.grad.clone(), own.weight.grad

    plain = run()
    monkeypatch.setitem(chunked.CHUNK_BYTES, "cpu", 4 * head.size * 5)
    parted = run()
    for one, other in zip(plain, parted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_examples_that_do_not_say_what_their_tokens_are_are_refused(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "plain.arrow"))
    write_examples(place, [Example((1, 2, 3, 4), 2, 4)])
    with pytest.raises(ValueError, match="decisions"):
        decision_mass(Examples(place))


@pytest.mark.parametrize(
    "given",
    [
        {"alpha": 0.0},
        {"gamma": 1.1},
        {"lengths": ()},
        {"slow": 1.0},
        {"clip": 0.0},
        {"value_rate": 0.0},
        {"consistency": 0.0},
        {"cloning": -1.0},
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any]) -> None:
    check_paths(PathSettings())
    name = "consistency" if given.get("consistency") == 0.0 else next(iter(given))
    with pytest.raises(BadInput, match=name):
        check_paths(PathSettings(**given))
