"""The objective that a training step minimises. A new teacher-student method adds an objective, not a
loop.

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
Sums = tuple[torch.Tensor, Tensors]  # a micro-batch's loss and its metrics by name, all as sums
INPUTS = ("input_ids", "position_ids", "attention_mask")


@dataclass(frozen=True)
class Objective:
    """A loss that is summed over the global batch, over all workers and micro-batches, and divided by the
    batch's mass. With tokens as mass it is the mean over answer tokens, not a mean of means.

    Attributes:
        loss: takes the head, the attached module and a micro-batch; returns sums. Rows with zero weights only
            exist because all workers make equally many passes, and must add nothing.
        mass: the contribution of each example to the divisor.
        counts: what the mass is a number of, by the name that it has in the metrics.
        attach: makes a module that is trained or kept beside the model (a value head, a frozen copy). It gets
            the model and the source of a frozen model, if the training has one. What it registers is part of
            checkpoints and not of exports.
    """

    loss: Callable[[Head, torch.nn.Module | None, Tensors], Sums]
    mass: Callable[[Examples], np.ndarray]
    attach: Callable[[Any, ModelSource | None], torch.nn.Module] | None = None
    counts: str = "answer_tokens"


def token_mass(examples: Examples) -> np.ndarray:
    """Each example's loss tokens times its weight, float64."""
    return examples.loss_tokens * examples.weight


def hidden_states(head: Head, batch: Tensors) -> torch.Tensor:
    """The last hidden states [B, T, D] of a micro-batch."""
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    hidden: torch.Tensor = decoder_of(head.model)(**inputs, use_cache=False).last_hidden_state
    return hidden
