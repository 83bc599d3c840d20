"""Attention over a packed sequence of prompts and branches, for any model that uses transformers' attention
interface.

A branch sees its prompt and itself. `cluster.models.attention_plan` divides that into calls. Sliding windows
and soft-capped scores, which models pass to their attention function, are supported. Anything else that would
change the numbers raises `Unsupported`.

Shapes: T packed tokens, B rows of a group, Q queries and K keys per row, H heads, E width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from cluster.models.attention_plan import Group
from cluster.models.loading import import_transformers

NAME = "tutelage_branches"
BLOCK_SCORES = 2**24  # the most masked or soft-capped scores [B, Q, K] that exist at once


class Unsupported(Exception):
    """The model needs something that this attention function does not support."""


_PLAN: ContextVar[list[Group]] = ContextVar("attention_plan")
_WINDOWS: set[int] = set()  # sliding windows that a model's layers passed to `attend`


@contextmanager
def windows_seen() -> Iterator[set[int]]:
    """Collect the sliding windows that layers pass to `attend` during the block."""
    _WINDOWS.clear()
    yield _WINDOWS


@contextmanager
def attend_as_planned(plan: list[Group]) -> Iterator[None]:
    """Set the plan that `attend` follows inside the block."""
    token = _PLAN.set(plan)
    try:
        yield
    finally:
        _PLAN.reset(token)


@contextmanager
def replaced_attention(model: Any) -> Iterator[None]:
    """Make the model's layers call `attend` inside the block.

    Raises:
        Unsupported: the model's attention cannot be replaced.
    """
    import_transformers().AttentionInterface.register(NAME, attend)
    if not model._can_set_attn_implementation():
        raise Unsupported("its attention is its own code, outside the attention interface")
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers' interface: query [1, H, T, E], key and value [1, H_kv, T, E] ->
    [1, T, H, E].

    Args:
        options: further arguments of the model, of which `sliding_window` and `softcap` are used.

    Raises:
        Unsupported: a mask of the model's own, attention sinks, a position bias or dropout.
    """
    changing = [name for name in ("s_aux", "position_bias", "head_mask") if options.get(name) is not None]
    changing += ["dropout"] if options.get("dropout") else []
    if attention_mask is not None or changing or query.shape[0] != 1:
        raise Unsupported(f"its attention wants {', '.join(changing) or 'a mask of its own'}")
    sliding_window, softcap = options.get("sliding_window"), options.get("softcap")
    if sliding_window is not None:
        _WINDOWS.add(sliding_window)
    width = value.shape[-1]
    if width < query.shape[-1]:  # fused kernels need one width (multi-head latent attention has two)
        value = pad(value, (0, query.shape[-1] - width))
    packed = [x[0].transpose(0, 1) for x in (query, key, value)]  # [T, H, E]
    result = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
    for group in _PLAN.get():
        q, k, v = (
            x[i].transpose(1, 2) for x, i in zip(packed, (group.queries, group.keys, group.keys), strict=True)
        )
        window = sliding_window if sliding_window is not None and k.shape[2] > sliding_window else None
        if group.causal and window is None and softcap is None:
            out = _fused(q, k, v, None, scaling)
        else:
            out = _masked(group, q, k, v, scaling, window, softcap)
        result[group.put] = out.transpose(1, 2).flatten(0, 1)[group.take]
    return result[..., :width].unsqueeze(0), None


def _fused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """Attention by torch's fused kernel. Without a mask it is causal.

    On CUDA the kernels for masks and for float32 do not support grouped heads. With grouped heads torch would
    build all scores at once.
    """
    grouped = k.shape[1] != q.shape[1]
    if grouped and q.device.type == "cuda" and (mask is not None or q.dtype == torch.float32):
        repeats = q.shape[1] // k.shape[1]
        k, v, grouped = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1), False
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )


def _masked(
    group: Group,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attention with an explicit mask, one block of queries at a time, so that the scores' memory is
    bounded.
    """
    heads = q.shape[1] if softcap is not None else 1
    block = max(1, BLOCK_SCORES // (q.shape[0] * k.shape[2] * heads))
    parts = []
    for start in range(0, q.shape[2], block):
        stop = min(start + block, q.shape[2])
        low, high = (max(0, start + 1 - window) if window else 0, stop) if group.causal else (0, k.shape[2])
        mask = _mask(group, slice(start, stop), slice(low, high), window, q, keep=stop - start == q.shape[2])
        part = q[:, :, start:stop], k[:, :, low:high], v[:, :, low:high]
        if softcap is None:
            parts.append(_fused(*part, mask, scaling))
        else:
            parts.append(_soft_capped(*part, mask, scaling, softcap))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _mask(
    group: Group, queries: slice, keys: slice, window: int | None, like: torch.Tensor, keep: bool
) -> torch.Tensor:
    """The mask that is added to scores, [B, 1, Q, K]: 0 where a query may see a key. Padding sees the first
    key, so that nothing is NaN.
    """
    name = (window, keys.start, keys.stop)
    if keep and name in group.masks:
        return group.masks[name]
    at, of = group.query_positions[:, queries].unsqueeze(2), group.key_positions[:, keys].unsqueeze(1)
    seen = of <= at
    if window is not None:
        seen &= of > at - window
        seen[:, :, 0] |= ~seen.any(2)
    mask = (
        torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
        .masked_fill_(~seen, -torch.inf)
        .unsqueeze(1)
    )
    if keep:
        group.masks[name] = mask
    return mask


def _soft_capped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """softmax(softcap * tanh(q k / softcap)) v, the softmax in float32 (Gemma 2)."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = (q @ k.transpose(2, 3)) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap + mask
    return torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype) @ v
