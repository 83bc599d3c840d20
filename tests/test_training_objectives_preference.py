"""Learning from pairs: the closed forms, values worked by hand, and the same losses however a batch is
shared."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model
from cluster.models.proof import prove
from cluster.models.vocabulary import Head
from cluster.storage import Place
from tests.architectures import tiny_model as tiny_model_of
from tests.engine import job, losses, weights
from tests.worker_group import WorkerGroup, train
from training.data import ARRAY, Example, Examples, write_examples
from training.metrics import read_metrics
from training.objectives import chunked, preference
from training.objectives.chunked import chunked_logprobs
from training.objectives.preference import pair_mass, preference_loss
from training.preference_settings import REFERENCE, PreferenceSettings, check_preference
from training.settings import LoraSettings

# (ln pi(c), ln ref(c), ln pi(j), ln ref(j)); beta; margin; loss; d loss / d ln pi(c)
CASES = (
    ((-12.0, -13.0, -10.0, -9.5), 0.1, 0.15, 0.620957, -0.046257),
    ((-12.0, -13.0, -10.0, -9.5), 0.5, 0.75, 0.386871, -0.160411),
    ((-12.0, -12.0, -10.0, -10.0), 0.1, 0.0, 0.693147, -0.05),
    ((-12.0, -12.0, -10.0, -10.0), 0.5, 0.0, 0.693147, -0.25),
    ((-14.0, -13.0, -9.0, -9.5), 0.1, -0.15, 0.770957, -0.053743),
    ((-14.0, -13.0, -9.0, -9.5), 0.5, -0.75, 1.136871, -0.339589),
)


def loss_of(
    texts: list[tuple[list[float], list[float]]],
    settings: PreferenceSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """The loss of pairs whose tokens have these log-probabilities: of the model, and of the model as it was.
    Returns it with its metrics and the tensor of the model's log-probabilities."""
    own = torch.tensor([value for tokens, _ in texts for value in tokens], requires_grad=True)
    reference = [value for _, tokens in texts for value in tokens]
    owners = [k for k, (tokens, _) in enumerate(texts) for _ in tokens]
    monkeypatch.setattr(preference, "hidden_states", lambda *_: torch.zeros(1, len(owners) + 1, 1))
    monkeypatch.setattr(preference, "chunked_logprobs", lambda *_: own)
    batch = {
        "labels": torch.tensor([[0, *[1] * len(owners)]]),
        "owners": torch.tensor([[0, *owners]]),
        "weights": torch.ones(1, len(owners) + 1),
        ARRAY + REFERENCE: torch.tensor(reference).reshape(1, -1, 1),
    }
    total, metrics = preference_loss(settings, SimpleNamespace(), None, batch)  # type: ignore[arg-type]
    return total, metrics, own


@pytest.mark.parametrize(("given", "beta", "margin", "loss", "slope"), CASES)
def test_the_closed_forms(
    given: tuple[float, ...],
    beta: float,
    margin: float,
    loss: float,
    slope: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, ref_chosen, rejected, ref_rejected = given
    texts = [([chosen], [ref_chosen]), ([rejected], [ref_rejected])]
    total, metrics, own = loss_of(texts, PreferenceSettings(beta), monkeypatch)
    assert total.item() == pytest.approx(loss, abs=1e-6)
    assert metrics["margin"].item() == pytest.approx(margin, abs=1e-6)
    assert metrics["accuracy"].item() == float(margin > 0)
    total.backward()
    assert own.grad is not None
    assert own.grad.tolist() == pytest.approx([slope, -slope], abs=1e-6)
    swapped, *_ = loss_of(texts[::-1], PreferenceSettings(beta), monkeypatch)
    assert swapped.item() == pytest.approx(math.log1p(math.exp(margin)), abs=1e-5)


def test_several_pairs_share_a_batch_and_sums_not_means_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case[0] for case in CASES[::2]]
    texts = [pair for c, rc, j, rj in cases for pair in (([c], [rc]), ([j], [rj]))]
    total, *_ = loss_of(texts, PreferenceSettings(0.1), monkeypatch)
    assert total.item() / 3 == pytest.approx(0.695020, abs=1e-6)
    long = [([-1.0, -2.0, -0.5], [-1.2, -2.1, -0.4]), ([-0.3] * 5, [-0.2] * 5)]
    total, metrics, _ = loss_of(long, PreferenceSettings(0.1), monkeypatch)
    assert metrics["margin"].item() == pytest.approx(0.07, abs=1e-6)
    assert total.item() == pytest.approx(0.658760, abs=1e-6)
    by_token, metrics, _ = loss_of(long, PreferenceSettings(0.1, per_token=True), monkeypatch)
    assert by_token.item() == pytest.approx(0.684849, abs=1e-6)  # only if it is asked for


