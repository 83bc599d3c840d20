"""Dividing the attention of a packed sequence of prompts and branches into calls.

A branch sees its prompt and itself. There are two ways to compute that. The number of query-key pairs decides
for each prompt:

    whole    each row is prompt + branch under a plain causal mask. Kernels skip blocks of keys above the
             diagonal, but the prompt's own queries are computed again for every branch: about
             (P + R)^2 / 2 pairs per branch.
    shared   the prompt's queries once, and each branch's queries against prompt + branch under a mask, of
             which kernels skip nothing: about P^2 / 2 in all and R (P + R) per branch.

Rows of similar size go into one padded call.

Shapes: B rows of a group, Q queries and K keys per row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

NOWHERE = 2**40  # position of a padded key: behind every query
# The cost of one more call, as arithmetic that the device could do in that time. Less padding than that is
# cheaper than a call.
CALL_FLOP = {"cpu": 6e6, "cuda": 3e9}
# How many keys a kernel skips together under a causal mask. Shorter rows save nothing by it (measured on a
# CPU).
KEY_BLOCK = {"cpu": 512, "cuda": 128}
GROUP_KEYS = 32_768  # the most keys of one call, padding included; bounds the copies


@dataclass
class Group:
    """Rows of one attention call.

    Attributes:
        queries, keys: int64 [B, Q] and [B, K], places in the packed sequence (padding repeats place 0).
        query_positions, key_positions: positions within prompt + branch; padded keys are `NOWHERE`.
        causal: whether query i is key i, so that a plain causal mask is right.
        take, put: int64 [n], the kept ones of the B * Q outputs, and their places in the packed sequence.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    query_positions: torch.Tensor
    key_positions: torch.Tensor
    causal: bool
    take: torch.Tensor
    put: torch.Tensor
    masks: dict[Any, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _Row:
    """One query row: the places of its prompt and its branch, and which of the two have queries and kept
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
    """Divide the attention of a packed sequence into calls, by the estimated work for this model on its
    device.
    """
    # an approximation for all heads together; layers may differ
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
    """The rows of one tree, in the cheaper of the two ways."""

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
    """Groups of rows for one padded call each. The padding costs less than separate calls."""
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
