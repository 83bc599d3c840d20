"""What a training step minimises. Another teacher-student method brings another objective, not another loop.

Shapes: B rows, T tokens, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.models.loading import ModelSource
from cluster.models.vocabulary import Head, decoder_of
from training.data import Examples

Tensors = dict[str, torch.Tensor]
Sums = tuple[torch.Tensor, Tensors]  # a micro-batch's loss, and metrics by name: sums, all of them
INPUTS = ("input_ids", "position_ids", "attention_mask")


@dataclass(frozen=True)
class Objective:
    """A loss that is summed over the global batch and divided by the batch's mass, over all workers and
    micro-batches: with tokens as mass it is the mean over answer tokens, not a mean of means.

    Attributes:
        loss: from the head, what was attached and a micro-batch to sums. Rows whose weights are zero are
            there because every worker makes as many passes, and must add nothing.
        mass: what each example adds to the divisor.
        attach: makes what is trained or kept beside the model (a value head, a frozen copy), from it and from
            the source of a frozen model where the training has one; what it registers is part of checkpoints
            and not of exports.
    """

    loss: Callable[[Head, torch.nn.Module | None, Tensors], Sums]
    mass: Callable[[Examples], np.ndarray]
    attach: Callable[[Any, ModelSource | None], torch.nn.Module] | None = None


def token_mass(examples: Examples) -> np.ndarray:
    """Each example's loss tokens times its weight, float64."""
    return examples.loss_tokens * examples.weight


def hidden_states(head: Head, batch: Tensors) -> torch.Tensor:
    """The last hidden states [B, T, D] of a micro-batch."""
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    hidden: torch.Tensor = decoder_of(head.model)(**inputs, use_cache=False).last_hidden_state
    return hidden
