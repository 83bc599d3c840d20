"""Which of a model's shortcuts may be taken: each is compared with the plain way, on the model at hand, when
it is loaded.

The plain way is one text alone in a pass through the model's own forward: no padding, no cache, nothing
shared. Scoring, training and sampling are several times faster by shortcuts that lean on how an architecture
is built, and an architecture that is built otherwise gives other numbers without a word. So whoever loads a
model asks for a proof of the shortcuts it takes. A shortcut that fails on the probe is not taken;
`Proof.lines` says so in the log, the manifest and the report.

The probe is short: what only shows in long texts (chunks of attention) is refused by the name of the layers'
kind.

Shapes: T tokens, D width, V vocabulary.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cluster.errors import BadInput
from cluster.halving import breaks_device
from cluster.models.attention import windows_seen
from cluster.models.branching import Layout, Tree, forward, padded_rows, sharing
from cluster.models.decoding import CachedRows, Way, generate_alone
from cluster.models.vocabulary import Head, decoder_of

# What is done instead of a shortcut that is not taken.
INSTEAD = {
    "projection": "logits come from the model's own forward",
    "padding": "one text per pass",
    "packing": "one padded row per example",
    "sharing": "every answer is computed with its own copy of the prompt",
    "batched decoding": "answers are sampled one at a time",
    "cached decoding": "every token is sampled by computing its whole text again",
    "checkpointing": "all activations of a pass are kept",
}
SCORING = ("projection", "padding", "sharing")
TRAINING = ("projection", "padding", "packing")
SAMPLING = ("batched decoding",)
LENGTHS = (13, 21, 17)  # of the probe's texts: together more than any convolution or small chunk spans
# Largest relative error of a token's vector that counts as rounding. Half precision: of three tokens in four,
# because a router of experts may decide a near tie otherwise.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
CAUSAL_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Proof:
    """What was found out about one model.

    Attributes:
        head: its vocabulary projection.
        fallbacks: shortcut -> why it is not taken.
        way: how it is sampled from.
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
    probe = _probe(model)
    expected = _plain(model, probe)
    refuse_later_tokens(model, probe[0], expected[0])
    fallbacks: dict[str, str] = {}
    head = (
        _prove_head(model, probe[1], expected[1], fallbacks)
        if "projection" in shortcuts
        else Head(model, expected[0].shape[1])
    )
    hidden = _plain_hidden(model, probe) if {"padding", "packing", "sharing"} & set(shortcuts) else []
    tests: dict[str, Callable[[], str | None]] = {
        "padding": lambda: _test_padding(model, probe, hidden),
        "packing": lambda: _test_packing(model, probe, hidden),
        "sharing": lambda: _test_sharing(model),
        "checkpointing": lambda: _test_checkpointing(model, probe[1]),
    }
    for name, test in tests.items():
        reason = attempt(test) if name in shortcuts else None
        if reason is not None:
            fallbacks[name] = reason
    way: Way = _prove_decoding(model, probe, fallbacks) if "batched decoding" in shortcuts else "batched"
    return Proof(head, fallbacks, way)


def attempt(test: Callable[[], str | None]) -> str | None:
    """The reason that a test gives, or the exception that it ends with: a model's code may raise whatever its
    author chose.
    """
    try:
        with torch.no_grad():
            return test()
    except Exception as error:
        if breaks_device(error) or isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def difference(got_TD: torch.Tensor, expected_TD: torch.Tensor) -> float:
    """The relative error of a token's vector: the largest in float32, else that which three tokens in four
    stay below.
    """
    if got_TD.shape != expected_TD.shape:
        return math.inf
    got, expected = got_TD.double(), expected_TD.double()
    error_T = (got - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-12)
    error_T = error_T.nan_to_num(nan=math.inf)
    return float(error_T.max() if got_TD.dtype == torch.float32 else error_T.quantile(0.75))


