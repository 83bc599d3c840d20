"""Decides which shortcuts a model allows. Each is compared with the plain way on this model when it is
loaded.

Shortcuts make scoring, training and sampling several times faster, but they depend on how an architecture is
built. On another architecture they silently give other numbers. So the code that loads a model asks for a
proof of the shortcuts that it uses. A shortcut that fails on the probe is not used, and `Proof.lines` reports
that in the log, the manifest and the report. The plain way is in `cluster.models.plain_way`. The tests are in
`proof_of_passes` and `proof_of_decoding`. The verdict and the vocabulary projection are here.

Shapes: T tokens, D width, V vocabulary.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch

from cluster.errors import BadInput
from cluster.models.decoding import Way
from cluster.models.plain_way import (
    CAUSAL_TOLERANCE,
    TOLERANCE,
    attempt,
    describe_difference,
    difference,
    one_row,
    plain_hidden,
    plain_hidden_of_all,
    plain_logits,
    plain_logits_of_all,
    probe_texts,
)
from cluster.models.proof_of_decoding import fastest_decoding
from cluster.models.proof_of_passes import (
    check_checkpointing,
    check_packing,
    check_padding,
    check_shared_training,
    check_sharing,
)
from cluster.models.vocabulary import Head, decoder_of

# What is done instead of a shortcut that is not used.
INSTEAD = {
    "projection": "logits come from the model's own forward",
    "padding": "one text per pass",
    "packing": "one padded row per example",
    "sharing": "every answer is computed with its own copy of the prompt",
    "shared prompts": "every text of a group is trained with its own copy of the prompt",
    "batched decoding": "answers are sampled one at a time",
    "cached decoding": "every token is sampled by computing its whole text again",
    "checkpointing": "all activations of a pass are kept",
}
SCORING = ("projection", "padding", "sharing")
TRAINING = ("projection", "padding", "packing")
SAMPLING = ("batched decoding",)


@dataclass(frozen=True)
class Proof:
    """The result of proving one model's shortcuts.

    Attributes:
        head: its vocabulary projection.
        fallbacks: shortcut -> why it is not used.
        way: the way of decoding when sampling.
    """

    head: Head
    fallbacks: dict[str, str] = field(default_factory=dict)
    way: Way = "batched"

    def allows(self, shortcut: str) -> bool:
        return shortcut not in self.fallbacks

    @property
    def lines(self) -> dict[str, str]:
        """Shortcut -> what is done instead, and why."""
        return {name: f"{INSTEAD[name]}: {reason}" for name, reason in self.fallbacks.items()}


def prove(model: Any, shortcuts: Collection[str]) -> Proof:
    """Compare these shortcuts with the plain way, on a model in evaluation mode.

    Raises:
        BadInput: the model does not run on text alone, looks at tokens that come later, or gives numbers that
            are not finite.
    """
    probe = probe_texts(model)
    expected = plain_logits_of_all(model, probe)
    _refuse_later_tokens(model, probe[0], expected[0])
    fallbacks: dict[str, str] = {}
    head = (
        _prove_head(model, probe[1], expected[1], fallbacks)
        if "projection" in shortcuts
        else Head(model, expected[0].shape[1])
    )
    hidden = plain_hidden_of_all(model, probe) if {"padding", "packing", "sharing"} & set(shortcuts) else []
    tests: dict[str, Callable[[], str | None]] = {
        "padding": lambda: check_padding(model, probe, hidden),
        "packing": lambda: check_packing(model, probe, hidden),
        "sharing": lambda: check_sharing(model),
        "shared prompts": lambda: check_shared_training(model),
        "checkpointing": lambda: check_checkpointing(model, probe[1]),
    }
    for name, test in tests.items():
        reason = attempt(test) if name in shortcuts else None
        if reason is not None:
            fallbacks[name] = reason
    way: Way = fastest_decoding(model, probe, fallbacks) if "batched decoding" in shortcuts else "batched"
    return Proof(head, fallbacks, way)


def _refuse_later_tokens(model: Any, text: list[int], expected_TV: torch.Tensor) -> None:
    """Refuse a model in which a later token changes the logits of earlier ones.

    Raises:
        BadInput: it is no causal language model.
    """
    cut = len(text) - 4
    other = [*text[:cut], *reversed(text[:4])]
    changed = difference(plain_logits(model, other)[:cut].float(), expected_TV[:cut].float())
    tolerance = CAUSAL_TOLERANCE if model.dtype == torch.float32 else TOLERANCE[model.dtype]
    if changed > tolerance:
        kind = model.config.model_type
        raise BadInput(
            f"a {kind} looks at tokens that come later",
            f"earlier logits change by {changed:.2g}",
            "a causal language model",
            "use another model; some need is_decoder: true in their config.json",
        )


def _prove_head(model: Any, text: list[int], expected_TV: torch.Tensor, fallbacks: dict[str, str]) -> Head:
    """The projection as one matrix, otherwise through the model's own forward.

    Raises:
        BadInput: neither gives the model's own logits.
    """

    def test(head: Head) -> Callable[[], str | None]:
        return lambda: describe_difference(
            model, [head.logits(plain_hidden(model, text))], [expected_TV], "logits"
        )

    size = expected_TV.shape[1]
    reason = attempt(test(Head(model, size)))
    if reason is None:
        return Head(model, size)
    own: list[Head] = []

    def test_own() -> str | None:
        own.append(Head(model, size, decoder_of(model)(input_ids=one_row(model, text[:2]), use_cache=False)))
        return test(own[0])()

    problem = attempt(test_own)
    if problem is not None:
        kind = model.config.model_type
        raise BadInput(
            f"the vocabulary projection of {kind} cannot be found",
            problem,
            "the model's own logits",
            "use another model",
        )
    fallbacks["projection"] = reason
    return own[0]
