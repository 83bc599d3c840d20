"""How far a model's positions reach, and positions that depend on the longest row of a batch."""

import itertools
import math
from typing import Any

POSITION_NAMES = ("pos", "wpe", "alibi")  # what tables of positions are named after
RESERVED_POSITIONS = 2  # rows that some families' position tables have beyond the positions that they declare
# families that make a table of positions, of the declared length, in every pass
MADE_AS_LONG_AS_DECLARED = ("mpt",)


def declared_length(model: Any) -> int | None:
    """How many positions a model's configuration declares. None if it declares none. Beyond them a model
    whose positions are computed still gives numbers, which it was not trained to give.
    """
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
    return next((v for v in (getattr(config, name, None) for name in names) if isinstance(v, int)), None)


def context_length(model: Any) -> int | None:
    """The most tokens of a model whose positions are in a table. None if positions are computed, so that only
    quality limits the length.

    A table is an embedding or a tensor named after positions with as many rows as the configuration has
    positions, or the two or so more that some families reserve.
    """
    config, declared = model.config.get_text_config(), declared_length(model)
    if declared is None or config.model_type in MADE_AS_LONG_AS_DECLARED:
        return declared
    words = {id(m) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    tables = [m for m in model.modules() if hasattr(m, "num_embeddings") and id(m) not in words]
    for table in tables:
        if 0 <= table.num_embeddings - declared <= RESERVED_POSITIONS:
            padding = getattr(table, "padding_idx", None)  # RoBERTa's positions begin behind it
            return declared if padding is None else min(declared, table.num_embeddings - padding - 1)
    named = itertools.chain(model.named_buffers(), model.named_parameters())
    rows = [
        t.shape[0]
        for name, t in named
        if t.dim() > 1 and any(p in name.rpartition(".")[2] for p in POSITION_NAMES)
    ]
    return declared if any(0 <= n - declared <= RESERVED_POSITIONS for n in rows) else None


def stretched_above(model: Any) -> float:
    """The length above which a model's RoPE frequencies depend on the longest row in the batch. Infinite for
    most models.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    flat = [rope, *(v for v in rope.values() if isinstance(v, dict))]
    limits = [
        r.get("original_max_position_embeddings") or config.max_position_embeddings
        for r in flat
        if r.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(limits, default=math.inf)


def steady_positions(model: Any) -> None:
    """Reset a model's longest seen row. Dynamic RoPE keeps its frequencies until a row is short again."""
    import torch

    for module in model.modules():
        if hasattr(module, "max_seq_len_cached") and hasattr(module, "rope_type"):
            nothing, first = (
                torch.zeros(1, 1, 1, device=model.device),
                torch.zeros(1, 1, dtype=torch.long, device=model.device),
            )
            for kind in module.rope_type if isinstance(module.rope_type, dict) else [None]:
                module(nothing, first, **({} if kind is None else {"layer_type": kind}))
