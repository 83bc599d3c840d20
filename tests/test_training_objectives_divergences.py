"""Divergences: values and gradients worked out beforehand, published programs' values, extremes."""

import importlib.util
import itertools
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cluster.errors import BadInput
from training.objectives.divergences import divergence_of, entries, with_tail
from training.targets import DivergenceSettings, check_divergence

# fixture F: four words, two right contexts, two wrong ones
Z0 = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
RIGHT = torch.tensor([[2.0, 0.0, 0.0, -1.0], [1.0, 1.0, -1.0, 0.0]], dtype=torch.float64)
WRONG = torch.tensor([[0.0, 2.0, -1.0, 0.0], [1.0, 1.0, 0.0, -2.0]], dtype=torch.float64)
STUDENT = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)


def target(lam: float) -> torch.Tensor:
    return Z0 + lam * (RIGHT.mean(0) - WRONG.mean(0))


def value(z: torch.Tensor, student: torch.Tensor = STUDENT, **about: Any) -> float:
    about = {"clip": "none", **about}
    return float(divergence_of(z[None], student[None], DivergenceSettings(**about))[0])


def logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("lam", "forward", "reverse", "jsd", "one", "two"),
    [
        (0, 0.382650, 0.358222, 0.088835, -0.164404, -0.026968),
        (1, 0.947469, 1.224427, 0.232345, -0.109347, -0.056075),
        (3, 1.431810, 3.456784, 0.359828, -0.039417, -0.025973),
    ],
)
def test_divergences_of_the_fixture(
    lam: float, forward: float, reverse: float, jsd: float, one: float, two: float
) -> None:
    z = target(lam)
    assert value(z) == pytest.approx(forward, abs=1e-6)
    assert value(z, divergence="reverse") == pytest.approx(reverse, abs=1e-6)
    assert value(z, divergence="jsd") == pytest.approx(jsd, abs=1e-6)
    assert value(z, clip="one_sided") == pytest.approx(one, abs=1e-6)
    assert value(z, clip="two_sided") == pytest.approx(two, abs=1e-6)
    assert value(z, divergence="jsd", beta=0.0) == pytest.approx(forward, abs=1e-6)
    assert value(z, divergence="jsd", beta=1.0) == pytest.approx(reverse, abs=1e-6)


def test_temperature_divides_both_sides() -> None:
    assert value(target(3), temperature=1.1) == pytest.approx(1.327860, abs=1e-6)


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"clip": "none"}, (-0.742777, 0.474530, 0.168695, 0.099552)),
        ({"clip": "one_sided"}, (0.014400, 0.038308, 0.008217, -0.060925)),
        ({"clip": "two_sided"}, (0.001228, 0.002500, -0.004955, 0.001228)),
        ({"clip": "none", "divergence": "reverse"}, (-0.894415, 1.371663, -0.020027, -0.457221)),
    ],
)
def test_gradients_of_the_fixture(about: dict[str, Any], expected: tuple[float, ...]) -> None:
    z, student = target(3).requires_grad_(), STUDENT.clone().requires_grad_()
    loss = divergence_of(z[None], student[None], DivergenceSettings(**about)).sum()
    loss.backward()
    assert student.grad is not None
    assert student.grad.tolist() == pytest.approx(expected, abs=1e-6)
    assert z.grad is None  # the target gets none


def test_the_sampled_form_has_the_gradient_of_reverse_kl_on_average() -> None:
    p = torch.softmax(STUDENT, 0)
    total = torch.zeros(4, dtype=torch.float64)
    for token in range(4):
        student = STUDENT.clone().requires_grad_()
        about = DivergenceSettings(divergence="sampled", clip="none")
        loss = divergence_of(target(3)[None], student[None], about, torch.tensor([token])).sum()
        loss.backward()
        assert student.grad is not None
        total += p[token] * student.grad
    assert total.tolist() == pytest.approx((-0.894415, 1.371663, -0.020027, -0.457221), abs=1e-6)


def gradient(target_p: tuple[float, ...], student_p: tuple[float, ...], **about: Any) -> list[float]:
    student = logits(*student_p).requires_grad_()
    divergence_of(logits(*target_p)[None], student[None], DivergenceSettings(**about)).sum().backward()
    assert student.grad is not None
    return student.grad.tolist()  # type: ignore[no-any-return]


