"""Path consistency learning (PCL; Nachum et al., arXiv 1702.08892), in which the reward of a token is its
log-probability under another model. So the best policy is that model's own, as far as the student can be it.

A path is the decisions of one rollout: tokens, and calls for help. For the sub-path from decision i to the
state before decision j

    C = -V_i + gamma^(j-i) V_j + sum over k from i to below j of gamma^(k-i) (r_k - alpha ln pi(a_k | s_k))

is 0 for the best policy and its values, whoever acted. The loss is C^2 / (2 (j - i)), averaged over the
sub-paths that begin at a decision. After the last decision the value is 0, unless the rollout was cut.

After a call another model draws the next token, so the next state is random and C itself is not 0. The square
of a random C is biased. So V_j comes from a moving average of the value head and has no gradient, and a
sub-path of a rollout that is not the student's own ends right after a call. In the student's own rollouts a
longer sub-path is right on average, because the choices after the call are its own draws.

Division by the length and the clip are ours. With the student's own full paths at alpha 1 the gradient is
that of the reverse Kullback-Leibler divergence.

Shapes: B rows, T tokens, D width, N tokens with a loss, M of them decided on (or states), P paths, L
decisions of the longest path.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from cluster.models.loading import ModelSource
from cluster.models.vocabulary import Head
from training.batches import IGNORED
from training.data import ARRAY, Examples
from training.objectives.chunked import chunked_values
from training.objectives.objective import Objective, Sums, Tensors, hidden_states
from training.path_settings import DECISION, NOT_DECIDED, PATH, PATH_COLUMNS, STATE_ONLY, PathSettings

REWARD, PART, IS_CALL, MAY_CALL, IS_OWN = range(len(PATH_COLUMNS))


def path_consistency(settings: PathSettings) -> Objective:
    """The objective with these settings. Its loss is the mean over decisions."""
    attach = partial(attach_values, settings) if has_value_head(settings) else None
    return Objective(partial(path_loss, settings), decision_mass, attach, counts="decisions")


def has_value_head(settings: PathSettings) -> bool:
    """Whether a value head is trained beside the model."""
    return settings.value == "head" and settings.consistency > 0


def decision_mass(examples: Examples) -> np.ndarray:
    """Each example's decisions times its weight, float64.

    Raises:
        ValueError: the examples do not say what their tokens are.
    """
    if examples.widths.get(PATH) != len(PATH_COLUMNS):
        raise ValueError("the examples do not say which of their tokens are decisions")
    counts = [(examples[i].arrays[PATH][0, :, PART] == DECISION).sum() for i in range(len(examples))]
    mass: np.ndarray = np.array(counts, dtype=np.float64) * examples.weight
    return mass


class ValueHead(torch.nn.Module):
    """The value of a state, as a linear function of its last hidden state, and a moving average of that
    function. It begins at 0, which is right for alpha 1 without help.

    Products are in float32, and the moving average stays in float32 whatever the model's dtype.
    """

    slow: torch.Tensor
    step: torch.Tensor

    def __init__(self, width: int, settings: PathSettings) -> None:
        super().__init__()
        self.keeps, self.rate = settings.slow, settings.value_rate
        self.weight = torch.nn.Parameter(torch.zeros(1, width))
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("slow", torch.zeros(width + 1))
        self.register_buffer("step", torch.full((), -1, dtype=torch.long))

    def _apply(self, fn: Any, recurse: bool = True) -> "ValueHead":
        slow = self.slow
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.slow = slow.to(self.slow.device)
        return self

    def forward(self, hidden_MD: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Values, and values by the moving average [M] each, float32. The average moves when a step begins.

        The model itself gets no gradient from values: they read its states and do not change them.
        """
        weight, bias = self.weight.float(), self.bias.float()
        if step != int(self.step):
            with torch.no_grad():
                now = torch.cat([weight[0], bias])
                self.slow.mul_(self.keeps).add_(now * (1 - self.keeps))
                self.step.fill_(step)
        states = hidden_MD.detach().float()
        plain = states @ weight[0] + bias
        # the value is `rate` times as large, and its gradient is not: it would rule the clipped norm
        # otherwise
        values = plain + (self.rate - 1) * plain.detach()
        slow = self.rate * (states @ self.slow[:-1] + self.slow[-1])
        return values, slow


def attach_values(settings: PathSettings, model: Any, _: ModelSource | None) -> torch.nn.Module:
    """A value head for a model."""
    return ValueHead(int(model.get_input_embeddings().weight.shape[-1]), settings)


