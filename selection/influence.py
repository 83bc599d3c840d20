"""How much one training step on a draft helps a student with reference answers: local data influence
(Montessori-Instruct, arXiv 2410.14208).

    influence(d) = mean reference loss before the step - mean reference loss after it        above 0: helpful

The weights and the optimizer are restored from memory after each probe, so probes do not depend on one
another. The first-order form is lr (g_ref . g_d). It is found as the change of the draft's loss along g_ref,
with two forward passes a draft, no step and no restoring.

Shapes: N reference answers.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

SHIFT = 1e-3  # the length of a step along the reference gradient, relative to the weights' own length


class Prober:
    """Probes drafts one by one.

    Args:
        parameters: those that are trained.
        optimizer: over these parameters, possibly after steps that warmed it up.
        loss_of: a draft's loss, with a graph.
        reference_losses: the loss of each reference answer [N], without a graph.
        reference_gradient: puts the gradient of the mean reference loss into the parameters.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        loss_of: Callable[[Any], torch.Tensor],
        reference_losses: Callable[[], np.ndarray],
        reference_gradient: Callable[[], None] | None = None,
    ) -> None:
        self.parameters, self.optimizer = list(parameters), optimizer
        self.loss_of, self.reference_losses = loss_of, reference_losses
        self.reference_gradient = reference_gradient
        self._weights = [p.detach().clone() for p in self.parameters]
        self._state = copy.deepcopy(optimizer.state_dict())
        self._before: np.ndarray | None = None
        self._along: list[torch.Tensor] = []
        self._norm = 0.0

    def exact(self, draft: Any) -> np.ndarray:
        """How much each reference answer's loss falls by one optimizer step on the draft [N]."""
        if self._before is None:
            self._before = self.reference_losses()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            self.loss_of(draft).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            return self._before - self.reference_losses()
        finally:
            self.restore()

    def first_order(self, draft: Any, learning_rate: float) -> float:
        """lr (g_ref . g_d), by a central difference of the draft's loss along g_ref.

        Raises:
            ValueError: there is no function for the reference gradient.
        """
        if not self._along:
            self._find_direction()
        if self._norm == 0:
            return 0.0
        size = SHIFT * max(_length(self._weights), 1e-8)
        found = []
        try:
            with torch.no_grad():
                for sign in (1.0, -1.0):
                    moved = zip(self.parameters, self._weights, self._along, strict=True)
                    for parameter, weight, along in moved:
                        parameter.copy_(weight + sign * size * along)
                    found.append(float(self.loss_of(draft).double()))
        finally:
            self.restore()
        return learning_rate * self._norm * (found[0] - found[1]) / (2 * size)

    def _find_direction(self) -> None:
        if self.reference_gradient is None:
            raise ValueError("the first-order form needs the gradient of the reference answers")
        self.optimizer.zero_grad(set_to_none=True)
        self.reference_gradient()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in self.parameters]
        self.optimizer.zero_grad(set_to_none=True)
        self._norm = _length(grads)
        self._along = [g / self._norm if self._norm else g for g in grads]

    def restore(self) -> None:
        """Put weights and optimizer back to where every probe begins."""
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, self._weights, strict=True):
                parameter.copy_(weight)
        self.optimizer.load_state_dict(copy.deepcopy(self._state))
        self.optimizer.zero_grad(set_to_none=True)


def _length(tensors: Sequence[torch.Tensor]) -> float:
    """The length of several tensors as one vector."""
    return float(torch.stack([(t.double() ** 2).sum() for t in tensors]).sum().sqrt())
