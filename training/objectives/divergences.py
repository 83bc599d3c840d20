"""Divergences between next-token distributions, as distillation objectives use them: exact formulas, clips as
published, a tail bucket.

Natural logarithms, float32 or wider. An entry with probability 0 contributes 0. Targets never get a gradient.
Nothing is divided by a number of tokens.

Shapes: N tokens, V vocabulary, K kept entries.
"""

import torch

from training.targets import DivergenceName, DivergenceSettings


def entries(
    target_NV: torch.Tensor, student_NV: torch.Tensor, divergence: DivergenceName, beta: float = 0.5
) -> torch.Tensor:
    """The contribution of every entry of the vocabulary to a token's divergence, before any clip [N, V].

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
        target_NV, student_NV: logits. The target's get no gradient.
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
    """The factor of each token's divergence, without gradient. `per_token` gives large divergences a smaller
    weight.
    """
    if settings.clip != "per_token":
        return torch.ones_like(divergence_N)
    return (settings.threshold / divergence_N.clamp(min=settings.threshold)).detach()


def _times(log_p: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """p x log ratio. 0 if p is 0, where the logarithm is infinite."""
    return torch.where(torch.isneginf(log_p), torch.zeros_like(log_p), log_p.exp() * log_ratio)


def _log(share: float) -> float:
    return float(torch.tensor(share, dtype=torch.float64).log())
