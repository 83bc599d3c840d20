"""The objective of OGLS-SD (arXiv 2605.12400) and its variants: a divergence from a frozen teacher's
distribution at each token of a rollout.

The target's logits are the projection of `base + lambda (plus - minus)`, which are states before the
teacher's vocabulary projection (`selection/steering.py`). If the projection is not linear, logits are
combined instead, averaged over contexts. Rows without states use cross-entropy.

A clipped divergence is no distance. Lower is not better, it can be negative, and beyond the threshold it
pushes away (`tests/test_training_objectives_divergences.py`). So the exact divergence is a metric beside the
loss.

Shapes: B rows, T tokens, C contexts, D width, V vocabulary, N tokens with a loss, n of them in a chunk.
"""

from functools import partial
from typing import Any

import torch

from cluster.errors import BadInput
from cluster.models.loading import ModelSource
from cluster.models.vocabulary import Head
from training.batches import IGNORED
from training.data import ARRAY, COUNTS
from training.objectives.chunked import chunked_loss
from training.objectives.divergences import divergence_of, entries, log_probabilities
from training.objectives.frozen import FrozenHead
from training.objectives.objective import Objective, Sums, Tensors, hidden_states, token_mass
from training.targets import SAMPLED, DivergenceSettings, SteeredSettings, lambda_at


def steered(settings: SteeredSettings) -> Objective:
    """The objective with these settings. It needs the source of the teacher's projection."""
    return Objective(partial(steered_loss, settings), token_mass, attach_head)


def attach_head(model: Any, frozen: ModelSource | None) -> torch.nn.Module:
    """The teacher's projection.

    Raises:
        BadInput: the job names no frozen model.
    """
    if frozen is None:
        raise BadInput("the objective steered needs a frozen teacher", "no TrainJob.frozen", "a model", "")
    return FrozenHead(frozen)


def steered_loss(
    settings: SteeredSettings, head: Head, attached: torch.nn.Module | None, batch: Tensors
) -> Sums:
    """Each token's divergence from its target, times its example's weight. Tokens without a target use
    cross-entropy.

    Args:
        batch: as for `weighted_cross_entropy`; further `array NAME` [C, N, D], `count NAME` [N], `step`, and
            where it is known `array sampled` [1, N, 1], log-probabilities of the tokens when they were
            sampled.

    Returns:
        The sum, and the sums of metrics, each token times its weight.

    """
    if not isinstance(attached, FrozenHead):
        raise TypeError("the objective steered needs what it attached")
    hidden = hidden_states(head, batch)
    labels, weights = batch["labels"][:, 1:], batch["weights"][:, 1:]
    chosen = labels != IGNORED
    labels_N, weights_N = labels[chosen], weights[chosen]
    targets = Targets(settings, attached, batch, lambda_at(int(batch["step"]), settings))
    sampled = batch.get(ARRAY + SAMPLED)
    names = METRICS if sampled is None else (*METRICS, "staleness_nats")
    sums: Tensors = {name: weights_N.new_zeros((), dtype=torch.float64) for name in names}

    def loss_of(logits: torch.Tensor, part: slice) -> torch.Tensor:
        weight, known = weights_N[part], targets.known_N[part]
        losses = torch.nn.functional.cross_entropy(logits, labels_N[part], reduction="none")
        if known.any():
            target = targets.logits(part)
            shared = min(target.shape[1], logits.shape[1])  # one vocabulary may be padded to a rounder size
            target, student = target[:, :shared], logits[:, :shared]
            own = divergence_of(target, student, settings.divergence, labels_N[part])
            losses = torch.where(known, own, losses)
            found = watched(settings, targets, part, target, student.detach(), labels_N[part])
            if sampled is not None:
                now = -torch.nn.functional.cross_entropy(logits.detach(), labels_N[part], reduction="none")
                found["staleness_nats"] = sampled[0, part, 0] - now
            for name, value in found.items():
                sums[name] += (value * weight * known).double().sum()
        return (losses * weight).sum()

    # the sum keeps the graph if there is no token with a loss
    total = hidden.sum() * 0.0 + chunked_loss(head, hidden[:, :-1][chosen], loss_of, BLOCKS)
    return total, {name: value.float() for name, value in sums.items()}