def path_loss(settings: PathSettings, head: Head, attached: torch.nn.Module | None, batch: Tensors) -> Sums:
    """The loss of every decision in a micro-batch, times its example's weight.

    Args:
        batch: as for `weighted_cross_entropy`; further `owners` [B, T] if examples share rows or passes,
            `array path` [1, N, 5] with the columns of PATH_COLUMNS, and `step`.

    Returns:
        The sum over decisions, and sums of metrics over decisions.
    """
    hidden = hidden_states(head, batch)
    labels, weights = batch["labels"][:, 1:], batch["weights"][:, 1:]
    has_loss = labels != IGNORED
    told_N = batch[ARRAY + PATH][0]
    used = told_N[:, PART] != NOT_DECIDED
    told_M, labels_M, weights_M = told_N[used], labels[has_loss][used], weights[has_loss][used]
    hidden_MD = hidden[:, :-1][has_loss][used]
    # the number of each token's example: examples lie one after another
    firsts = _first_tokens(batch, has_loss)
    number_M = (firsts.cumsum(0) - 1)[used]
    closed_M = told_M[:, MAY_CALL] == 0

    # the student samples softmax(q). Where its logits are values too, it is softmax(q / alpha)
    heat = settings.alpha if settings.value == "logits" else 1.0

    def values_of(logits: torch.Tensor, part: slice) -> torch.Tensor:
        """ln pi of each decision, and alpha times the log-sum-exp of the logits over alpha [n, 2]."""
        if settings.help_id is not None and bool(closed_M[part].any()):
            is_help = torch.arange(logits.shape[1], device=logits.device) == settings.help_id
            logits = logits.masked_fill(closed_M[part].unsqueeze(1) & is_help, -torch.inf)
        whole = torch.logsumexp(logits / heat, dim=1)
        own = logits.gather(1, labels_M[part].unsqueeze(1)).squeeze(1) / heat
        return torch.stack([own - whole, heat * whole], dim=1)

    log_pi_M, soft_M = chunked_values(head, hidden_MD, values_of, blocks=2).unbind(1)
    paths = Paths.of(told_M, number_M)
    weights_PL = paths.laid(weights_M) * paths.is_decision
    log_pi_PL = paths.laid(log_pi_M)[:, :-1]
    total = hidden.sum() * 0.0
    metrics = {"calls": (paths.laid(told_M[:, IS_CALL]) * weights_PL).sum()}
    own_PL = weights_PL * paths.is_own.unsqueeze(1)
    metrics["own_decisions"] = own_PL.sum()
    weights_PL, own_PL = weights_PL[:, :-1], own_PL[:, :-1]
    if settings.consistency > 0:
        if attached is not None:
            values_M, ahead_M = attached(hidden_MD, int(batch["step"]))
        else:
            values_M = soft_M if settings.value == "logits" else torch.zeros_like(soft_M)
            ahead_M = values_M.detach()
        gains_PL = paths.laid(told_M[:, REWARD] - settings.alpha * log_pi_M)[:, :-1]
        own_loss, about = consistency(
            settings, paths, paths.laid(values_M), paths.laid(ahead_M), gains_PL, weights_PL
        )
        total = total + settings.consistency * own_loss.sum()
        metrics |= about
        metrics["own_loss"] = (own_loss * paths.is_own.unsqueeze(1)).sum()
        metrics["others_loss"] = own_loss.sum() - metrics["own_loss"]
    cloned = -log_pi_PL * (weights_PL - own_PL)
    metrics["cloning_nats"] = cloned.sum()
    share = settings.cloning_at(int(batch["step"]))
    if share:
        total = total + share * cloned.sum()
    return total, metrics


def _first_tokens(batch: Tensors, has_loss: torch.Tensor) -> torch.Tensor:
    """Which of the N tokens with a loss is the first one of its example."""
    rows = torch.arange(len(has_loss), device=has_loss.device).unsqueeze(1).expand_as(has_loss)
    owners = batch["owners"][:, 1:] if "owners" in batch else None
    if owners is None and "position_ids" in batch:  # positions restart at 0 with each example
        owners = (batch["position_ids"] == 0).cumsum(1)[:, 1:]
    keys = rows[has_loss] if owners is None else torch.stack([rows, owners])[:, has_loss].t()
    first = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    differs = keys[1:] != keys[:-1]
    first[1:] = differs if differs.dim() == 1 else differs.any(1)
    return first


