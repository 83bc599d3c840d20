"""Supervised fine-tuning's objective: cross-entropy on answer tokens, weighted by example.

Shapes: B rows, T tokens, D width, V vocabulary, N tokens with a loss.
"""

import torch

from cluster.models.vocabulary import Head
from training.batches import IGNORED
from training.objectives.chunked import chunked_loss
from training.objectives.objective import Objective, Sums, Tensors, hidden_states, token_mass


def weighted_cross_entropy(head: Head, _: torch.nn.Module | None, batch: Tensors) -> Sums:
    """Cross-entropy on answer tokens (natural log, float32), each times its example's weight.

    Args:
        batch: `input_ids`, `labels` and `weights`, each [B, T], and what tells examples apart: `position_ids`
            or `attention_mask`, or nothing for a row that is alone.

    Returns:
        The sum of weight x loss over answer tokens, zero for a batch without answers; no metrics.
    """
    hidden = hidden_states(head, batch)
    labels, weights = batch["labels"][:, 1:], batch["weights"][:, 1:]
    chosen = labels != IGNORED
    hidden_ND, labels_N, weights_N = hidden[:, :-1][chosen], labels[chosen], weights[chosen]

    def loss_of(logits: torch.Tensor, part: slice) -> torch.Tensor:
        losses = torch.nn.functional.cross_entropy(logits, labels_N[part], reduction="none")
        return (losses * weights_N[part]).sum()

    # the sum keeps the graph if there is no answer token
    return hidden.sum() * 0.0 + chunked_loss(head, hidden_ND, loss_of), {}


WEIGHTED_CROSS_ENTROPY = Objective(weighted_cross_entropy, token_mass)
