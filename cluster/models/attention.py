"""Attention over a packed sequence of prompts and branches, for any model of transformers' attention
interface.

A branch sees its prompt and itself. Two ways to compute that, chosen per prompt by the number of query-key
pairs:

    whole    each row is prompt + branch under a plain causal mask. Kernels skip blocks of keys above the
    diagonal, but the
             prompt's own queries are computed again for every branch: about (P + R)^2 / 2 pairs per branch.
    shared   the prompt's queries once, and each branch's queries against prompt + branch under a mask, of
    which kernels
             skip nothing: about P^2 / 2 in all and R (P + R) per branch.

Rows of similar size go into one padded call. Sliding windows and soft-capped scores, which models pass to
their attention function, are honoured; anything else that would change the numbers raises `Unsupported`.

Shapes: T packed tokens, B rows of a group, Q queries and K keys per row, H heads, E width of a head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from cluster.models.loading import import_transformers

NAME = "tutelage_branches"
NOWHERE = 2**40  # position of a padded key: behind every query
# What one more call costs, in arithmetic that the device could have done meanwhile: padding below that is
# worth it.
CALL_FLOP = {"cpu": 6e6, "cuda": 3e9}
# Keys that a kernel skips together under a causal mask: shorter rows save nothing by it (measured on a CPU).
KEY_BLOCK = {"cpu": 512, "cuda": 128}
GROUP_KEYS = 32_768  # keys of one call, padding included: bounds the copies
BLOCK_SCORES = 2**24  # masked or soft-capped scores [B, Q, K] that exist at once


class Unsupported(Exception):
    """The model asks its attention function for something that this one does not do."""


@dataclass
class Group:
    """Rows of one attention call.

    Attributes:
        queries, keys: int64 [B, Q] and [B, K], places in the packed sequence (padding repeats place 0).
        query_positions, key_positions: positions within prompt + branch; padded keys are `NOWHERE`.
        causal: query i is key i, so a plain causal mask is right.
        take, put: int64 [n], which of the B * Q outputs are kept, and their places in the packed sequence.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    query_positions: torch.Tensor
    key_positions: torch.Tensor
    causal: bool
    take: torch.Tensor
    put: torch.Tensor
    masks: dict[Any, torch.Tensor] = field(default_factory=dict)


_PLAN: ContextVar[list[Group]] = ContextVar("attention_plan")
_WINDOWS: set[int] = set()  # sliding windows that a model's layers passed to `attend`