@dataclass(frozen=True)
class Paths:
    """Where the decisions of a micro-batch lie in a table of paths [P, L + 1]. A last state without decision
    has a place too.

    Attributes:
        row, place: of each of the M decisions and states.
        is_decision: [P, L + 1].
        counts: decisions of each path [P].
        calls: whether a decision is a call [P, L + 1].
        is_own: whether a path is the student's own rollout [P].
    """

    row: torch.Tensor
    place: torch.Tensor
    is_decision: torch.Tensor
    counts: torch.Tensor
    calls: torch.Tensor
    is_own: torch.Tensor

    @classmethod
    def of(cls, told_M: torch.Tensor, number_M: torch.Tensor) -> "Paths":
        """The places of decisions.

        Args:
            told_M: their rows of PATH_COLUMNS [M, 5].
            number_M: the number of each one's path, ascending.
        """
        _, row, sizes = torch.unique_consecutive(number_M, return_inverse=True, return_counts=True)
        starts = sizes.cumsum(0) - sizes
        place = torch.arange(len(number_M), device=number_M.device) - starts[row]
        state_only = told_M[:, PART] == STATE_ONLY
        shape = len(sizes), int(sizes.max()) + 1 if len(sizes) else 1
        decided = torch.zeros(shape, dtype=torch.bool, device=told_M.device)
        decided[row, place] = ~state_only
        calls = torch.zeros_like(decided)
        calls[row, place] = (told_M[:, IS_CALL] > 0) & ~state_only
        is_own = told_M[starts, IS_OWN] > 0
        return cls(row, place, decided, decided.sum(1), calls, is_own)

    def laid(self, values_M: torch.Tensor) -> torch.Tensor:
        """Values of decisions and states as a table [P, L + 1]. Other places are 0."""
        table = values_M.new_zeros(self.is_decision.shape)
        return table.index_put((self.row, self.place), values_M)

    def ends(self, length: int) -> torch.Tensor:
        """Where the sub-path from each decision ends [P, L]: after so many decisions (0: all), at the path's
        end at the latest, and right after a call if the rollout is not the student's own.
        """
        size = self.is_decision.shape[1] - 1
        starts = torch.arange(size, device=self.counts.device).expand(len(self.counts), size)
        ends = self.counts.unsqueeze(1).expand_as(starts)
        if length:
            ends = torch.minimum(ends, starts + length)
        never = torch.full_like(starts, size)
        calls = torch.where(self.calls[:, :-1], starts, never)
        next_call = calls.flip(1).cummin(1).values.flip(1) if size else calls
        bounded = torch.minimum(ends, next_call + 1)
        return torch.where(self.is_own.unsqueeze(1), ends, bounded)


def consistency(
    settings: PathSettings,
    paths: Paths,
    values_PL1: torch.Tensor,
    ahead_PL1: torch.Tensor,
    gains_PL: torch.Tensor,
    weights_PL: torch.Tensor,
) -> tuple[torch.Tensor, Tensors]:
    """The loss of each decision [P, L], with its weight, and sums of metrics over decisions.

    Args:
        values_PL1: V at the beginnings of sub-paths.
        ahead_PL1: V at their ends.
        gains_PL: r - alpha ln pi of each decision.
    """
    total = torch.zeros_like(gains_PL)
    metrics: Tensors = {}
    share = weights_PL / len(settings.lengths)
    sums = suffix_sums(gains_PL * paths.is_decision[:, :-1], settings.gamma)
    for length in settings.lengths:
        ends = paths.ends(length)
        found = residuals(values_PL1, ahead_PL1, sums, ends, settings.gamma)
        lasts = (ends - torch.arange(ends.shape[1], device=ends.device)).clamp(min=1)
        each = clipped_half_square(found, settings.clip) / lasts
        total = total + each * share
        size = found.detach()
        for name, value in (
            (f"squared_{length or 'all'}", size**2 / lasts * weights_PL),
            ("residual", size * share),
            ("clipped", (size.abs() > settings.clip) * share),
        ):
            metrics[name] = metrics.get(name, 0.0) + value.sum()
    metrics["value"] = (values_PL1.detach()[:, :-1] * weights_PL).sum()
    return total, metrics


def suffix_sums(gains_PL: torch.Tensor, gamma: float) -> torch.Tensor:
    """The discounted sum of what each decision and all later ones gain [P, L + 1]. The last column is 0."""
    rest = gains_PL.new_zeros(len(gains_PL), 1)
    if gamma == 1:
        return torch.cat([gains_PL.flip(1).cumsum(1).flip(1), rest], dim=1)
    columns = [rest]
    for gain in reversed(gains_PL.unbind(1)):
        columns.append(gain.unsqueeze(1) + gamma * columns[-1])
    return torch.cat(columns[::-1], dim=1)


def residuals(
    values_PL1: torch.Tensor,
    ahead_PL1: torch.Tensor,
    sums_PL1: torch.Tensor,
    ends_PL: torch.Tensor,
    gamma: float,
) -> torch.Tensor:
    """C of the sub-path from each decision to its end [P, L].

    Args:
        sums_PL1: `suffix_sums` of what decisions gain.
    """
    starts = torch.arange(ends_PL.shape[1], device=ends_PL.device)
    discount = gamma ** (ends_PL - starts).clamp(min=0).to(sums_PL1.dtype)
    later = ahead_PL1.gather(1, ends_PL) - sums_PL1.gather(1, ends_PL)
    return sums_PL1[:, :-1] - values_PL1[:, :-1] + discount * later


def clipped_half_square(values: torch.Tensor, clip: float) -> torch.Tensor:
    """Half of the square up to `clip`. Beyond it goes on straight, so that the gradient stays `clip`."""
    size = values.abs()
    return torch.where(size <= clip, values**2 / 2, clip * (size - clip / 2))