def _differs(
    model: Any, got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], what: str
) -> str | None:
    largest = max(
        difference(a.to(model.dtype), b.to(model.dtype)) for a, b in zip(got, expected, strict=True)
    )
    return (
        None if largest <= TOLERANCE[model.dtype] else f"{what} differ from the plain way's by {largest:.2g}"
    )


def _probe(model: Any) -> list[list[int]]:
    """Three texts of tokens that no configuration calls special."""
    config = model.config.get_text_config()
    special = set[Any]()
    for name, value in config.to_dict().items():
        if name.endswith("token_id"):
            special |= set(value) if isinstance(value, list) else {value}
    words = [i for i in range(min(997, config.vocab_size)) if i not in special]
    numbers = [words[(7 * i * i + 3 * i + 1) % len(words)] for i in range(sum(LENGTHS))]
    a, b = LENGTHS[0], LENGTHS[0] + LENGTHS[1]
    return [numbers[:a], numbers[a:b], numbers[b:]]


def _ids(model: Any, text: list[int]) -> torch.Tensor:
    return torch.tensor([list(text)], device=model.device)


@torch.no_grad()
def plain_logits(model: Any, text: list[int]) -> torch.Tensor:
    """Logits [T, V] in float32 of one text, the plain way."""
    logits: torch.Tensor = model(input_ids=_ids(model, text), use_cache=False).logits
    return logits[0].float()


def _plain(model: Any, probe: Sequence[list[int]]) -> list[torch.Tensor]:
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


def refuse_later_tokens(model: Any, text: list[int], expected_TV: torch.Tensor) -> None:
    """Refuse a model in which a later token changes what is said of earlier ones.

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
    """The projection as one matrix, else through the model's own forward.

    Raises:
        BadInput: neither gives the model's own logits.
    """

    def test(head: Head) -> Callable[[], str | None]:
        return lambda: _differs(model, [head.logits(_hidden(model, text))], [expected_TV], "logits")

    size = expected_TV.shape[1]
    reason = attempt(test(Head(model, size)))
    if reason is None:
        return Head(model, size)
    own: list[Head] = []

    def test_own() -> str | None:
        own.append(Head(model, size, decoder_of(model)(input_ids=_ids(model, text[:2]), use_cache=False)))
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


def _hidden(model: Any, text: list[int]) -> torch.Tensor:
    """Hidden states [T, D] before the vocabulary projection, the plain way."""
    hidden: torch.Tensor = decoder_of(model)(input_ids=_ids(model, text), use_cache=False).last_hidden_state
    return hidden[0]


@torch.no_grad()
def _plain_hidden(model: Any, probe: Sequence[list[int]]) -> list[torch.Tensor]:
    return [_hidden(model, text) for text in probe]


def _test_padding(model: Any, probe: Sequence[list[int]], expected: Sequence[torch.Tensor]) -> str | None:
    inputs, real_BT = padded_rows(probe, model.device)
    flat = decoder_of(model)(**inputs, use_cache=False).last_hidden_state[real_BT]
    return _differs(model, flat.split([len(t) for t in probe]), expected, "padded rows' hidden states")


def _test_packing(model: Any, probe: Sequence[list[int]], expected: Sequence[torch.Tensor]) -> str | None:
    """Two rows as training packs them: two examples in one, an example and padding in the other."""
    kinds = layer_kinds(model) & {"chunked_attention"}
    if kinds:
        return f"its layers are of kind {', '.join(sorted(kinds))}, whose chunks begin where the row does"
    first, second, third = probe
    got = _packed(model, probe)
    reason = _differs(model, got, expected, "packed rows' hidden states")
    if reason is not None:
        return reason
    leaked = _packed(model, [list(reversed(first)), second, third])[1]
    tolerance = CAUSAL_TOLERANCE if model.dtype == torch.float32 else TOLERANCE[model.dtype] / 2
    changed = float(((leaked - got[1]).double().norm(dim=-1) / got[1].double().norm(dim=-1)).max())
    return (
        None
        if changed <= tolerance
        else f"an example changes by {changed:.2g} with the one before it in its row"
    )


def _packed(model: Any, texts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Hidden states of three texts: the first two in one row, the third in another with padding behind it."""
    a, b, c = (list(t) for t in texts)
    padding = len(a) + len(b) - len(c)
    ids = torch.tensor([a + b, c + [0] * padding], device=model.device)
    positions = [[*range(len(a)), *range(len(b))], [*range(len(c)), *range(padding)]]
    hidden = decoder_of(model)(
        input_ids=ids, position_ids=torch.tensor(positions, device=model.device), use_cache=False
    )
    rows = hidden.last_hidden_state
    return [rows[0, : len(a)], rows[0, len(a) :], rows[1, : len(c)]]


