"""Sampling answers from a causal language model in batches sorted by length, dropping rows as they finish.

Keys and values are written into room that is there already: concatenating them anew for every token, as transformers' cache
does, copies the whole cache once per token. Finished rows leave a batch several at a time, because that copies it too.

Every row draws from its own generator, seeded by the caller, so an answer does not depend on which rows it was batched
with, apart from floating-point rounding.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from cluster.errors import BadInput
from cluster.loading import context_length, import_transformers

Finish = Literal["stop", "length"]
# Rows in one batch times their longest length: keeps the key/value cache bounded, whatever the prompts.
DEFAULT_TOKEN_BUDGET = 32_768
ROOM = 64  # places by which a cache grows at least
LEAVE_TOGETHER = 8  # a batch is compacted when an eighth of it has finished


@dataclass(frozen=True)
class Completion:
    """One generated answer: ids without the stop token, and whether it stopped by itself."""

    ids: tuple[int, ...]
    finish: Finish


def generation_stop_ids(model: Any) -> frozenset[int]:
    """The end tokens that a model's own generation configuration names; often more than its tokenizer's EOS."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([ends] if isinstance(ends, int) else ends or [])


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    seeds: Sequence[int] | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> list[Completion]:
    """Generate one completion per prompt, in the order of `prompts`.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        prompts: token ids, none empty.
        max_new_tokens: a row that has not stopped by then finishes as "length".
        stop_ids: tokens that end an answer; not part of it.
        seeds: one per prompt; needed when `temperature` is above 0.
        temperature: 0 is greedy.
        top_p: keep the smallest set of tokens whose probability reaches this.
        token_budget: rows per batch times their longest possible length.

    Raises:
        BadInput: the model keeps its state in a way of its own, not in a key/value cache.
    """
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise BadInput(
            f"cannot sample from a {model.config.model_type}",
            "no past_key_values",
            "a key/value cache",
            "serve it, and use an endpoint teacher",
        )
    if temperature > 0 and seeds is None:
        raise ValueError("sampling with a temperature needs one seed per prompt")
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    completions: list[Completion | None] = [None] * len(prompts)
    start = 0
    while start < len(order):
        longest = len(prompts[order[start]]) + max_new_tokens
        rows = order[start : start + max(1, token_budget // longest)]
        draws = None
        if temperature > 0 and seeds is not None:
            draws = np.stack([np.random.default_rng(seeds[i]).random(max_new_tokens, dtype=np.float64) for i in rows])
        batch = _sample_batch(model, [prompts[i] for i in rows], max_new_tokens, stop_ids, draws, temperature, top_p)
        for i, completion in zip(rows, batch, strict=True):
            completions[i] = completion
        start += len(rows)
    return [c for c in completions if c is not None]


@torch.inference_mode()
def _sample_batch(
    model: Any,
    prompts: list[Sequence[int]],
    max_new_tokens: int,
    stop_ids: frozenset[int],
    draws: np.ndarray | None,
    temperature: float,
    top_p: float,
) -> list[Completion]:
    """Left-pad one batch, decode step by step with a key/value cache, and drop rows from it as they stop."""
    device = model.device
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache, compacts = _roomy_cache(model)
    rows = list(range(len(prompts)))  # whose answer each place in the batch is
    generated: list[list[int]] = [[] for _ in prompts]
    finish: dict[int, Finish] = {}
    context = context_length(model) or width + max_new_tokens
    limits = [max(0, min(max_new_tokens, context - len(p))) for p in prompts]
    if max(limits) == 0:
        return [Completion((), "length") for _ in prompts]
    finish.update({row: "length" for row, limit in enumerate(limits) if limit == 0})
    positions = positions.clamp(max=context - 1)  # of rows that have no room; nothing of theirs is kept
    max_new_tokens = max(limits)
    for step in range(max_new_tokens):
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        step_draws = None if draws is None else torch.from_numpy(draws[rows, step]).to(device)
        chosen = _choose(output.logits[:, -1].float(), step_draws, temperature, top_p)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            if row in finish:
                continue
            if token in stop_ids:
                finish[row] = "stop"
            else:
                generated[row].append(token)
                if len(generated[row]) == limits[row]:
                    finish[row] = "length"
        kept = [place for place, row in enumerate(rows) if row not in finish]
        if not kept or step + 1 == max_new_tokens:
            break
        if compacts and LEAVE_TOGETHER * (len(rows) - len(kept)) >= len(rows):
            places = torch.tensor(kept, device=device)
            cache.batch_select_indices(places)
            mask, positions, chosen = mask[places], positions[places], chosen[places]
            rows = [rows[place] for place in kept]
        ids = chosen.unsqueeze(1)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = (positions[:, -1:] + 1).clamp(max=context - 1)
    return [Completion(tuple(g), finish.get(row, "length")) for row, g in enumerate(generated)]


def _roomy_cache(model: Any) -> tuple[Any, bool]:
    """A key/value cache whose plain layers grow by blocks, and whether rows can be taken out of it: only of plain and sliding layers."""
    transformers = import_transformers()
    plain = transformers.cache_utils.DynamicLayer

    class RoomyLayer(plain):  # type: ignore[misc,valid-type]
        """`keys` and `values` [B, H, T, E] are views of blocks with room for more tokens."""

        keys: torch.Tensor
        values: torch.Tensor

        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            start = self.get_seq_length()
            self.keys = self._written("_key_block", self.keys, start, key_states)
            self.values = self._written("_value_block", self.values, start, value_states)
            return self.keys, self.values

        def _written(self, name: str, old: torch.Tensor, start: int, new: torch.Tensor) -> torch.Tensor:
            stop, block = start + new.shape[2], getattr(self, name, None)
            if block is None or block.shape[0] != new.shape[0] or block.shape[2] < stop:
                grown = new.new_empty(*new.shape[:2], stop + max(ROOM, stop // 4), new.shape[3])
                if start:
                    grown[:, :, :start] = old
                block = grown
                setattr(self, name, block)
            block[:, :, start:stop] = new
            return block[:, :, :stop]

    cache = transformers.DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(layer) is plain else layer for layer in cache.layers]
    sliding = transformers.cache_utils.DynamicSlidingWindowLayer
    return cache, all(type(layer) in (RoomyLayer, sliding) for layer in cache.layers)


def _choose(logits: torch.Tensor, draws: torch.Tensor | None, temperature: float, top_p: float) -> torch.Tensor:
    """Pick one token per row: the largest logit, or the inverse of the cumulative distribution at `draws`."""
    if draws is None:
        return logits.argmax(-1)
    probabilities, tokens = torch.softmax(logits.double() / temperature, -1).sort(dim=-1, descending=True, stable=True)
    cumulative = probabilities.cumsum(-1)
    if top_p < 1.0:
        probabilities = probabilities * (cumulative - probabilities < top_p)
        cumulative = probabilities.cumsum(-1)
    target = draws.unsqueeze(-1) * cumulative[:, -1:]
    return tokens.gather(-1, (cumulative <= target).sum(-1, keepdim=True).clamp(max=tokens.shape[-1] - 1)).squeeze(-1)
