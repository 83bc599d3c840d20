"""A model that is asked for the next token of some rows now and then. It reads only what it has not read yet.

    cached       one key/value cache for all rows. Each row has read another number of tokens, so keys and
                 values are written at each row's own places. A mask says what each token may look at.
    recomputed   every row from its first token, each time: right for any model, and slow.

Shapes: B rows of the cache, R rows that are asked, C the most tokens that one of them has not read, L
places of the cache, H heads, E width of a head, D width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from cluster.models.loading import import_transformers
from cluster.models.plain_way import attempt, describe_difference, plain_logits, probe_texts
from cluster.models.positions import steady_positions, stretched_above
from cluster.models.vocabulary import Head, decoder_of

Reading = Literal["cached", "recomputed"]
MASK_ENTRIES = 2**25  # of one pass: more rows are read in several passes


class CachedReader:
    """Rows of growing texts, read with one key/value cache.

    Attributes:
        processed: how many tokens the model has read for each row.
    """

    def __init__(self, head: Head, rows: int, longest: int) -> None:
        """
        Args:
            rows: B, how many texts there are.
            longest: the most tokens of a text.
        """
        self.head, self.model = head, head.model
        self.processed = [0] * rows
        self.places = _Places()
        self.cache = _cache_by_places(self.model, rows, longest, self.places)

    def logits(self, rows: Sequence[int], unread: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read further tokens of some rows. Returns the logits [R, V] in float32 after the last one of each.

        Args:
            rows: their numbers, each once.
            unread: the tokens of each that follow those read before, at least one.
        """
        found, start = [], 0
        while start < len(rows):
            count = self._fitting(rows[start:], unread[start:])
            found.append(self._read(rows[start : start + count], unread[start : start + count]))
            start += count
        return torch.cat(found)

    def _fitting(self, rows: Sequence[int], unread: Sequence[Sequence[int]]) -> int:
        """How many of the first rows can be read in one pass."""
        width = length = 0
        for k, (row, tokens) in enumerate(zip(rows, unread, strict=True)):
            width = max(width, len(tokens))
            length = max(length, self.processed[row] + len(tokens))
            if k and (k + 1) * width * length > MASK_ENTRIES:
                return k
        return len(rows)

    def _read(self, rows: Sequence[int], unread: Sequence[Sequence[int]]) -> torch.Tensor:
        device, width = self.model.device, max(map(len, unread))
        ids_RC = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in unread], device=device)
        starts_R = torch.tensor([self.processed[row] for row in rows], device=device)
        positions_RC = starts_R.unsqueeze(1) + torch.arange(width, device=device)
        lasts_R = torch.tensor([len(tokens) - 1 for tokens in unread], device=device)
        # a padding token looks at what its row's last real token looks at
        until_RC = torch.minimum(positions_RC, (starts_R + lasts_R).unsqueeze(1))
        length = int(until_RC.max()) + 1
        seen = torch.arange(length, device=device) <= until_RC.unsqueeze(2)
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=device)
        mask.masked_fill_(~seen, torch.finfo(self.model.dtype).min)
        self.places.rows = torch.tensor(list(rows), device=device)
        self.places.are_all = list(rows) == list(range(len(self.processed)))  # then nothing is copied
        self.places.of, self.places.length = positions_RC, length
        output = decoder_of(self.model)(
            input_ids=ids_RC,
            position_ids=until_RC,
            attention_mask=mask.unsqueeze(1),
            past_key_values=self.cache,
            use_cache=True,
        )
        for row, tokens in zip(rows, unread, strict=True):
            self.processed[row] += len(tokens)
        hidden_RD = output.last_hidden_state[torch.arange(len(rows), device=device), lasts_R]
        return self.head.logits(hidden_RD)


class RecomputedReader:
    """Rows of growing texts, each computed alone from its first token every time."""

    def __init__(self, head: Head, rows: int, longest: int) -> None:
        self.model = head.model
        self.processed = [0] * rows
        self.texts: list[list[int]] = [[] for _ in range(rows)]

    def logits(self, rows: Sequence[int], unread: Sequence[Sequence[int]]) -> torch.Tensor:
        """As `CachedReader.logits`. All tokens of a row count as processed each time."""
        found = []
        for row, tokens in zip(rows, unread, strict=True):
            self.texts[row] += tokens
            self.processed[row] += len(self.texts[row])
            if len(self.texts[row]) > stretched_above(self.model):
                steady_positions(self.model)
            found.append(plain_logits(self.model, self.texts[row])[-1])
        return torch.stack(found)


class _Places:
    """Where the keys and values of a pass belong: the rows [R], whether these are all of them in order, the
    places of their tokens [R, C], and how many places are looked at.
    """

    rows: torch.Tensor
    are_all = False
    of: torch.Tensor
    length = 0


def _cache_by_places(model: Any, rows: int, longest: int, places: _Places) -> Any:
    """A key/value cache whose layers write where `places` says.

    Raises:
        ValueError: not all layers of this model keep plain keys and values.
    """
    transformers = import_transformers()
    plain = transformers.cache_utils.DynamicLayer

    class PlacedLayer(plain):  # type: ignore[misc,valid-type]
        """`keys` and `values` [B, H, L, E]."""

        keys: torch.Tensor
        values: torch.Tensor

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Any, Any]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self.keys, self.values = (
                    new.new_zeros(rows, new.shape[1], longest + 1, new.shape[3])
                    for new in (key_states, value_states)
                )
            return self._written(self.keys, key_states), self._written(self.values, value_states)

        def _written(self, block: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
            # what padding tokens write is written over later, or lies at the last place, which nobody reads
            own = places.of.clamp(max=block.shape[2] - 1)
            block[places.rows.unsqueeze(1), :, own] = new.transpose(1, 2)
            if places.are_all:
                return block[:, :, : places.length]
            return block[places.rows, :, : places.length]

        def get_seq_length(self) -> int:
            return int(places.length - places.of.shape[1]) if places.length else 0

    cache = transformers.DynamicCache(config=model.config)
    if any(type(layer) is not plain for layer in cache.layers):
        raise ValueError("not all of its layers keep plain keys and values")
    cache.layers = [PlacedLayer() for _ in cache.layers]
    return cache


def reader(head: Head, way: Reading, rows: int, longest: int) -> CachedReader | RecomputedReader:
    """Rows of a model that is asked now and then, read in this way."""
    return (CachedReader if way == "cached" else RecomputedReader)(head, rows, longest)


@torch.no_grad()
def why_not_cached(head: Head) -> str | None:
    """None if this model's rows can be read with one cache: the logits after every reading are those of the
    plain way, for rows that are asked at different times. Otherwise the reason.
    """
    model = head.model
    first, second, third = probe_texts(model)
    texts = [[*first, *third], [*second, *first], third]
    # which rows read, and up to where
    turns = ([(0, 5), (1, 12), (2, 3)], [(1, 14)], [(0, 6), (2, 9)], [(2, 10), (1, 20), (0, 14)])

    def test() -> str | None:
        own = CachedReader(head, len(texts), max(map(len, texts)))
        got, expected, read = [], [], [0, 0, 0]
        for turn in turns:
            rows, unread = [row for row, _ in turn], []
            for row, stop in turn:
                unread.append(texts[row][read[row] : stop])
                read[row] = stop
                expected.append(plain_logits(model, texts[row][:stop])[-1])
            got += list(own.logits(rows, unread))
        return describe_difference(model, [torch.stack(got)], [torch.stack(expected)], "logits")

    return attempt(test)
