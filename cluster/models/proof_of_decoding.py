"""Finds the fastest way of decoding that gives the plain way's logits on this model, token by token."""

from collections.abc import Sequence
from typing import Any

import torch

from cluster.models.decoding import CachedRows, Way, generate_alone
from cluster.models.plain_way import attempt, describe_difference, plain_logits


def fastest_decoding(model: Any, probe: Sequence[list[int]], fallbacks: dict[str, str]) -> Way:
    """The fastest way that gives the right logits. `fallbacks` gets the reasons why faster ones do not."""
    first, second, third = probe
    prompts, following = [first, second], [third[:4], third[4:8]]
    expected = [plain_logits(model, [*p, *f])[len(p) - 1 :] for p, f in zip(prompts, following, strict=True)]
    reason = attempt(lambda: _test_batched(model, prompts, following, expected))
    if reason is None:
        return "batched"
    fallbacks["batched decoding"] = reason
    reason = attempt(lambda: _test_alone(model, prompts, following, expected))
    if reason is None:
        return "alone"
    fallbacks["cached decoding"] = reason
    return "recomputed"


def _test_batched(
    model: Any, prompts: Sequence[list[int]], following: Sequence[list[int]], expected: Sequence[torch.Tensor]
) -> str | None:
    """Decode two rows along given texts. The first row leaves the batch on the way, if rows can leave."""
    rows = CachedRows(model, prompts)
    got: list[list[torch.Tensor]] = [[], []]
    under_way, tokens = [0, 1], None
    for step in range(len(following[0]) + 1):
        for row, logits_V in zip(under_way, rows.logits(tokens), strict=True):
            got[row].append(logits_V)
        if step == 2 and rows.compacts:
            rows.keep(torch.tensor([1], device=model.device))
            under_way = [1]
        if step < len(following[0]):
            tokens = torch.tensor([following[row][step] for row in under_way], device=model.device)
    return describe_difference(
        model,
        [torch.stack(g) for g in got],
        [e[: len(g)] for e, g in zip(expected, got, strict=True)],
        "logits",
    )


def refuse_shared_beginning(model: Any) -> str | None:
    """Why rows with a common beginning cannot share it in a cache. None if they can: their next logits are
    those of rows that do not, for two tokens.
    """
    beginning, ends = [5, 6, 7, 8, 9, 10], ([11, 12, 13], [14])
    prompts = [[*beginning, *end] for end in ends]

    def logits(shared: int) -> list[torch.Tensor]:
        rows = CachedRows(model, prompts, shared)
        first = rows.logits()
        second = rows.logits(torch.tensor([15, 16], device=model.device))
        return [torch.stack([a, b]) for a, b in zip(first, second, strict=True)]

    with torch.inference_mode():
        return attempt(lambda: describe_difference(model, logits(len(beginning)), logits(0), "logits"))


def _test_alone(
    model: Any, prompts: Sequence[list[int]], following: Sequence[list[int]], expected: Sequence[torch.Tensor]
) -> str | None:
    got = []
    for prompt, forced in zip(prompts, following, strict=True):
        seen: list[torch.Tensor] = []

        def pick(
            logits_V: torch.Tensor, seen: list[torch.Tensor] = seen, forced: list[int] = forced
        ) -> int | None:
            seen.append(logits_V)
            return forced[len(seen) - 1] if len(seen) <= len(forced) else None

        generate_alone(model, prompt, len(forced) + 1, pick)
        got.append(torch.stack(seen))
    return describe_difference(model, got, expected, "logits")
