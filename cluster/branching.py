"""A forward pass over prompts with several continuations each, every prompt computed once.

All tokens of a batch lie in one sequence without padding: a prompt, then its branches one after another, then the next
prompt. Positions restart after the prompt for every branch. Everything in a decoder except attention looks at one token at a
time, so only attention has to know the layout: `cluster.attention` lets a branch see its prompt and itself.

A model whose attention cannot be replaced, or that mixes tokens in another way (a recurrent state, chunks), is run one
right-padded row per branch instead; `why_not_shared` finds out by comparing both on a probe.

Shapes: T tokens of the packed sequence, D width, H width of a watched module, G trees.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.attention import WINDOWS_SEEN, Unsupported, attend_as_planned, plan_attention, replaced_attention
from cluster.heads import decoder_of

Watch = Callable[[torch.Tensor], None]
PROBE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}


@dataclass(frozen=True)
class Tree:
    """A prompt and the continuations that branch off it, as token ids; each branch holds at least one token."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + sum(len(b) for b in self.branches)


class Layout:
    """Where every prompt and branch of some trees lies in their packed sequence.

    Attributes:
        ids, positions: int64 [T], token ids and positions within prompt + branch.
        prompts: G slices of the packed sequence.
        branches: per tree, one slice per branch.
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
        self.ids = np.array([i for tree in trees for part in (tree.prompt, *tree.branches) for i in part], dtype=np.int64)
        self.positions = np.concatenate(positions).astype(np.int64)


def forward(model: Any, layout: Layout, shared: bool, module: torch.nn.Module | None = None, watch: Watch | None = None) -> torch.Tensor:
    """Hidden states [T, D] of the packed sequence, before the vocabulary projection.

    Args:
        shared: whether prompts are shared; the model must then be inside `sharing`. Else every tree has one branch.
        module, watch: `watch` is called with this module's output, [T, H], during the pass.
    """
    device, inputs = model.device, dict[str, Any]()
    if shared:
        ids = torch.from_numpy(layout.ids).to(device).unsqueeze(0)
        positions = torch.from_numpy(layout.positions).to(device).unsqueeze(0)
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": None}
        during: Any = attend_as_planned(plan_attention(layout.prompts, layout.branches, model))
        flat = _first
    else:
        inputs, real_BT = _padded_rows(layout, device)
        during = nullcontext()

        def flat(output: torch.Tensor) -> torch.Tensor:
            return output[real_BT]

    with during, _watched(module, None if watch is None else lambda output: watch(flat(output))):
        output = decoder_of(model)(**inputs, use_cache=False)
    return flat(output.last_hidden_state)


def _first(output: torch.Tensor) -> torch.Tensor:
    return output[0]


def _padded_rows(layout: Layout, device: torch.device) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """One right-padded row per tree, and where its real tokens are; read in order they are the packed sequence."""
    lengths = torch.tensor([tree.tokens for tree in layout.trees], device=device).unsqueeze(1)
    real_BT = torch.arange(int(lengths.max()), device=device) < lengths
    ids_BT = torch.zeros(real_BT.shape, dtype=torch.long, device=device)
    ids_BT[real_BT] = torch.from_numpy(layout.ids).to(device)
    return {"input_ids": ids_BT, "attention_mask": real_BT.long()}, real_BT


@contextmanager
def _watched(module: torch.nn.Module | None, watch: Watch | None) -> Iterator[None]:
    """Call `watch` with a module's output while the block runs; the hook is removed even when the forward raises."""
    if module is None or watch is None:
        yield
        return
    handle = module.register_forward_hook(lambda _m, _i, output: watch(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def sharing(model: Any, shared: bool) -> Iterator[None]:
    """Inside, the model's attention follows the layout's plan (where `shared`); afterwards it is the model's own again."""
    with replaced_attention(model) if shared else nullcontext():
        yield


@torch.inference_mode()
def why_not_shared(model: Any) -> str | None:
    """None where shared prompts give the same hidden states as one row per answer on a probe; else the reason they do not."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"its layers are of kind {', '.join(sorted(kinds))}"
    size = min(97, int(model.config.get_text_config().vocab_size))
    numbers = [i * i % size for i in range(1, 60)]
    trees = [
        Tree(tuple(numbers[:17]), (tuple(numbers[20:23]), tuple(numbers[30:34]))),
        Tree(tuple(numbers[40:43]), (tuple(numbers[5:16]), tuple(numbers[45:54]))),
    ]
    alone = Layout([Tree(t.prompt, (b,)) for t in trees for b in t.branches])
    WINDOWS_SEEN.clear()
    try:
        with sharing(model, True):
            got = forward(model, layout := Layout(trees), shared=True)
    except (Unsupported, TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:  # whatever a model's code makes of it
        return f"its attention does not take a packed sequence ({type(error).__name__}: {error})"[:200]
    if _windows(model) and not WINDOWS_SEEN:
        return "its sliding window is in its mask only"
    expected = forward(model, alone, shared=False)
    pairs = zip((s for spans in layout.branches for s in spans), (s for (s,) in alone.branches), strict=True)
    difference = max(float((got[a] - expected[b]).abs().max()) for a, b in pairs)
    scale = float(expected.abs().max())
    if not difference <= PROBE_TOLERANCE[model.dtype] * scale:
        return f"a probe's hidden states differ by {difference:.2g} of {scale:.2g}"
    return None


def _windows(model: Any) -> bool:
    """Whether some layers of a model look back over a window only; a probe is too short to notice."""
    config = model.config.get_text_config()
    if not getattr(config, "sliding_window", None) or getattr(config, "use_sliding_window", True) is False:
        return False
    kinds = getattr(config, "layer_types", None)
    return kinds is None or "sliding_attention" in kinds
