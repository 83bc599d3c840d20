"""What a training step minimises: an objective maps (model, batch) to a loss sum and its weight sum.

The loop divides by the weight of the whole global batch, over all workers and micro-batches, so the result is the mean
over answer tokens, not a mean of means. Another teacher-student method brings another objective, not another loop.
"""

from collections.abc import Callable
from typing import Any

import torch

from cluster.heads import decoder_of, project
from training.data import IGNORED

Tensors = dict[str, torch.Tensor]
Objective = Callable[[Any, Tensors], tuple[torch.Tensor, torch.Tensor]]
# Positions projected onto the vocabulary at once, per step of the chunked loss: bounds [N, V] in float32.
CHUNK_POSITIONS = 4096


def weighted_cross_entropy(model: Any, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy on answer tokens (natural log, float32), each times its example's weight.

    Args:
        model: a causal language model.
        batch: `input_ids`, `position_ids`, `labels` and `weights`, each [B, T].

    Returns:
        The sum of weight x loss over answer tokens, and the sum of their weights; both zero for a batch without answers.
    """
    hidden = decoder_of(model)(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).last_hidden_state
    labels, weights = batch["labels"][:, 1:], batch["weights"][:, 1:]
    chosen = labels != IGNORED
    hidden_ND, labels_N, weights_N = hidden[:, :-1][chosen], labels[chosen], weights[chosen]
    total = hidden.sum() * 0.0  # keeps every worker's graph connected when its share holds no answer token
    for start in range(0, len(labels_N), CHUNK_POSITIONS):
        part = slice(start, start + CHUNK_POSITIONS)
        loss_N = torch.nn.functional.cross_entropy(project(model, hidden_ND[part]), labels_N[part], reduction="none")
        total = total + (loss_N * weights_N[part]).sum()
    return total, weights_N.sum()


OBJECTIVES: dict[str, Objective] = {"weighted_cross_entropy": weighted_cross_entropy}
