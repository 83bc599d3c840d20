"""Whether an engine serves the weights that it should: its log-probabilities against those of transformers
alone (the plain way).
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from cluster.errors import BadInput
from cluster.memory import free_memory
from cluster.models.loading import ModelSource, load_model
from cluster.models.plain_way import plain_logits
from jobs.stages.hosted import Draw
from jobs.stages.states import ModelState

# The largest mean and single difference of log-probabilities, in nats, that counts as rounding.
AGREES = {"float32": (0.01, 0.05), "bfloat16": (0.1, 0.5), "float16": (0.1, 0.5)}

# A prompt, and what an engine made of it: tokens, how it ended, the tokens' log-probabilities.
Completed = tuple[Sequence[int], tuple[int, ...], str, tuple[float, ...]]


def draws_to_compare(draw: Draw) -> list[Draw]:
    """How the probes are drawn: greedily, and as the answers are if their log-probabilities are kept. Some
    engines give log-probabilities after temperature, which greedy answers do not show.
    """
    greedy = replace(draw, temperature=0.0, top_p=1.0)
    return [greedy, draw] if draw.logprobs and draw.temperature > 0 else [greedy]


def check_agreement(state: ModelState, said: Sequence[Completed], temperature: float) -> None:
    """Compare what an engine said with the plain way. With an adapter, the engine also has to be nearer to
    the weights with it than to those without.

    Args:
        temperature: at which the engine was asked.

    Raises:
        BadInput: the engine serves another model.
    """
    mean, most = differences(state.source, said)
    limits = AGREES[state.source.dtype]
    if not (mean <= limits[0] and most <= limits[1]):
        raise serves_another(
            state,
            f"log-probabilities at temperature {temperature:g} that differ by {mean:.3g} nats on average, "
            f"{most:.3g} at most",
            f"at most {limits[0]:g} and {limits[1]:g}, which is rounding",
        )
    if state.source.adapter is not None:
        without, _ = differences(replace(state.source, adapter=None), said)
        if not mean <= without:
            told = f"without its adapter {without:.3g} nats, with it {mean:.3g}"
            raise serves_another(state, told, "an engine that is nearer to the trained weights")


def differences(source: ModelSource, said: Sequence[Completed]) -> tuple[float, float]:
    """The mean and the largest difference in nats between an engine's log-probabilities and the plain way's.
    NaN if the engine said nothing.
    """
    model, found = load_model(source), list[float]()
    for ids, tokens, _, logprobs in said:
        plainly = plain_logits(model, [*ids, *tokens]).log_softmax(-1)
        for k, (token, told) in enumerate(zip(tokens, logprobs, strict=True)):
            found.append(abs(float(plainly[len(ids) - 1 + k, token]) - told))
    del model
    free_memory()
    return (sum(found) / len(found), max(found)) if found else (math.nan, math.nan)


def serves_another(state: ModelState, got: str, expected: str) -> BadInput:
    """The error of an engine that does not serve the weights of a state."""
    return BadInput(
        f"the engine of {state.name} serves another model than its weights",
        got,
        expected,
        "its dtype or quantisation is another one, it kept old weights, or it gives log-probabilities after "
        "temperature (SGLang: SGLANG_RETURN_ORIGINAL_LOGPROB=1 in server.env)",
    )