class Targets:
    """The targets of a micro-batch's tokens, computed for a few tokens at a time.

    Attributes:
        known_N: which tokens have a target.
    """

    def __init__(self, settings: SteeredSettings, head: FrozenHead, batch: Tensors, lam: float) -> None:
        self.settings, self.head, self.batch, self.lam = settings, head, batch, lam
        counts = [batch[COUNTS + name] for name in settings.arrays]  # they exist even if no example has any
        self.known_N = torch.stack([c > 0 for c in counts]).all(dim=0)
        self._singles = all(int(c.max()) <= 1 for c in counts if len(c))

    def logits(self, part: slice) -> torch.Tensor:
        """Target logits [n, V]."""
        s = self.settings
        if self.head.is_linear and self._singles:
            state = self.batch[ARRAY + s.base][0, part]
            if s.plus is not None and s.minus is not None:
                plus, minus = (self.batch[ARRAY + name][0, part] for name in (s.plus, s.minus))
                state = state + self.lam * (plus - minus)
            return self.head.logits(state)
        target = self.mean_logits(s.base, part)
        if s.plus is not None and s.minus is not None:
            target = target + self.lam * (self.mean_logits(s.plus, part) - self.mean_logits(s.minus, part))
        return target

    def mean_logits(self, name: str, part: slice) -> torch.Tensor:
        """Logits of one kind of context, averaged over contexts [n, V]."""
        states, counts = self.batch[ARRAY + name][:, part], self.batch[COUNTS + name][part]
        total: torch.Tensor | None = None
        for k, state in enumerate(states):
            logits = self.head.logits(state) * (k < counts).unsqueeze(1)
            total = logits if total is None else total + logits
        if total is None:
            raise RuntimeError("states without a context")
        return total / counts.clamp(min=1).unsqueeze(1)


BLOCKS = 4  # measured: the divergence and its metrics take three to four times the memory of cross-entropy
METRICS = (
    "exact_kl_nats",
    "clipped_entries",
    "clipped_tokens",
    "target_entropy_nats",
    "student_entropy_nats",
    "base_entropy_nats",
    "target_from_base_nats",
    "largest_delta",
    "agreement",
    "sampled_gain",
    "lambda",
    "steered",
)


@torch.no_grad()
def watched(
    settings: SteeredSettings,
    targets: Targets,
    part: slice,
    target_nV: torch.Tensor,
    student_nV: torch.Tensor,
    labels_n: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The metrics of each token [n]: the exact forward KL; the share of entries beyond the clip, and whether
    there is any; the entropies of target, student and base; the target's KL from the base; the largest
    difference of logits that lambda multiplies; whether target and student have the same likeliest token; how
    much likelier the sampled token is under the target; and lambda.
    """
    d = settings.divergence
    beyond = clipped(target_nV, student_nV, d)
    target, student = torch.log_softmax(target_nV, 1), torch.log_softmax(student_nV.float(), 1)
    kl = entries(target, student, "forward").sum(dim=1)
    base, delta = target, torch.zeros_like(kl)
    if settings.plus is not None:
        plain = targets.mean_logits(settings.base, part)[:, : target.shape[1]]
        base = torch.log_softmax(plain, 1)
        if targets.lam > 0:
            delta = ((target_nV - plain) / targets.lam).abs().max(dim=1).values
    at = labels_n.unsqueeze(1)
    return {
        "exact_kl_nats": kl,
        "clipped_entries": beyond.float().mean(dim=1),
        "clipped_tokens": beyond.any(dim=1).float(),
        "target_entropy_nats": _entropy(target),
        "student_entropy_nats": _entropy(student),
        "base_entropy_nats": _entropy(base),
        "target_from_base_nats": entries(target, base, "forward").sum(dim=1),
        "largest_delta": delta,
        "agreement": (target.argmax(1) == student.argmax(1)).float(),
        "sampled_gain": (target.gather(1, at).exp() - student.gather(1, at).exp()).squeeze(1),
        "lambda": torch.full_like(kl, targets.lam),
        "steered": torch.ones_like(kl),
    }


def clipped(target_nV: torch.Tensor, student_nV: torch.Tensor, d: DivergenceSettings) -> torch.Tensor:
    """Which entries of the loss the clip cuts: [n, V], or [n, k + 1] for the likeliest entries and the
    rest.
    """
    if d.clip not in ("one_sided", "two_sided") or d.divergence == "sampled":
        return torch.zeros(len(target_nV), 1, dtype=torch.bool, device=target_nV.device)
    each = entries(*log_probabilities(target_nV, student_nV, d), d.divergence, d.beta)
    return (each.abs() if d.clip == "two_sided" else each) > d.threshold


def _entropy(log_p_nV: torch.Tensor) -> torch.Tensor:
    return -torch.where(torch.isneginf(log_p_nV), 0.0, log_p_nV.exp() * log_p_nV).sum(dim=1)
