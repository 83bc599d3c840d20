"""The logits of the next token in rows that grow a token at a time, computed in three ways.
`cluster.models.proof` finds the fastest one that is right.

    batched      left-padded rows of several lengths with one key/value cache. Keys and values are written
                 into reserved room. transformers' cache concatenates them for every token instead, which
                 copies the whole cache once per token.
    alone        one row at a time through transformers' `generate`, with the model's own kind of cache.
    recomputed   every row from its first token, for every token: right for any model, and slow.

Shapes: B unfinished rows, V vocabulary.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from cluster.models.loading import import_transformers
from cluster.models.positions import context_length, steady_positions, stretched_above

Way = Literal["batched", "alone", "recomputed"]
ROOM = 64  # the least number of places by which a cache grows


class CachedRows:
    """Left-padded rows with a key/value cache. The first call of `logits` takes no tokens, later calls take
    one for each row.

    Args:
        shared: how many first tokens all prompts have in common. They are computed once, if the model's cache
            has plain layers alone.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], shared: int = 0) -> None:
        device, context = model.device, context_length(model)
        self.model, self.last_position = model, None if context is None else context - 1
        self.cache, self.compacts, is_plain = _roomy_cache(model)
        known = inspect.signature(model.forward).parameters
        self.options = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self.takes_positions = "position_ids" in known
        shared = shared if is_plain else 0
        rest = [list(p[shared:]) for p in prompts]
        width = max(map(len, rest))
        self.ids = torch.tensor([[0] * (width - len(p)) + p for p in rest], device=device)
        mask = [[1] * shared + [0] * (width - len(p)) + [1] * len(p) for p in rest]
        self.mask = torch.tensor(mask, device=device)
        if shared:
            self._compute_once(prompts[0][:shared], len(prompts))
        self.positions = self._within((self.mask.cumsum(-1) - 1).clamp(min=0))[:, shared:]

    def _compute_once(self, beginning: Sequence[int], rows: int) -> None:
        """Fill the cache with tokens that all rows begin with."""
        ids = torch.tensor([list(beginning)], device=self.model.device)
        positions = self._within(torch.arange(len(beginning), device=self.model.device).unsqueeze(0))
        inputs = {"position_ids": positions} if self.takes_positions else {}
        cached = {"past_key_values": self.cache, "use_cache": True}
        self.model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, **cached, **self.options)
        self.cache.batch_repeat_interleave(rows)

    def _within(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions limited to those that the model has. The logits of a row without further positions are
        not used.
        """
        return positions if self.last_position is None else positions.clamp(max=self.last_position)

    def logits(self, tokens_B: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [B, V] in float32 of the next token of each row, after these tokens have been added."""
        if tokens_B is not None:
            self.ids = tokens_B.unsqueeze(1)
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens_B), 1)], dim=1)
            self.positions = self._within(self.positions[:, -1:] + 1)
        inputs = {"position_ids": self.positions} if self.takes_positions else {}
        cached = {"past_key_values": self.cache, "use_cache": True}
        output = self.model(input_ids=self.ids, attention_mask=self.mask, **inputs, **cached, **self.options)
        last: torch.Tensor = output.logits[:, -1].float()
        return last

    def keep(self, places: torch.Tensor) -> None:
        """Let all rows but these go."""
        self.cache.batch_select_indices(places)
        self.mask, self.positions = self.mask[places], self.positions[places]


class RecomputedRows:
    """Rows without a cache, each computed alone from its first token."""

    compacts = True

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self.model, self.context, self.steady = model, context_length(model), stretched_above(model)
        self.rows = [torch.tensor([list(p)], device=model.device) for p in prompts]

    def logits(self, tokens_B: torch.Tensor | None = None) -> torch.Tensor:
        """As `CachedRows.logits`."""
        if tokens_B is not None:
            grown = [
                torch.cat([row, token.view(1, 1)], 1) for row, token in zip(self.rows, tokens_B, strict=True)
            ]
            self.rows = [row[:, : self.context] for row in grown]
        return torch.cat([self._last(row) for row in self.rows])

    def _last(self, row_1T: torch.Tensor) -> torch.Tensor:
        if row_1T.shape[1] > self.steady:
            steady_positions(self.model)
        logits: torch.Tensor = self.model(input_ids=row_1T, use_cache=False).logits[:, -1].float()
        return logits

    def keep(self, places: torch.Tensor) -> None:
        """Let all rows but these go."""
        self.rows = [self.rows[i] for i in places.tolist()]


def generate_alone(
    model: Any, prompt: Sequence[int], tokens: int, pick: Callable[[torch.Tensor], int | None]
) -> None:
    """Run transformers' `generate` on one row. `pick` chooses every token.

    Args:
        tokens: the most tokens.
        pick: takes the logits [V] in float32 and returns a token. None ends the row.
    """
    transformers = import_transformers()
    ended: list[bool] = []

    def choose(ids: torch.Tensor, scores_1V: torch.Tensor) -> torch.Tensor:
        token = pick(scores_1V[0].float())
        ended.append(token is None)
        only = torch.full_like(scores_1V, -torch.inf)
        only[0, token or 0] = 0.0
        return only

    def stop(ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(ids),), ended[-1], device=ids.device)

    settings = transformers.GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=tokens, pad_token_id=0
    )
    ids = torch.tensor([list(prompt)], device=model.device)
    with _plain_generation(model):
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            logits_processor=transformers.LogitsProcessorList([choose]),
            stopping_criteria=transformers.StoppingCriteriaList([stop]),
        )


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Inside the block the model has no generation settings, because a repetition penalty would change the
    logits.
    """
    before = model.generation_config
    model.generation_config = import_transformers().GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


def _roomy_cache(model: Any) -> tuple[Any, bool, bool]:
    """A key/value cache whose plain layers grow by blocks. The second value says whether rows can be removed,
    which only plain and sliding layers allow. The third one says whether all layers are plain.
    """
    transformers = import_transformers()
    plain = transformers.cache_utils.DynamicLayer

    class RoomyLayer(plain):  # type: ignore[misc,valid-type]
        """`keys` and `values` [B, H, T, E] are views of blocks with room for more tokens."""

        keys: torch.Tensor
        values: torch.Tensor

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Any, Any]:
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
    kinds = {type(layer) for layer in cache.layers}
    return cache, kinds <= {RoomyLayer, sliding}, kinds == {RoomyLayer}