def test_what_is_off_by_default_does_what_its_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [([-12.0], [-13.0]), ([-10.0], [-9.5])]
    smoothed, *_ = loss_of(texts, PreferenceSettings(0.1, label_smoothing=0.2), monkeypatch)
    assert smoothed.item() == pytest.approx(0.8 * 0.620957 + 0.2 * 0.770957, abs=1e-5)
    with_likelihood, *_ = loss_of(texts, PreferenceSettings(0.1, likelihood=0.5), monkeypatch)
    assert with_likelihood.item() == pytest.approx(0.620957 + 0.5 * 12, abs=1e-5)


def test_the_optimum_over_a_table_of_texts() -> None:
    reference, rewards, beta = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([1.0, 0.0, -1.0]), 0.5
    logits = reference.log().clone().requires_grad_(True)
    pairs = [(i, k) for i in range(3) for k in range(i + 1, 3)]
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def loss() -> torch.Tensor:
        gained = torch.log_softmax(logits, 0) - reference.log()
        total = torch.zeros((), dtype=torch.float64)
        for i, k in pairs:
            share = torch.sigmoid(rewards[i] - rewards[k]).double()
            margin = beta * (gained[i] - gained[k]).reshape(1)
            total = total + (share * preference.losses(margin) + (1 - share) * preference.losses(-margin))[0]
        return total / len(pairs)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert torch.softmax(logits, 0).tolist() == pytest.approx([0.918672, 0.074597, 0.006730], abs=1e-5)
    assert loss().item() == pytest.approx(0.509913, abs=1e-6)


@pytest.mark.parametrize(("kept", "rows"), [(2**30, 5), (0, 5), (2**30, 64), (0, 64)])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_of_a_trained_head_have_the_gradients_of_the_plain_way(
    kept: int, rows: int, has_bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against `log_softmax` in float64: of the logits kept and of those computed again, in any chunks."""
    model = tiny_model_of("llama").to(dtype)
    own = model.get_output_embeddings()
    g = torch.Generator().manual_seed(0)
    if has_bias:
        own.bias = torch.nn.Parameter(torch.randn(own.weight.shape[0], generator=g).to(dtype))
    head = Head(model, own.weight.shape[0])
    monkeypatch.setitem(chunked.CHUNK_BYTES, "cpu", 4 * head.size * rows)
    monkeypatch.setitem(chunked.KEPT_BYTES, "cpu", kept)
    hidden = torch.randn(37, own.weight.shape[1], generator=g).to(dtype).requires_grad_(True)
    labels = torch.randint(0, head.size, (37,), generator=g)
    scale = torch.randn(37, generator=g)
    found = chunked_logprobs(head, hidden, labels)
    (found * scale).sum().backward()
    leaves = [hidden, own.weight, *([own.bias] if has_bias else [])]
    exact = [leaf.detach().double().requires_grad_(True) for leaf in leaves]
    logits = torch.nn.functional.linear(*exact)
    want = torch.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    (want * scale).sum().backward()
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(found.double(), want, **near)
    for leaf, other in zip(leaves, exact, strict=True):
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        torch.testing.assert_close(leaf.grad.double(), other.grad, **near)


@pytest.mark.parametrize("trains_head", [False, True])
def test_log_probabilities_in_chunks_are_the_plain_ones_with_their_gradients(
    trains_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model_of("llama")
    own = model.get_output_embeddings()
    own.weight.requires_grad_(trains_head)
    head: Head = prove(model, ("projection",)).head
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, own.weight.shape[1], generator=g).requires_grad_(True)
    labels = torch.randint(0, own.weight.shape[0], (37,), generator=g)
    scale = torch.randn(37, generator=g)

    def run() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        hidden.grad = own.weight.grad = None
        found = chunked_logprobs(head, hidden, labels)
        (found * scale).sum().backward()
        assert hidden.grad is not None
        return found.detach(), hidden.grad.clone(), own.weight.grad

    plain = run()
    monkeypatch.setitem(chunked.CHUNK_BYTES, "cpu", 4 * head.size * 5)
    parted = run()
    for one, other in zip(plain, parted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert (plain[2] is not None) == trains_head


def drawn(model: Any, pairs: int = 8, seed: int = 0) -> list[Example]:
    """Pairs of texts after one prompt each, with their log-probabilities under a model."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(pairs):
        prompt = [int(i) for i in rng.integers(3, 300, 5)]
        for _ in range(2):
            answer = [int(i) for i in rng.integers(3, 300, int(rng.integers(2, 14)))]
            ids = torch.tensor([[*prompt, *answer]])
            with torch.no_grad():
                logprobs = torch.log_softmax(model(input_ids=ids).logits[0, 4:-1].float(), -1)
            told = logprobs.gather(1, torch.tensor(answer).unsqueeze(1)).reshape(1, -1, 1).numpy()
            span = 5, 5 + len(answer)
            found.append(Example((*prompt, *answer), *span, 1.0 + k % 2, k, {REFERENCE: told}))
    return found


@pytest.fixture
def pairs(tiny_model: Path, tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "pairs.arrow"))
    write_examples(place, drawn(load_model(ModelSource(str(tiny_model)))))
    return place


