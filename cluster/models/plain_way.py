"""The plain way of a model, with which its shortcuts are compared: one text alone in a pass of the model's
own forward, with no padding, no cache and nothing shared.

The probe's texts are short, so they do not show differences that only occur in long texts.

Shapes: T tokens, D width, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from cluster.errors import BadInput
from cluster.halving import breaks_device
from cluster.models.vocabulary import decoder_of

LENGTHS = (13, 21, 17)  # of the probe's texts: together more than any convolution or small chunk spans
# The largest relative error of a token's vector that counts as rounding. In half precision it holds for three
# tokens in four, because a router of experts may decide a near tie differently.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
CAUSAL_TOLERANCE = 1e-5


def probe_texts(model: Any) -> list[list[int]]:
    """Three texts of tokens that are not special in the configuration."""
    config = model.config.get_text_config()
    special = set[Any]()
    for name, value in config.to_dict().items():
        if name.endswith("token_id"):
            special |= set(value) if isinstance(value, list) else {value}
    words = [i for i in range(min(997, config.vocab_size)) if i not in special]
    numbers = [words[(7 * i * i + 3 * i + 1) % len(words)] for i in range(sum(LENGTHS))]
    a, b = LENGTHS[0], LENGTHS[0] + LENGTHS[1]
    return [numbers[:a], numbers[a:b], numbers[b:]]


def one_row(model: Any, text: list[int]) -> torch.Tensor:
    """A text's ids [1, T] on the model's device."""
    return torch.tensor([list(text)], device=model.device)


@torch.no_grad()
def plain_logits(model: Any, text: list[int]) -> torch.Tensor:
    """Logits [T, V] in float32 of one text, the plain way."""
    logits: torch.Tensor = model(input_ids=one_row(model, text), use_cache=False).logits
    return logits[0].float()


def plain_logits_of_all(model: Any, probe: Sequence[list[int]]) -> list[torch.Tensor]:
    """Logits [T, V] of every text.

    Raises:
        BadInput: the model does not run on text alone, or gives numbers that are not finite.
    """
    name = model.config.model_type
    try:
        expected = [plain_logits(model, text) for text in probe]
    except Exception as error:
        if breaks_device(error) or isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise BadInput(
            f"a {name} does not run on text alone", problem, "a causal language model", "use another model"
        ) from error
    if not all(bool(torch.isfinite(logits).all()) for logits in expected):
        raise BadInput(
            f"this {name} gives logits that are not finite", "", "numbers", "check its weights and dtype"
        )
    return expected


def plain_hidden(model: Any, text: list[int]) -> torch.Tensor:
    """Hidden states [T, D] before the vocabulary projection, the plain way."""
    output = decoder_of(model)(input_ids=one_row(model, text), use_cache=False)
    hidden: torch.Tensor = output.last_hidden_state
    return hidden[0]


@torch.no_grad()
def plain_hidden_of_all(model: Any, probe: Sequence[list[int]]) -> list[torch.Tensor]:
    """Hidden states [T, D] of every text."""
    return [plain_hidden(model, text) for text in probe]


def difference(got_TD: torch.Tensor, expected_TD: torch.Tensor) -> float:
    """The relative error of tokens' vectors: the largest one in float32, otherwise the one that three tokens
    in four stay below.
    """
    if got_TD.shape != expected_TD.shape:
        return math.inf
    got, expected = got_TD.double(), expected_TD.double()
    error_T = (got - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-12)
    error_T = error_T.nan_to_num(nan=math.inf)
    return float(error_T.max() if got_TD.dtype == torch.float32 else error_T.quantile(0.75))


def describe_difference(
    model: Any, got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], what: str, times: float = 1.0
) -> str | None:
    """None if these vectors are the expected ones up to rounding. Otherwise a text that says how much they
    differ.

    Args:
        what: a plural name of the vectors, for the message.
        times: how many times the usual tolerance counts as rounding.
    """
    largest = max(
        difference(a.to(model.dtype), b.to(model.dtype)) for a, b in zip(got, expected, strict=True)
    )
    return (
        None
        if largest <= times * TOLERANCE[model.dtype]
        else f"{what} differ from the plain way's by {largest:.2g}"
    )


def attempt(test: Callable[[], str | None]) -> str | None:
    """The reason that a test returns, or the exception that it raises. A model's code may raise anything."""
    try:
        with torch.no_grad():
            return test()
    except Exception as error:
        if breaks_device(error) or isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
