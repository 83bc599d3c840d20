"""Divergences between next-token distributions, as distillation objectives use them: exact formulas, clips as
published, a tail bucket.

Natural logarithms, float32 or wider; an entry whose probability is 0 contributes 0. Targets never get a
gradient. Nothing here divides by a number of tokens.

Shapes: N tokens, V vocabulary, K kept entries.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from cluster.errors import BadInput

DivergenceName = Literal["forward", "reverse", "jsd", "sampled"]
ClipName = Literal["none", "one_sided", "two_sided", "per_token"]
SMALLEST_BETA = 0.05


@dataclass(frozen=True)
class DivergenceSettings:
    """Which divergence, and its parameters.

    `forward` is KL(target || student), `reverse` KL(student || target), `jsd` the generalised Jensen-Shannon
    divergence with `beta` the target's weight; beta 0 and 1 are forward and reverse themselves, as in TRL and
    OPSD, which is not the limit: for small beta it is about beta times the forward KL. `sampled` is the
    policy-gradient form of reverse KL at the token that was sampled.

    `clip` cuts entries before they are summed over the vocabulary: `one_sided` from above at `threshold`,
    `two_sided` to [-threshold, threshold]; a cut entry has no gradient. `per_token` (ours) weighs a token by
    min(1, threshold / its divergence). `temperature` divides both sides' logits. `top_k` keeps the student's
    k likeliest entries and makes all others one bucket.
    """

    divergence: DivergenceName = "forward"
    beta: float = 0.5
    clip: ClipName = "two_sided"
    threshold: float = 0.05
    temperature: float = 1.0
    top_k: int | None = None
    allow_small_beta: bool = False


def check_divergence(s: DivergenceSettings) -> None:
    """Refuse what does not fit together.

    Raises:
        BadInput: a number out of range, a clip on a divergence without entries, a beta that says little.
    """
    for name, value, low, high in (
        ("beta", s.beta, 0.0, 1.0),
        ("threshold", s.threshold, 0.0, float("inf")),
        ("temperature", s.temperature, 0.0, float("inf")),
    ):
        if not low <= value <= high or (name != "beta" and value in (0, float("inf"))):
            raise BadInput(f"{name} is out of range", value, f"{low:g} to {high:g}", "")
    if s.divergence == "jsd" and 0 < s.beta < SMALLEST_BETA and not s.allow_small_beta:
        raise BadInput(
            "a jsd of so small a beta is about beta times the forward KL: next to nothing is learned",
            f"beta {s.beta:g}",
            f"0 (the forward KL itself) or {SMALLEST_BETA:g} and more",
            "set allow_small_beta to go on with it",
        )
    if s.divergence == "sampled" and (s.clip in ("one_sided", "two_sided") or s.top_k is not None):
        raise BadInput(
            "the sampled divergence looks at one token: it has no entries to cut or to keep",
            f"clip {s.clip}, top_k {s.top_k}",
            "clip none or per_token, no top_k",
            "choose another divergence or clip",
        )
    if s.top_k is not None and s.top_k < 1:
        raise BadInput("top_k is out of range", s.top_k, "1 or more", "")


def entries(
    target_NV: torch.Tensor, student_NV: torch.Tensor, divergence: DivergenceName, beta: float = 0.5
) -> torch.Tensor:
    """What every entry of the vocabulary adds to a token's divergence, before any clip [N, V].

    Args:
        target_NV, student_NV: log-probabilities.
    """
    if divergence == "jsd" and 0 < beta < 1:
        mixed = torch.logaddexp(target_NV + _log(beta), student_NV + _log(1 - beta))
        ours = beta * _times(target_NV, target_NV - mixed)
        return ours + (1 - beta) * _times(student_NV, student_NV - mixed)
    if divergence == "forward" or (divergence == "jsd" and beta == 0):
        return _times(target_NV, target_NV - student_NV)
    return _times(student_NV, student_NV - target_NV)


def divergence_of(
    target_NV: torch.Tensor,
    student_NV: torch.Tensor,
    settings: DivergenceSettings,
    sampled_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """The divergence of every token [N], clipped as the settings say.

    Args:
        target_NV, student_NV: logits; the target's get no gradient.
        sampled_N: ids of the tokens that were sampled, for `sampled`.
    """
    target, student = log_probabilities(target_NV, student_NV, settings)
    if settings.divergence == "sampled":
        if sampled_N is None:
            raise ValueError("the sampled divergence needs the sampled tokens")
        at = sampled_N.unsqueeze(1)
        own = student.gather(1, at).squeeze(1)
        advantage = (target.gather(1, at).squeeze(1) - own).detach()
        losses = -advantage * own
        return losses * _token_weight(advantage.abs(), settings)
    each = entries(target, student, settings.divergence, settings.beta)
    if settings.clip == "one_sided":
        each = each.clamp(max=settings.threshold)
    elif settings.clip == "two_sided":
        each = each.clamp(-settings.threshold, settings.threshold)
    whole = each.sum(dim=1)
    return whole * _token_weight(whole.detach(), settings)


def log_probabilities(
    target_NV: torch.Tensor, student_NV: torch.Tensor, settings: DivergenceSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides' log-probabilities at the settings' temperature, over the vocabulary or the student's
    likeliest entries and one bucket for the rest.
    """
    target = torch.log_softmax(target_NV.detach().float() / settings.temperature, dim=1)
    student = torch.log_softmax(student_NV.float() / settings.temperature, dim=1)
    if settings.top_k is None or settings.top_k >= student.shape[1]:
        return target, student
    kept = student.detach().topk(settings.top_k, dim=1).indices
    return with_tail(target, kept), with_tail(student, kept)


def with_tail(log_p_NV: torch.Tensor, kept_NK: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of some entries, and of all others together as one more [N, K + 1].

    Without the bucket a divergence over some entries alone may fall below 0.

    Args:
        kept_NK: which entries.
    """
    others = log_p_NV.scatter(1, kept_NK, float("-inf"))
    return torch.cat([log_p_NV.gather(1, kept_NK), others.logsumexp(dim=1, keepdim=True)], dim=1)


def _token_weight(divergence_N: torch.Tensor, settings: DivergenceSettings) -> torch.Tensor:
    """By what a token's divergence is multiplied, without gradient: `per_token` weighs large ones less."""
    if settings.clip != "per_token":
        return torch.ones_like(divergence_N)
    return (settings.threshold / divergence_N.clamp(min=settings.threshold)).detach()


def _times(log_p: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """p x log ratio, 0 where p is 0 and its logarithm has no end."""
    return torch.where(torch.isneginf(log_p), torch.zeros_like(log_p), log_p.exp() * log_ratio)


def _log(share: float) -> float:
    return float(torch.tensor(share, dtype=torch.float64).log())
