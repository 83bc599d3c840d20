"""Sampling answers from a causal language model in batches sorted by length, dropping rows as they finish.

Finished rows leave a batch several at a time, because that copies the cache. Every row draws from its own
generator, seeded by the caller, so an answer does not depend on which rows it was batched with, apart from
floating-point rounding.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from cluster.halving import run_halving
from cluster.models.decoding import CachedRows, RecomputedRows, Way, generate_alone
from cluster.models.positions import context_length, stretched_above
from cluster.progress import Piece
from cluster.threads import lanes_of, one_thread, side_by_side

Finish = Literal["stop", "length"]
# The most rows of a batch times their longest length. It bounds the key/value cache for any prompts.
DEFAULT_TOKEN_BUDGET = 32_768
LEAST_ROWS = 16  # rows in a lane: with fewer rows most of a step's time is fixed cost
LEAVE_TOGETHER = 8  # a batch is compacted when one in so many rows has finished


@dataclass(frozen=True)
class Completion:
    """One generated answer: ids without the stop token, and whether it stopped by itself.

    Attributes:
        logprobs: if requested, the natural log-probability of every token under the model itself (before
            temperature and top_p), the end token included.
    """

    ids: tuple[int, ...]
    finish: Finish
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when an answer ends.

    Attributes:
        max_new_tokens: a row that has not stopped after so many tokens finishes as "length".
        stop_ids: the tokens that end an answer. They are not part of it.
        temperature: 0 is greedy.
        top_p: sample from the smallest set of tokens whose probability reaches this.
        token_budget: rows per batch times their longest possible length.
        way: how the next token is found, as `cluster.models.proof` proved it.
        logprobs: whether to keep the log-probabilities of sampled tokens.
        shares_beginning: whether tokens that all prompts of a batch begin with are computed once. It changes
            numbers by rounding.
    """

    max_new_tokens: int
    stop_ids: frozenset[int]
    temperature: float = 0.0
    top_p: float = 1.0
    token_budget: int = DEFAULT_TOKEN_BUDGET
    way: Way = "batched"
    logprobs: bool = False
    shares_beginning: bool = False


@dataclass(frozen=True)
class _Asked:
    """A prompt and the seed of its draws."""

    prompt: Sequence[int]
    seed: int | None


def generation_stop_ids(model: Any) -> frozenset[int]:
    """The end tokens of a model's own generation configuration. They are often more than its tokenizer's
    EOS.
    """
    ends = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([ends] if isinstance(ends, int) else ends or [])


def sample(
    model: Any, prompts: Sequence[Sequence[int]], settings: Sampling, seeds: Sequence[int] | None = None
) -> list[Completion | Exception]:
    """Generate one completion per prompt, in the order of `prompts`. A row that fails by itself gets its
    exception instead.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        prompts: token ids, none empty.
        seeds: one per prompt. Needed if the temperature is above 0.

    Raises:
        ValueError: a temperature without seeds.
    """
    if settings.temperature > 0 and seeds is None:
        raise ValueError("sampling with a temperature needs one seed per prompt")
    drawn: Sequence[int | None] = (
        [None] * len(prompts) if settings.temperature == 0 or seeds is None else seeds
    )
    asked = [_Asked(prompt, seed) for prompt, seed in zip(prompts, drawn, strict=True)]
    completions: list[Completion | Exception | None] = [None] * len(prompts)

    def sampled(batch: tuple[Sequence[int], Piece]) -> list[Completion | Exception]:
        rows, piece = batch
        found = run_halving(
            [asked[i] for i in rows],
            lambda some: _sample_batch(
                model, some, settings, lambda done: piece.reach(done * len(some) / len(rows))
            ),
        )
        piece.reach(1.0)
        return found

    # a model whose positions stretch keeps the longest row it has seen
    lanes = lanes_of(model) if stretched_above(model) == math.inf else 1
    parts = batches_of(prompts, settings.max_new_tokens, settings.token_budget, lanes)
    batches = [(rows, Piece(len(rows) / len(prompts))) for rows in parts]
    with one_thread(model):
        for (rows, _), found in zip(batches, side_by_side(lanes, sampled, batches), strict=True):
            for i, completion in zip(rows, found, strict=True):
                completions[i] = completion
    return [c for c in completions if c is not None]