def slow_loss(model: Any, rows: list[Example], beta: float) -> float:
    total = mass = 0.0
    for chosen, rejected in zip(rows[::2], rows[1::2], strict=True):
        gains = []
        for row in (chosen, rejected):
            ids = torch.tensor([row.ids])
            told = torch.log_softmax(model(input_ids=ids).logits[0, 4:-1].float(), -1)
            own = told.gather(1, ids[0, 5:].unsqueeze(1)).sum().item()
            gains.append(own - float(row.arrays[REFERENCE].sum()))
        total += chosen.weight * math.log1p(math.exp(-beta * (gains[0] - gains[1])))
        mass += chosen.weight
    return total / mass


@pytest.mark.long
def test_a_batch_s_loss_is_a_slow_version_s_whoever_shares_it(
    one: WorkerGroup, two: WorkerGroup, tiny_model: Path, pairs: Place, tmp_path: Path
) -> None:
    settings = PreferenceSettings(0.5)
    found = {}
    for name, group, tokens, stage, further in (
        ("whole", one, 4096, 0, {}),
        ("parted", one, 30, 1, {}),
        ("shared", two, 30, 3, {}),
        ("checkpointed", one, 4096, 0, {"gradient_checkpointing": True}),  # no prompt is shared
        ("adapter", one, 4096, 0, {"lora": LoraSettings(r=4)}),
        ("adapter checkpointed", one, 4096, 0, {"lora": LoraSettings(r=4), "gradient_checkpointing": True}),
    ):
        about = {"steps": 4, "batch_size": 8, "micro_batch_tokens": tokens, "zero_stage": stage} | further
        own = job(name, tiny_model, Path(pairs.path), tmp_path, warmup_ratio=0.0, **about)
        found[name] = replace(own, objective=settings)
        group.run(train, [found[name]], tmp_path / "checkpoints")
    rows = list(Examples(pairs))
    first = read_metrics(Place(found["whole"].output))[0]
    model = load_model(ModelSource(str(tiny_model)))
    assert first["loss_nats"] == pytest.approx(slow_loss(model, rows, 0.5), abs=1e-4)
    assert first["loss_nats"] == pytest.approx(math.log(2), abs=1e-4)  # nothing has changed yet
    assert first["margin"] == pytest.approx(0, abs=1e-4)
    assert first["pairs"] == sum(row.weight for row in rows[::2])
    for name in ("parted", "shared", "checkpointed"):
        assert losses(found[name]) == pytest.approx(losses(found["whole"]), rel=2e-4)
    assert losses(found["adapter"]) == pytest.approx(losses(found["adapter checkpointed"]), rel=2e-4)
    assert losses(found["adapter"])[-1] != pytest.approx(losses(found["whole"])[-1], rel=2e-4)
    last = read_metrics(Place(found["whole"].output))[-1]
    assert last["loss_nats"] < first["loss_nats"]
    assert last["margin"] > 0
    assert not [n for n in weights(found["whole"]) if "attached" in n]


def test_the_log_probabilities_in_the_file_count_and_no_others(
    one: WorkerGroup, tiny_model: Path, tmp_path: Path
) -> None:
    rows = drawn(load_model(ModelSource(str(tiny_model))))
    told = {}
    for name, shift in (("as it was", 0.0), ("shifted", 0.25)):
        moved = [
            replace(row, arrays={REFERENCE: row.arrays[REFERENCE] - shift * (k % 2 == 0)})
            for k, row in enumerate(rows)
        ]
        place = Place(str(tmp_path / f"{name}.arrow"))
        write_examples(place, moved)
        about = {"steps": 1, "batch_size": 8, "lora": None}
        own = replace(
            job(name, tiny_model, Path(place.path), tmp_path, **about), objective=PreferenceSettings(1.0)
        )
        one.run(train, [own], tmp_path / "checkpoints")
        told[name] = read_metrics(Place(own.output))[0]["margin"]
    mass = sum(row.weight for row in rows[::2])
    lower = sum(0.25 * row.loss_tokens * row.weight for row in rows[::2]) / mass
    assert told["shifted"] - told["as it was"] == pytest.approx(lower, rel=1e-3)


def test_what_is_no_pair_is_refused(tmp_path: Path) -> None:
    reference = {REFERENCE: np.zeros((1, 2, 1), dtype=np.float32)}
    row = Example((1, 2, 3, 4), 2, 4, arrays=reference)
    for name, groups, arrays in (
        ("alone", [-1, -1], reference),
        ("three", [0, 0, 0], reference),
        ("two halves", [0, 1], reference),
        ("no reference", [0, 0], {}),
    ):
        place = Place(str(tmp_path / f"{name}.arrow"))
        write_examples(place, [replace(row, group=g, arrays=arrays) for g in groups])
        with pytest.raises(ValueError, match=r"pair|as it was"):
            pair_mass(Examples(place))


@pytest.mark.parametrize(
    "given", [{"beta": 0.0}, {"beta": -1.0}, {"label_smoothing": 0.5}, {"likelihood": -0.1}]
)
def test_numbers_out_of_range_are_refused(given: dict[str, float]) -> None:
    check_preference(PreferenceSettings())
    with pytest.raises(BadInput, match=next(iter(given))):
        check_preference(PreferenceSettings(**given))
