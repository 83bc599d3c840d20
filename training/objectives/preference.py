"""Direct preference optimization (DPO, arXiv 2305.18290): of two texts the model learns to find the preferred
one likelier, compared with how likely it found them before.

    margin = beta ((ln pi(c) - ln ref(c)) - (ln pi(j) - ln ref(j)))        loss = -ln sigmoid(margin)

c is the chosen text and j the rejected one. Log-probabilities are sums over a text's tokens, its end token
included, in float32. Those of the model as it was (ref) are in the examples: they are computed once, and no
second model is needed in training.

A pair is a group of two examples. The first one is the chosen text.

Shapes: B rows, T tokens, D width, N tokens with a loss, E examples, P pairs.
"""

from functools import partial
from typing import cast

import numpy as np
import torch

from cluster.models.vocabulary import Head
from training.batches import IGNORED
from training.data import ALONE, ARRAY, Examples
from training.objectives.chunked import chunked_logprobs
from training.objectives.objective import Objective, Sums, Tensors, hidden_states
from training.preference_settings import REFERENCE, PreferenceSettings


def preference(settings: PreferenceSettings) -> Objective:
    """The objective with these settings. Its loss is the mean over pairs."""
    return Objective(partial(preference_loss, settings), pair_mass, counts="pairs")


def pair_mass(examples: Examples) -> np.ndarray:
    """Each pair's weight, in its first example, float64.

    Raises:
        ValueError: an example is in no group of two, or has no log-probabilities of the model as it was.
    """
    groups = examples.group
    pairs = groups.reshape(-1, 2) if len(groups) % 2 == 0 else np.empty((0, 2), dtype=np.int64)
    in_twos = 2 * len(examples.group_lengths) == len(groups) == 2 * len(pairs)
    if not in_twos or bool((pairs[:, 0] != pairs[:, 1]).any()) or bool((groups == ALONE).any()):
        raise ValueError("an example is in no pair of a chosen and a rejected text")
    if REFERENCE not in examples.widths:
        raise ValueError("the examples have no log-probabilities of the model as it was")
    is_first = np.arange(len(groups)) % 2 == 0
    return cast(np.ndarray, examples.weight * is_first)


def preference_loss(
    settings: PreferenceSettings, head: Head, _: torch.nn.Module | None, batch: Tensors
) -> Sums:
    """The loss of every pair in a micro-batch, times the weight of the pair's chosen text.

    Args:
        batch: as for `weighted_cross_entropy`; further `owners` [B, T], the example of each token, and `array
            reference` [1, N, 1].

    Returns:
        The sum over pairs, and sums of metrics over pairs: the margin, whether it is above 0, both texts'
        log-probabilities, and how much each has changed.
    """
    hidden = hidden_states(head, batch)
    labels = batch["labels"][:, 1:]
    has_loss = labels != IGNORED
    own_N = chunked_logprobs(head, hidden[:, :-1][has_loss], labels[has_loss])
    owners_N = batch["owners"][:, 1:][has_loss]
    weights_N = batch["weights"][:, 1:][has_loss]
    owners_E, number_N = torch.unique(owners_N, return_inverse=True)  # sorted: two of a pair are neighbours

    def by_text(values_N: torch.Tensor) -> torch.Tensor:
        """Sums over each text's tokens: chosen and rejected [2, P]."""
        sums_E = values_N.new_zeros(len(owners_E)).index_add(0, number_N, values_N)
        return sums_E.reshape(-1, 2).t()

    lengths = by_text(torch.ones_like(own_N))
    weights_P = by_text(weights_N)[0] / lengths[0]
    own, reference = by_text(own_N), by_text(batch[ARRAY + REFERENCE][0, :, 0])
    gained = own - reference
    compared = gained / lengths if settings.per_token else gained
    margin_P = settings.beta * (compared[0] - compared[1])
    loss_P = losses(margin_P, settings.label_smoothing) - settings.likelihood * own[0] / lengths[0]
    told = {
        "margin": margin_P,
        "accuracy": (margin_P > 0).float(),
        "chosen_logprob": own[0],
        "rejected_logprob": own[1],
        "chosen_gain": gained[0],
        "rejected_gain": gained[1],
    }
    metrics = {name: (value.detach() * weights_P).sum() for name, value in told.items()}
    return hidden.sum() * 0.0 + (loss_P * weights_P).sum(), metrics


def losses(margin_P: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """The loss of each margin, -ln sigmoid(margin), smoothed: a share of pairs counts the other way round."""
    loss_P = torch.nn.functional.softplus(-margin_P)
    if label_smoothing == 0:
        return loss_P
    return (1 - label_smoothing) * loss_P + label_smoothing * torch.nn.functional.softplus(margin_P)