def batches_of(
    prompts: Sequence[Sequence[int]], further: int, token_budget: int, lanes: int
) -> list[list[int]]:
    """The batches of prompts, as their places. Longest first, each up to a lane's share of the token budget
    and of the prompts.

    Args:
        further: by how many tokens a row may grow.
    """
    share = max(LEAST_ROWS, math.ceil(len(prompts) / lanes)) if lanes > 1 else len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = len(prompts[order[start]]) + further
        count = max(1, min(share, token_budget // lanes // longest))
        batches.append(order[start : start + count])
        start += count
    return batches


@torch.inference_mode()
def _sample_batch(
    model: Any, asked: Sequence[_Asked], settings: Sampling, tell: Callable[[float], None]
) -> list[Completion]:
    """Sample a batch. Rows that grow beyond the length at which a model stretches its positions continue
    without a cache.

    Args:
        tell: is told the finished share of the batch after every step. A row that goes on counts by its
            tokens.
    """
    growing = [_Growing(a, settings) for a in asked]
    longest, steady = context_length(model) or math.inf, stretched_above(model)
    for row in growing:
        row.limit = int(min(settings.max_new_tokens, longest - len(row.asked.prompt)))
    short = [row for row in growing if row.room(steady) > 0]

    def told() -> None:
        tell(sum(row.share for row in growing) / len(growing))

    if settings.way == "alone":
        for row in short:
            generate_alone(model, row.asked.prompt, row.room(steady), row.take)
            told()
    elif short:
        texts = [row.text for row in short]
        if settings.way == "batched":
            shared = common_beginning(texts) if settings.shares_beginning else 0
            _grow(CachedRows(model, texts, shared), short, steady, settings, told)
        else:
            _grow(RecomputedRows(model, texts), short, steady, settings, told)
    long = [row for row in growing if row.room(math.inf) > 0]
    if long:
        _grow(RecomputedRows(model, [row.text for row in long]), long, math.inf, settings, told)
    return [Completion(tuple(row.ids), row.finish or "length", tuple(row.logprobs)) for row in growing]


def common_beginning(texts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all texts have in common, less than the shortest has.

    >>> common_beginning([[1, 2, 3, 4], [1, 2, 5]]), common_beginning([[1, 2], [1, 2, 3]])
    (2, 1)
    """
    least = min(map(len, texts)) - 1
    return next((k for k in range(least) if len({text[k] for text in texts}) > 1), least)


class _Growing:
    """An answer that is being generated, of at most `limit` tokens."""

    def __init__(self, asked: _Asked, settings: Sampling) -> None:
        self.asked, self.settings, self.limit = asked, settings, settings.max_new_tokens
        self.draws = (
            None if asked.seed is None else np.random.default_rng(asked.seed).random(settings.max_new_tokens)
        )
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish: Finish | None = None

    @property
    def text(self) -> list[int]:
        return [*self.asked.prompt, *self.ids]

    def room(self, length: float) -> int:
        """How many more tokens the row takes within a length of the whole text. 0 if it has ended."""
        left = min(self.limit - len(self.ids), length - len(self.asked.prompt) - len(self.ids))
        return 0 if self.finish is not None else int(max(0, left))

    @property
    def share(self) -> float:
        """How much of the answer is done. 1 if it has ended; what it may still grow is not known before."""
        return 1.0 if self.finish is not None else len(self.ids) / max(1, self.limit)

    @property
    def draw(self) -> float:
        """The draw for the next token, in [0, 1)."""
        return (
            0.0
            if self.draws is None or len(self.ids) >= len(self.draws)
            else float(self.draws[len(self.ids)])
        )

    def add(self, token: int, logprob: float | None = None) -> None:
        """Take the next token, unless the answer has ended."""
        if self.finish is not None or len(self.ids) >= self.limit:
            return
        if logprob is not None:
            self.logprobs.append(logprob)
        if token in self.settings.stop_ids:
            self.finish = "stop"
            return
        self.ids.append(token)
        if len(self.ids) == self.limit:
            self.finish = "length"

    def take(self, logits_V: torch.Tensor) -> int | None:
        """Choose and add the next token. None if the answer ends with it."""
        logits_1V = logits_V.unsqueeze(0)
        tokens_1 = choose(logits_1V, [self.draw], self.settings)
        token = int(tokens_1[0])
        self.add(token, _logprobs(logits_1V, tokens_1, self.settings)[0])
        return None if self.finish is not None else token


def _grow(
    rows: CachedRows | RecomputedRows,
    growing: Sequence[_Growing],
    length: float,
    settings: Sampling,
    told: Callable[[], None],
) -> None:
    """Decode step by step until no row has room within `length`. Rows without room leave the batch, several
    at a time.

    Args:
        told: is called after every step.
    """
    under_way = list(growing)  # the answer of each place in the batch
    chosen: torch.Tensor | None = None
    while True:
        logits_BV = rows.logits(chosen)
        chosen = choose(logits_BV, [row.draw for row in under_way], settings)
        logprobs = _logprobs(logits_BV, chosen, settings)
        for row, token, logprob in zip(under_way, chosen.tolist(), logprobs, strict=True):
            if row.room(length):
                row.add(token, logprob)
        told()
        kept = [place for place, row in enumerate(under_way) if row.room(length)]
        if not kept:
            return
        if rows.compacts and LEAVE_TOGETHER * (len(under_way) - len(kept)) >= len(under_way):
            places = torch.tensor(kept, device=chosen.device)
            rows.keep(places)
            chosen, under_way = chosen[places], [under_way[place] for place in kept]


def choose(logits_BV: torch.Tensor, draws: Sequence[float], settings: Sampling) -> torch.Tensor:
    """Pick one token per row: the largest logit, or the inverse of the cumulative distribution at the row's
    draw.

    Args:
        draws: one in [0, 1) for each row. Not read at temperature 0.

    Raises:
        ArithmeticError: a logit is not a number.
    """
    if settings.temperature == 0:
        tokens_B = logits_BV.argmax(-1)
    else:
        draws_B = torch.tensor(draws, dtype=torch.float64, device=logits_BV.device)
        tokens_B = choose_at(logits_BV, draws_B, settings.temperature, settings.top_p)
    if logits_BV.gather(-1, tokens_B.unsqueeze(-1)).isnan().any():  # the largest of numbers and NaN is NaN
        raise ArithmeticError("the model gives logits that are not numbers")
    return tokens_B


def _logprobs(
    logits_BV: torch.Tensor, tokens_B: torch.Tensor, settings: Sampling
) -> list[float] | list[None]:
    """Natural log-probabilities of chosen tokens under the model itself, if requested."""
    if not settings.logprobs:
        return [None] * len(tokens_B)
    logits_BV = logits_BV.float()
    chosen_B = logits_BV.gather(-1, tokens_B.unsqueeze(-1)).squeeze(-1)
    found: list[float] = (chosen_B - logits_BV.logsumexp(-1)).tolist()
    return found


def choose_at(
    logits_BV: torch.Tensor, draws_B: torch.Tensor, temperature: float, top_p: float
) -> torch.Tensor:
    """The token of each row at which the cumulative distribution, most likely first,
    passes the row's draw.
    """
    probabilities, tokens = torch.softmax(logits_BV.double() / temperature, -1).sort(
        dim=-1, descending=True, stable=True
    )
    cumulative = probabilities.cumsum(-1)
    if top_p < 1.0:
        probabilities = probabilities * (cumulative - probabilities < top_p)
        cumulative = probabilities.cumsum(-1)
    target = draws_B.unsqueeze(-1) * cumulative[:, -1:]
    place = (cumulative <= target).sum(-1, keepdim=True).clamp(max=tokens.shape[-1] - 1)
    return tokens.gather(-1, place).squeeze(-1)