def test_a_clipped_entry_has_no_gradient() -> None:
    p_t, p_s = (0.9, 0.05, 0.05), (0.05, 0.475, 0.475)
    z, s = logits(*p_t), logits(*p_s)
    assert value(z, s) == pytest.approx(2.376205, abs=1e-6)
    assert value(z, s, clip="one_sided") == pytest.approx(-0.175129, abs=1e-6)
    assert value(z, s, clip="two_sided") == pytest.approx(-0.05, abs=1e-6)
    assert gradient(p_t, p_s, clip="none") == pytest.approx([-0.85, 0.425, 0.425], abs=1e-6)
    assert gradient(p_t, p_s, clip="one_sided") == pytest.approx([0.005, -0.0025, -0.0025], abs=1e-6)
    assert gradient(p_t, p_s, clip="two_sided") == pytest.approx([0, 0, 0], abs=1e-12)
    ours = gradient(p_t, p_s, clip="per_token", threshold=1.0)
    assert ours == pytest.approx([-0.357713, 0.178857, 0.178857], abs=1e-6)


def test_the_published_clip_can_push_away_from_the_teacher() -> None:
    """Documents the clip as it was published: a clipped loss is no distance."""
    p_t, p_s = (0.5, 0.3, 0.2), (0.45, 0.35, 0.20)
    z, s = logits(*p_t), logits(*p_s)
    assert value(z, s) == pytest.approx(0.006435, abs=1e-6)
    for clip in ("one_sided", "two_sided"):
        assert value(z, s, clip=clip) == pytest.approx(0.003755, abs=1e-6)
        assert gradient(p_t, p_s, clip=clip) == pytest.approx([0.225, -0.125, -0.1], abs=1e-6)
    assert gradient(p_t, p_s, clip="none") == pytest.approx([-0.05, 0.05, 0.0], abs=1e-6)


def descended(start: tuple[float, ...], clip: str) -> list[float]:
    z, student = logits(0.5, 0.3, 0.2), logits(*start)
    for _ in range(20):
        student = student.detach().requires_grad_()
        about = DivergenceSettings(clip=clip)  # type: ignore[arg-type]
        divergence_of(z[None], student[None], about).sum().backward()
        assert student.grad is not None
        student = student - 0.5 * student.grad
    return torch.softmax(student, 0).tolist()  # type: ignore[no-any-return]


def test_where_gradient_descent_ends_under_each_clip() -> None:
    start = (0.45, 0.35, 0.20)
    assert descended(start, "none") == pytest.approx([0.499584, 0.301147, 0.199269], abs=1e-6)
    assert descended(start, "two_sided") == pytest.approx([0.351923, 0.383450, 0.264627], abs=1e-6)
    assert descended(start, "one_sided") == pytest.approx([0.122648, 0.549014, 0.328337], abs=1e-6)
    for clip in ("none", "one_sided", "two_sided"):  # where no entry exceeds the threshold all are alike
        near = descended((0.48, 0.32, 0.20), clip)
        assert near == pytest.approx([0.499839, 0.300497, 0.199664], abs=1e-6)
    end = logits(1e-12, 0.6, 0.4)
    lowest = 0.05 + 0.5 * np.log(0.5)
    assert value(logits(0.5, 0.3, 0.2), end, clip="one_sided") == pytest.approx(lowest, abs=1e-6)


def test_jsd_at_its_ends() -> None:
    z, s = logits(0.9, 0.05, 0.05), logits(0.05, 0.475, 0.475)
    for beta, expected in ((0.01, 0.023039), (0.5, 0.430098), (0.99, 0.019550), (0, 2.376205), (1, 1.994209)):
        assert value(z, s, divergence="jsd", beta=beta) == pytest.approx(expected, abs=1e-6)


def test_the_likeliest_entries_and_a_bucket_for_the_rest() -> None:
    z, s = logits(0.40, 0.20, 0.20, 0.15, 0.05), logits(0.30, 0.40, 0.10, 0.15, 0.05)
    assert value(z, s, top_k=2) == pytest.approx(0.091516, abs=1e-6)
    assert value(z, s) == pytest.approx(0.115073, abs=1e-6)
    assert value(z, s, top_k=2, divergence="reverse") == pytest.approx(0.104650, abs=1e-6)
    assert value(z, s, divergence="reverse") == pytest.approx(0.121640, abs=1e-6)
    kept = [1, 0]
    bare = float(entries(z[None, kept], s[None, kept], "forward").sum())
    assert bare == pytest.approx(-0.023557, abs=1e-6)  # below 0: what the bucket is for
    bucketed = with_tail(z[None], torch.tensor([kept])).exp()[0]
    assert bucketed.tolist() == pytest.approx([0.2, 0.4, 0.4])


PROBABLE = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(2, 9)), elements=st.floats(-8, 8, width=32)
)


