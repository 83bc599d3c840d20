"""Checks whether the shortcuts of a pass (padding, packing, shared prompts, gradient checkpointing) give the
plain way's numbers on this model.

Differences that only occur in texts longer than the probe (chunks of attention) are found by the name of the
layers' kind. A check returns why its shortcut fails, or None if it holds.

Shapes: T tokens, D width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from cluster.models.attention import windows_seen
from cluster.models.branching import Layout, Tree, forward, padded_rows, sharing
from cluster.models.plain_way import (
    CAUSAL_TOLERANCE,
    TOLERANCE,
    describe_difference,
    plain_hidden,
    probe_texts,
)
from cluster.models.vocabulary import decoder_of


def check_padding(model: Any, probe: Sequence[list[int]], expected: Sequence[torch.Tensor]) -> str | None:
    """Check several texts as the right-padded rows of one pass."""
    inputs, real_BT = padded_rows(probe, model.device)
    flat = decoder_of(model)(**inputs, use_cache=False).last_hidden_state[real_BT]
    rows = flat.split([len(t) for t in probe])
    return describe_difference(model, rows, expected, "padded rows' hidden states")


def check_packing(model: Any, probe: Sequence[list[int]], expected: Sequence[torch.Tensor]) -> str | None:
    """Check two rows as training packs them: two examples in one, an example and padding in the other."""
    kinds = layer_kinds(model) & {"chunked_attention"}
    if kinds:
        return f"its layers are of kind {', '.join(sorted(kinds))}, whose chunks begin where the row does"
    first, second, third = probe
    got = _packed(model, probe)
    reason = describe_difference(model, got, expected, "packed rows' hidden states")
    if reason is not None:
        return reason
    leaked = _packed(model, [list(reversed(first)), second, third])[1]
    tolerance = CAUSAL_TOLERANCE if model.dtype == torch.float32 else TOLERANCE[model.dtype] / 2
    changed = float(((leaked - got[1]).double().norm(dim=-1) / got[1].double().norm(dim=-1)).max())
    return (
        None
        if changed <= tolerance
        else f"an example changes by {changed:.2g} with the one before it in its row"
    )


def _packed(model: Any, texts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Hidden states of three texts. The first two are in one row, the third is in another with padding after
    it.
    """
    a, b, c = (list(t) for t in texts)
    padding = len(a) + len(b) - len(c)
    ids = torch.tensor([a + b, c + [0] * padding], device=model.device)
    positions = [[*range(len(a)), *range(len(b))], [*range(len(c)), *range(padding)]]
    hidden = decoder_of(model)(
        input_ids=ids, position_ids=torch.tensor(positions, device=model.device), use_cache=False
    )
    rows = hidden.last_hidden_state
    return [rows[0, : len(a)], rows[0, len(a) :], rows[1, : len(c)]]


def check_checkpointing(model: Any, text: list[int]) -> str | None:
    """Compare the gradient at the embeddings, through all layers in training mode, with and without gradient
    checkpointing.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        return "its layers do not support gradient checkpointing"
    was_training = model.training
    model.train()
    try:
        expected = _gradient_at_embeddings(model, lambda: plain_hidden(model, text))
        model.gradient_checkpointing_enable({"use_reentrant": False})
        got = _gradient_at_embeddings(model, lambda: plain_hidden(model, text))
    finally:
        model.gradient_checkpointing_disable()
        model.train(was_training)
    return describe_difference(model, [got], [expected], "gradients")


def _gradient_at_embeddings(model: Any, hidden_of: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The gradient [T, D] of a number made from hidden states of one sequence, with respect to its embedded
    tokens. Dropout is the same every time.
    """
    embedded: list[torch.Tensor] = []

    def catch(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = model.get_input_embeddings().register_forward_hook(catch)
    try:
        with (
            torch.enable_grad(),
            torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []),
        ):
            torch.manual_seed(0)
            hidden = hidden_of().float()
            weights = torch.linspace(-1.0, 1.0, hidden.numel(), device=hidden.device).view_as(hidden)
            (gradient,) = torch.autograd.grad((hidden * weights).sum(), embedded[0])
    finally:
        handle.remove()
    return gradient[0]


def layer_kinds(model: Any) -> set[str]:
    """The kinds of layers that a model's configuration names."""
    return set(getattr(model.config.get_text_config(), "layer_types", None) or ())


def check_sharing(model: Any) -> str | None:
    """Compare branches that share their prompt with branches that each have their own copy of it."""
    kinds = layer_kinds(model) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"its layers are of kind {', '.join(sorted(kinds))}"
    a, b, c = probe_texts(model)
    trees = [
        Tree(tuple(a), (tuple(b[:3]), tuple(b[4:8]))),
        Tree(tuple(c[:3]), (tuple(c[3:14]), tuple(b[8:17]))),
    ]
    layout = Layout(trees)
    with sharing(model, True), windows_seen() as windows:
        got = forward(model, layout, shared=True)
    if _looks_back_over_a_window(model) and not windows:
        return "its sliding window is in its mask only"
    alone = [
        plain_hidden(model, [*tree.prompt, *branch])[len(tree.prompt) :]
        for tree in trees
        for branch in tree.branches
    ]
    shared = [got[span] for spans in layout.branches for span in spans]
    return describe_difference(model, shared, alone, "hidden states")


def check_shared_training(model: Any) -> str | None:
    """As `check_sharing`; and compare the gradients at the embeddings, in training mode."""
    reason = check_sharing(model)
    if reason is not None:
        return reason
    a, b, _ = probe_texts(model)
    prompt, branches = tuple(a[:8]), (tuple(b[:5]), tuple(b[7:12]))
    layout, size = Layout([Tree(prompt, branches)]), len(prompt)

    def together() -> torch.Tensor:
        packed = forward(model, layout, shared=True)
        first, second = layout.branches[0]
        return packed[first] + packed[second]

    def alone(branch: tuple[int, ...]) -> torch.Tensor:
        return plain_hidden(model, [*prompt, *branch])[size:]

    was_training = model.training
    model.train()
    try:
        with sharing(model, True):
            got = _gradient_at_embeddings(model, together)
        one, other = (_gradient_at_embeddings(model, partial(alone, own)) for own in branches)
    finally:
        model.train(was_training)
    expected = torch.cat([one[:size] + other[:size], one[size:], other[size:]])
    # the states are the plain way's, so only a gradient that is lost would be wrong; in half precision the
    # backward pass adds up more rounding than the forward pass
    return describe_difference(model, [got], [expected], "gradients", times=4)


def _looks_back_over_a_window(model: Any) -> bool:
    """Whether some layers of a model only look back over a window. A probe is too short to notice that."""
    config = model.config.get_text_config()
    if not getattr(config, "sliding_window", None) or getattr(config, "use_sliding_window", True) is False:
        return False
    kinds = getattr(config, "layer_types", None)
    return kinds is None or "sliding_attention" in kinds
