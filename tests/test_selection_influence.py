"""The influence of one step, on a loss whose values are known by hand."""

import numpy as np
import pytest
import torch

from selection.influence import Prober

CURVATURE = torch.tensor([2.0, 0.5])


def prober(optimizer: str = "sgd") -> tuple[Prober, torch.nn.Parameter]:
    """A reference loss theta' H theta / 2 at theta = (1, -1). A draft is its own gradient."""
    theta = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    own = torch.optim.SGD([theta], lr=0.1) if optimizer == "sgd" else torch.optim.Adam([theta], lr=0.1)

    def reference() -> np.ndarray:
        with torch.no_grad():
            return np.array([float((CURVATURE * theta**2).sum() / 2)])

    def gradient() -> None:
        ((CURVATURE * theta**2).sum() / 2).backward()

    return Prober([theta], own, lambda draft: (torch.tensor(draft) * theta).sum(), reference, gradient), theta


@pytest.mark.parametrize(
    ("draft", "exact", "first_order"),
    [((1.0, -0.5), 0.214375, 0.225), ((-1.0, 0.0), -0.21, -0.2), ((10.0, 0.0), 1.0, 2.0)],
)
def test_the_exact_form_and_the_first_order(
    draft: tuple[float, float], exact: float, first_order: float
) -> None:
    probe, theta = prober()
    before = probe.reference_losses()
    assert before.tolist() == [1.25]
    for _ in range(2):  # probing twice gives the same number
        assert probe.exact(draft).tolist() == pytest.approx([exact], abs=1e-6)
        assert probe.first_order(draft, 0.1) == pytest.approx(first_order, rel=1e-3)
    assert theta.tolist() == [1.0, -1.0]


def test_the_moments_of_an_optimizer_are_restored() -> None:
    probe, theta = prober("adam")
    probe.optimizer.zero_grad()
    probe.loss_of((0.3, 0.1)).backward()  # type: ignore[no-untyped-call]
    probe.optimizer.step()  # a step that warms it up
    warm = Prober([theta], probe.optimizer, probe.loss_of, probe.reference_losses, probe.reference_gradient)
    one, other = warm.exact((1.0, -0.5)), warm.exact((-1.0, 2.0))
    assert warm.exact((1.0, -0.5)).tolist() == one.tolist()
    assert warm.exact((-1.0, 2.0)).tolist() == other.tolist()
    assert one.tolist() != other.tolist()
