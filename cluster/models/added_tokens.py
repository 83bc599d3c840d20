"""Tokens that a student has and its base model has not, such as an action that a method teaches.

A source that names added tokens is loaded with them: the tokenizer knows them, and the embeddings have a row
for each. A new row is the mean of the other rows with a little noise, which depends on the token's text
alone. So every process that loads the source gets the same model, and no copy of the base is written.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.errors import BadInput
from cluster.halving import breaks_device

if TYPE_CHECKING:
    import torch

NOISE = 0.01  # of a new row, in standard deviations of the embeddings


def add_to_tokenizer(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Add special tokens to a tokenizer.

    Raises:
        BadInput: the tokenizer has one of them already, or takes no tokens.
    """
    from transformers import AddedToken

    known = [token for token in tokens if token in tokenizer.get_vocab()]
    if known or len(set(tokens)) < len(tokens) or not all(tokens):
        raise BadInput(
            "cannot add these tokens to the tokenizer",
            ", ".join(map(repr, tokens)),
            "different texts that are no tokens of it yet",
            "choose other texts",
        )
    try:
        count = tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in tokens])
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise BadInput("this tokenizer takes no further tokens", error, "one that does", "") from error
    if count != len(tokens):
        raise BadInput("this tokenizer takes no further tokens", f"{count} of {len(tokens)} added", "all", "")


def add_to_model(model: Any, ids: Sequence[int], tokens: Sequence[str]) -> None:
    """Give a model's embeddings, and its vocabulary projection, a row for each added token. Rows that were
    there before keep their values.

    Args:
        ids: of the tokens.

    Raises:
        BadInput: this architecture cannot get further tokens.
    """
    import torch

    try:
        before = _vocabulary(model)
        known = {name: weight.shape for name, weight in model.named_parameters()}
        if max(ids) >= before:  # some models have more rows than their tokenizer has tokens
            model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        own = {id(m.weight) for m in embeddings_of(model)}
        resized = [w for n, w in model.named_parameters() if w.shape != known.get(n) or id(w) in own]
        for weight in resized:
            _fill(weight, ids, tokens, min(before, *ids))
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]), use_cache=False)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if breaks_device(error):
            raise
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        what = f"a model of type {model.config.model_type} cannot get further tokens"
        raise BadInput(
            what, told, "a row of embeddings for each of them", "choose another student"
        ) from error


def embeddings_of(model: Any) -> list[Any]:
    """The modules with a row for each token: the embeddings, and the projection if it is another module."""
    found = [model.get_input_embeddings(), model.get_output_embeddings()]
    return [module for module in found if module is not None]


def _vocabulary(model: Any) -> int:
    """The number of rows of the embeddings.

    Raises:
        ValueError: the projection has another number.
    """
    sizes = {int(module.weight.shape[0]) for module in embeddings_of(model)}
    if len(sizes) != 1:
        raise ValueError(
            f"its embeddings and its projection have {' and '.join(map(str, sorted(sizes)))} rows"
        )
    return sizes.pop()


def _fill(weight: "torch.Tensor", ids: Sequence[int], tokens: Sequence[str], used: int) -> None:
    """Set the rows of added tokens: the mean of the first `used` rows, with noise. A bias gets its mean."""
    import torch

    with torch.no_grad():
        rows = weight[:used].float()
        mean, spread = rows.mean(0), float(rows.std())
        for identity, token in zip(ids, tokens, strict=True):
            noise = _noise(token, mean.numel()).to(mean).reshape(mean.shape) if mean.dim() else 0.0
            weight[identity] = (mean + NOISE * spread * noise).to(weight.dtype)


def _noise(token: str, width: int) -> "torch.Tensor":
    """Standard normal numbers [width] that follow from the token's text."""
    import torch

    seed = int.from_bytes(hashlib.sha256(token.encode()).digest()[:7], "big")
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))