@settings(max_examples=60)
@given(PROBABLE, st.integers(0, 2**31), st.floats(0.06, 0.94), st.floats(0.3, 3.0))
def test_every_divergence_is_its_formula_written_out(
    z: np.ndarray, seed: int, beta: float, temperature: float
) -> None:
    s = np.random.default_rng(seed).normal(0, 3, z.shape)

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    p, q = softmax(z / temperature), softmax(s / temperature)
    m = beta * p + (1 - beta) * q
    expected = {
        "forward": (p * np.log(p / q)).sum(1),
        "reverse": (q * np.log(q / p)).sum(1),
        "jsd": (beta * p * np.log(p / m) + (1 - beta) * q * np.log(q / m)).sum(1),
    }
    for name, values in expected.items():
        given = {"divergence": name, "beta": beta, "clip": "none", "temperature": temperature}
        about = DivergenceSettings(**given)  # type: ignore[arg-type]
        found = divergence_of(torch.tensor(z), torch.tensor(s), about)
        assert found.tolist() == pytest.approx(values.tolist(), abs=2e-5)
        assert (found >= -1e-6).all()
        for k in range(1, z.shape[1]):  # fewer entries never tell more
            few = divergence_of(
                torch.tensor(z), torch.tensor(s), DivergenceSettings(**{**vars(about), "top_k": k})
            )
            assert (few <= found + 1e-5).all()


def test_nothing_is_to_be_learned_from_oneself() -> None:
    for divergence, clip in itertools.product(
        ("forward", "reverse", "jsd"), ("none", "two_sided", "per_token")
    ):
        student = STUDENT.float().requires_grad_()
        about = DivergenceSettings(divergence=divergence, clip=clip)  # type: ignore[arg-type]
        loss = divergence_of(STUDENT.float()[None], student[None], about).sum()
        loss.backward()
        assert student.grad is not None
        assert abs(loss.item()) < 1e-6
        assert student.grad.abs().max() < 1e-6


def test_probabilities_of_zero_count_as_nothing() -> None:
    z = torch.tensor([[0.0, float("-inf"), 1.0]])
    student = torch.tensor([[0.5, 0.2, 0.1]]).requires_grad_()
    loss = divergence_of(z, student, DivergenceSettings(clip="none")).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"divergence": "jsd", "beta": 0.01}, "almost nothing is learned"),
        ({"divergence": "sampled"}, "no entries"),
        ({"divergence": "sampled", "clip": "none", "top_k": 5}, "no entries"),
        ({"threshold": 0.0}, "threshold is out of range"),
        ({"temperature": -1.0}, "temperature is out of range"),
        ({"beta": 1.5}, "beta is out of range"),
        ({"top_k": 0}, "top_k is out of range"),
    ],
)
def test_settings_that_do_not_fit_are_refused(about: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_divergence(DivergenceSettings(**about))
    check_divergence(DivergenceSettings(divergence="jsd", beta=0.01, allow_small_beta=True))


THEIRS = """
import json, sys, torch
from trl.experimental.gkd.gkd_trainer import GKDTrainer
z, s = (torch.tensor(x) for x in json.load(sys.stdin))
print(json.dumps([[GKDTrainer.generalized_jsd_loss(s, z, beta=b, temperature=t, reduction="sum").item()
    for t in (1.0, 0.7)] for b in (0.0, 0.3, 0.5, 1.0)]))
from trl.experimental.sdft.loss_utils import compute_topk_self_distillation_loss as topk
few = lambda k, b: topk(s, z, distillation_topk=k, distillation_alpha=b, distillation_add_tail=True)
print(json.dumps([[few(k, b).sum().item() for k in (1, 4, 10)] for b in (0.0, 0.3, 0.5, 1.0)]))
"""


@pytest.mark.long
def test_trls_own_losses_give_the_same() -> None:
    """In a process of its own: other tests hide DeepSpeed, which TRL looks for when it is imported."""
    if importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed")
    rng = torch.Generator().manual_seed(3)
    z, s = torch.randn(2, 5, 11, generator=rng), torch.randn(2, 5, 11, generator=rng)
    given = json.dumps([z.tolist(), s.tolist()])
    done = subprocess.run(
        [sys.executable, "-c", THEIRS], input=given, capture_output=True, text=True, check=True
    )
    values, few = map(json.loads, done.stdout.strip().splitlines()[-2:])
    for beta, row in zip((0.0, 0.3, 0.5, 1.0), few, strict=True):  # SDFT's and SDPO's own, with its tail
        for k, theirs in zip((1, 4, 10), row, strict=True):
            about = DivergenceSettings(divergence="jsd", beta=beta, clip="none", top_k=k)
            ours = divergence_of(z.reshape(10, 11), s.reshape(10, 11), about).sum()
            assert ours.item() == pytest.approx(theirs, rel=1e-4)
    for beta, row in zip((0.0, 0.3, 0.5, 1.0), values, strict=True):
        for temperature, theirs in zip((1.0, 0.7), row, strict=True):
            about = DivergenceSettings(divergence="jsd", beta=beta, clip="none", temperature=temperature)
            ours = divergence_of(z.reshape(10, 11), s.reshape(10, 11), about).sum()
            # TRL's beta weighs the teacher as ours does: 0 is KL(teacher || student)
            assert ours.item() == pytest.approx(theirs, rel=1e-5)