def _test_checkpointing(model: Any, text: list[int]) -> str | None:
    """The gradient that reaches the embeddings, through all layers in training mode, with and without
    gradient checkpointing.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        return "its layers do not support gradient checkpointing"
    was_training = model.training
    model.train()
    try:
        expected = _gradient_at_embeddings(model, text)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        got = _gradient_at_embeddings(model, text)
    finally:
        model.gradient_checkpointing_disable()
        model.train(was_training)
    return _differs(model, [got], [expected], "gradients")


def _gradient_at_embeddings(model: Any, text: list[int]) -> torch.Tensor:
    """[T, D]: the gradient of a number made of all hidden states with respect to the embedded tokens; the
    same dropout every time.
    """
    embedded: list[torch.Tensor] = []

    def catch(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = model.get_input_embeddings().register_forward_hook(catch)
    try:
        with (
            torch.enable_grad(),
            torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []),
        ):
            torch.manual_seed(0)
            hidden = _hidden(model, text).float()
            weights = torch.linspace(-1.0, 1.0, hidden.numel(), device=hidden.device).view_as(hidden)
            (gradient,) = torch.autograd.grad((hidden * weights).sum(), embedded[0])
    finally:
        handle.remove()
    return gradient[0]


def layer_kinds(model: Any) -> set[str]:
    """The kinds of layers that a model's configuration names."""
    return set(getattr(model.config.get_text_config(), "layer_types", None) or ())


def _test_sharing(model: Any) -> str | None:
    kinds = layer_kinds(model) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"its layers are of kind {', '.join(sorted(kinds))}"
    a, b, c = _probe(model)
    trees = [
        Tree(tuple(a), (tuple(b[:3]), tuple(b[4:8]))),
        Tree(tuple(c[:3]), (tuple(c[3:14]), tuple(b[8:17]))),
    ]
    layout = Layout(trees)
    with sharing(model, True), windows_seen() as windows:
        got = forward(model, layout, shared=True)
    if _looks_back_over_a_window(model) and not windows:
        return "its sliding window is in its mask only"
    alone = [
        _hidden(model, [*tree.prompt, *branch])[len(tree.prompt) :]
        for tree in trees
        for branch in tree.branches
    ]
    return _differs(model, [got[span] for spans in layout.branches for span in spans], alone, "hidden states")


def _looks_back_over_a_window(model: Any) -> bool:
    """Whether some layers of a model look back over a window only; a probe is too short to notice."""
    config = model.config.get_text_config()
    if not getattr(config, "sliding_window", None) or getattr(config, "use_sliding_window", True) is False:
        return False
    kinds = getattr(config, "layer_types", None)
    return kinds is None or "sliding_attention" in kinds


def _prove_decoding(model: Any, probe: Sequence[list[int]], fallbacks: dict[str, str]) -> Way:
    """The fastest way of decoding that gives the plain way's logits, token by token."""
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
    """Two rows forced along their texts, the first of which leaves on the way where rows can leave."""
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
    return _differs(
        model,
        [torch.stack(g) for g in got],
        [e[: len(g)] for e, g in zip(expected, got, strict=True)],
        "logits",
    )


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
    return _differs(model, got, expected, "logits")
