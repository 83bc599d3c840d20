"""The objective that a training step minimises. A new teacher-student method adds an objective, not a
loop.

Shapes: B rows, T tokens, D width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from cluster.models.attention import attend_as_planned
from cluster.models.attention_plan import plan_attention
from cluster.models.branching import sharing
from cluster.models.loading import ModelSource
from cluster.models.vocabulary import Head, decoder_of
from training.batches import MicroBatch
from training.data import TREES, Examples

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
    """The last hidden states [B, T, D] of a micro-batch. With shared beginnings B is 1, and no layer may be
    computed again in the backward pass.
    """
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    with layout_of(head.model, batch.get(TREES)):
        hidden: torch.Tensor = decoder_of(head.model)(**inputs, use_cache=False).last_hidden_state
    return hidden


def trees_of(batch: MicroBatch) -> torch.Tensor:
    """The trees of a micro-batch as one tensor [G, 2 + E], on the CPU. A group of fewer examples repeats its
    last place.
    """
    widest = max(map(len, batch.trees))
    return torch.tensor([tree + tree[-1:] * (widest - len(tree)) for tree in batch.trees])


@contextmanager
def layout_of(model: Any, trees: torch.Tensor | None) -> Iterator[None]:
    """Inside the block the model's attention knows which beginnings are shared, if any are.

    Args:
        trees: as `trees_of` gives them.
    """
    if trees is None:
        yield
        return
    places = trees.tolist()
    prompts = [slice(start, stop) for start, stop, *_ in places]
    ends = [[end for k, end in enumerate(tree) if k and (k < 2 or end > tree[k - 1])] for tree in places]
    branches = [[slice(*both) for both in pairwise(own)] for own in ends]
    with sharing(model, True), attend_as_planned(plan_attention(prompts, branches, model)):
        yield