@contextmanager
def windows_seen() -> Iterator[set[int]]:
    """The sliding windows that layers pass to `attend` while the block runs."""
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
    """Let the model's layers call `attend` inside the block.

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


@dataclass(frozen=True)
class _Row:
    """One query row: its prompt's place, its branch's place, and which of the two hold queries and kept
    outputs.
    """

    prompt: slice
    branch: slice
    whole: bool
    keeps_prompt: bool

    @property
    def prompt_size(self) -> int:
        return self.prompt.stop - self.prompt.start

    @property
    def branch_size(self) -> int:
        return self.branch.stop - self.branch.start

    @property
    def keys(self) -> int:
        return self.prompt_size + self.branch_size

    @property
    def queries(self) -> int:
        return self.keys if self.whole else self.branch_size

    def key_places(self) -> np.ndarray:
        return np.r_[self.prompt, self.branch]

    def query_places(self) -> np.ndarray:
        return self.key_places() if self.whole else np.r_[self.branch]


def plan_attention(prompts: Sequence[slice], branches: Sequence[Sequence[slice]], model: Any) -> list[Group]:
    """Cut the attention of a packed sequence into calls, by estimated work for this model on its device."""
    # about that of all heads together; layers may differ in them
    width = model.config.get_text_config().hidden_size
    call_pairs = CALL_FLOP.get(model.device.type, CALL_FLOP["cuda"]) / (4 * width)
    key_block = KEY_BLOCK.get(model.device.type, KEY_BLOCK["cuda"])
    rows = [
        row
        for prompt, spans in zip(prompts, branches, strict=True)
        for row in _rows(prompt, spans, key_block)
    ]
    groups = []
    for whole in (True, False):
        chosen = sorted(
            (r for r in rows if r.whole == whole),
            key=lambda r: (-r.keys * r.queries, -r.keys, r.branch.start),
        )
        groups += [_group(batch, whole, model.device) for batch in _batches(chosen, call_pairs)]
    return groups


def _rows(prompt: slice, branches: Sequence[slice], key_block: int) -> list[_Row]:
    """The rows of one tree, the cheaper of the two ways."""

    def causal_pairs(size: int) -> float:
        return size * (size + min(size, key_block)) / 2

    p = prompt.stop - prompt.start
    sizes = [b.stop - b.start for b in branches]
    whole = sum(causal_pairs(p + r) for r in sizes)
    shared = causal_pairs(p) + sum(r * (p + r) for r in sizes)
    if whole <= shared:
        return [_Row(prompt, b, True, k == 0) for k, b in enumerate(branches)]
    nothing = slice(prompt.stop, prompt.stop)
    return [_Row(prompt, nothing, True, True), *(_Row(prompt, b, False, False) for b in branches)]


def _batches(rows: Sequence[_Row], call_pairs: float) -> Iterator[list[_Row]]:
    """Rows that are worth one padded call together: the padding costs less than a call of their own."""
    batch: list[_Row] = []
    queries = keys = 0
    spent = 0.0
    for row in rows:
        q, k = max(queries, row.queries), max(keys, row.keys)
        pairs = q * k * (len(batch) + 1)
        if batch and (
            pairs - spent - row.queries * row.keys > call_pairs or k * (len(batch) + 1) > GROUP_KEYS
        ):
            yield batch
            batch, spent, q, k = [], 0.0, row.queries, row.keys
        batch.append(row)
        queries, keys, spent = q, k, spent + row.queries * row.keys
    if batch:
        yield batch


def _group(rows: list[_Row], causal: bool, device: torch.device) -> Group:
    """Index tensors of one call."""
    size, n_q, n_k = len(rows), max(r.queries for r in rows), max(r.keys for r in rows)
    queries, keys = np.zeros((size, n_q), np.int64), np.zeros((size, n_k), np.int64)
    query_positions, key_positions = np.zeros((size, n_q), np.int64), np.full((size, n_k), NOWHERE)
    take, put = [], []
    for b, row in enumerate(rows):
        query_places, key_places = row.query_places(), row.key_places()
        queries[b, : row.queries], keys[b, : row.keys] = query_places, key_places
        query_positions[b, : row.queries] = np.arange(row.keys - row.queries, row.keys)
        key_positions[b, : row.keys] = np.arange(row.keys)
        first = row.prompt_size if row.whole and not row.keeps_prompt else 0
        take.append(b * n_q + np.arange(first, row.queries))
        put.append(query_places[first:])
    tensors = (queries, keys, query_positions, key_positions, np.concatenate(take), np.concatenate(put))
    q, k, qp, kp, t, p = (torch.from_numpy(x).to(device) for x in tensors)
    return Group(q, k, qp, kp, causal, t, p)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers' interface: query [1, H, T, E], key and value [1, H_kv, T, E] ->
    [1, T, H, E].

    Raises:
        Unsupported: a mask of the model's own, attention sinks or a position bias.
    """
    changing = [name for name in ("s_aux", "position_bias", "head_mask") if options.get(name) is not None]
    if attention_mask is not None or changing or query.shape[0] != 1:
        raise Unsupported(f"its attention wants {', '.join(changing) or 'a mask of its own'}")
    if sliding_window is not None:
        _WINDOWS.add(sliding_window)
    width = value.shape[-1]
    if width < query.shape[-1]:  # fused kernels want one width (multi-head latent attention has two)
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
    """Attention by torch's fused kernel: causal without a mask.

    On CUDA the kernels for masks and for float32 take no grouped heads; asked for them, torch would build all
    scores at once.
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
    """Attention under an explicit mask, a block of queries at a time so that the scores stay within
    bounds.
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
    """What is added to scores, [B, 1, Q, K]: 0 where a query may see a key; padding sees the first key, so
    that nothing is NaN.
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
