"""A forward pass over prompts with several continuations each. Every prompt is computed once.

All tokens of a batch lie in one sequence without padding: a prompt, then its branches one after another, then
the next prompt. Positions restart after the prompt for every branch. Everything in a decoder except attention
looks at one token at a time, so only attention has to know the layout: `cluster.models.attention` lets a
branch see its prompt and itself.

Some models have an attention that cannot be replaced, or mix tokens in another way (a recurrent state,
chunks). They are run with one right-padded row per branch. `cluster.models.proof` finds them by comparing
both ways on a probe.

Shapes: T tokens of the packed sequence, D width, H width of a watched module, G trees.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from cluster.errors import BadInput
from cluster.models.attention import attend_as_planned, replaced_attention
from cluster.models.attention_plan import plan_attention
from cluster.models.vocabulary import decoder_of

Watch = Callable[[torch.Tensor], None]
B = TypeVar("B")


@dataclass(frozen=True)
class Tree:
    """A prompt and the continuations that branch off it, as token ids;
    each branch holds at least one token.
    """

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + sum(len(b) for b in self.branches)


def divided(branches: Sequence[B], sizes: Sequence[int], prompt: int, budget: int) -> list[list[B]]:
    """Divide what branches off one prompt into passes of at most `budget` tokens, the prompt's included. What
    is longer by itself is alone.

    Args:
        sizes: of each branch, in tokens.
        prompt: the prompt's tokens.

    >>> divided("abcd", [3, 3, 9, 1], prompt=2, budget=8)
    [['a', 'b'], ['c'], ['d']]
    """
    passes, used = list[list[B]](), math.inf
    for branch, size in zip(branches, sizes, strict=True):
        if used + size > budget:
            passes.append([])
            used = prompt
        passes[-1].append(branch)
        used += size
    return passes


class Layout:
    """The places of all prompts and branches of some trees in their packed sequence.

    Attributes:
        ids, positions: int64 [T], token ids and positions within prompt + branch.
        prompts: G slices of the packed sequence.
        branches: for each tree one slice per branch.
        rows: G slices, each a whole tree.
    """

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.trees = tuple(trees)
        self.prompts: list[slice] = []
        self.branches: list[list[slice]] = []
        positions, at = [], 0
        for tree in trees:
            size = len(tree.prompt)
            self.prompts.append(slice(at, at + size))
            positions.append(np.arange(size))
            at += size
            spans = []
            for branch in tree.branches:
                spans.append(slice(at, at + len(branch)))
                positions.append(np.arange(size, size + len(branch)))
                at += len(branch)
            self.branches.append(spans)
        self.rows = [
            slice(p.start, (b[-1] if b else p).stop) for p, b in zip(self.prompts, self.branches, strict=True)
        ]
        self.ids = np.array(
            [i for tree in trees for part in (tree.prompt, *tree.branches) for i in part], dtype=np.int64
        )
        self.positions = np.concatenate(positions).astype(np.int64)


def forward(
    model: Any,
    layout: Layout,
    shared: bool,
    module: torch.nn.Module | None = None,
    watch: Watch | None = None,
) -> torch.Tensor:
    """Hidden states [T, D] of the packed sequence, before the vocabulary projection.

    Args:
        shared: whether prompts are shared. The model must then be inside `sharing`. Otherwise every tree has
            one branch.
        module, watch: `watch` is called with this module's output, [T, H], during the pass.

    Raises:
        BadInput: the module's output is not one vector for each token.
    """
    device, inputs = model.device, dict[str, Any]()
    if shared:
        ids = torch.from_numpy(layout.ids).to(device).unsqueeze(0)
        positions = torch.from_numpy(layout.positions).to(device).unsqueeze(0)
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": None}
        real_BT = torch.ones_like(ids, dtype=torch.bool)
        during: Any = attend_as_planned(plan_attention(layout.prompts, layout.branches, model))
    else:
        padded, real_BT = padded_rows([layout.ids[rows].tolist() for rows in layout.rows], device)
        inputs.update(padded)
        during = nullcontext()
    with during, _watched(module, None if watch is None else lambda output: watch(_vectors(output, real_BT))):
        output = decoder_of(model)(**inputs, use_cache=False)
    return _vectors(output.last_hidden_state, real_BT)


def _vectors(output: Any, real_BT: torch.Tensor) -> torch.Tensor:
    """A module's output for the real tokens, [T, H], in order. The output may be a tuple, whose first part
    counts, and its tokens may be in rows or in one sequence.
    """
    output = output[0] if isinstance(output, tuple) else output
    places = real_BT.numel()
    if not isinstance(output, torch.Tensor) or output.dim() < 2 or output[..., 0].numel() != places:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise BadInput(
            "the layer does not give one vector for each token",
            got,
            f"{tuple(real_BT.shape)} tokens",
            "name another target_layer",
        )
    return output.reshape(places, -1)[real_BT.flatten()]


def padded_rows(texts: Sequence[Sequence[int]], device: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Right-padded rows of token ids as a model's inputs, and the positions of the real tokens. A single text
    has no mask.
    """
    lengths = torch.tensor([len(text) for text in texts], device=device).unsqueeze(1)
    real_BT = torch.arange(int(lengths.max()), device=device) < lengths
    ids_BT = torch.zeros(real_BT.shape, dtype=torch.long, device=device)
    ids_BT[real_BT] = torch.tensor([i for text in texts for i in text], device=device)
    inputs = {"input_ids": ids_BT}
    return (inputs if len(texts) == 1 else inputs | {"attention_mask": real_BT.long()}), real_BT


@contextmanager
def _watched(module: torch.nn.Module | None, watch: Watch | None) -> Iterator[None]:
    """Call `watch` with a module's output during the block. The hook is removed even if the forward
    raises.
    """
    if module is None or watch is None:
        yield
        return
    here = threading.get_ident()  # other threads may run the same module

    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        if threading.get_ident() == here:
            watch(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def sharing(model: Any, shared: bool) -> Iterator[None]:
    """Inside the block the model's attention follows the layout's plan, if `shared`. Afterwards it is the
    model's own again.
    """
    with replaced_attention(model) if shared else nullcontext():
        yield
