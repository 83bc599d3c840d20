"""The settings of fine-tuning, their checks, and the DeepSpeed configuration that follows from them."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from cluster.errors import BadInput

OWNED_BY_THE_LOOP = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "managed_gradient_accumulation",
    "scheduler",
)
SECTIONS = ("zero_optimization", "bf16", "fp16", "optimizer", "scheduler", "activation_checkpointing", "aio")
# The number of passes of a step follows from its examples, and the loop decides where a step ends. DeepSpeed
# needs a number all the same. With a number above 1 it keeps what several passes need.
ACCUMULATION = 2


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters: rank `r`, scale `alpha / r`, on `target_modules` (peft's word for all linear layers
    by default).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"


@dataclass(frozen=True)
class TrainSettings:
    """How a student is fine-tuned. `batch_size` counts examples per optimizer step over all workers, and
    `micro_batch_tokens` the tokens of one forward pass of one worker.

    `steps` takes the place of `epochs`. So does `tokens`, a budget of answer tokens for each round: the
    number of whole steps is the nearest to it, so arms whose answers differ in length learn from equally much
    text. `checkpoint_every` counts steps. `deepspeed` has further keys of DeepSpeed's configuration.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    learning_rate: float = 1e-3
    epochs: float = 3.0
    steps: int | None = None
    tokens: int | None = None
    batch_size: int = 32
    micro_batch_tokens: int = 4096
    warmup_ratio: float = 0.05
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.01
    gradient_clipping: float = 1.0
    gradient_checkpointing: bool = False
    lora: LoraSettings | None = None
    zero_stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every: int = 200
    deepspeed: dict[str, Any] = field(default_factory=dict)


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that cannot be trained with, before anything starts.

    Raises:
        BadInput: a number out of range, a DeepSpeed key that the loop computes itself, or gradients that
            would be added up in bfloat16.
    """
    for name, low in (
        ("batch_size", 1),
        ("micro_batch_tokens", 1),
        ("checkpoint_every", 1),
        ("steps", 1),
        ("tokens", 1),
        ("epochs", 0),
        ("learning_rate", 0),
    ):
        value = getattr(settings, name)
        if value is not None and (not value >= low or (low == 0 and value == 0) or value == math.inf):
            raise BadInput(
                f"train.{name} is out of range", value, f"{'more than' if low == 0 else 'at least'} {low}", ""
            )
    for name, least, most in (
        ("warmup_ratio", 0.0, 1.0),
        ("weight_decay", 0.0, math.inf),
        ("gradient_clipping", 0.0, math.inf),
    ):
        value = getattr(settings, name)
        if not least <= value <= most or value == math.inf:
            expected = "0 to 1" if most == 1 else "0 or more"
            raise BadInput(f"train.{name} is out of range", value, expected, "")
    if settings.lora is not None and (settings.lora.r < 1 or settings.lora.alpha <= 0):
        got = f"r {settings.lora.r}, alpha {settings.lora.alpha}"
        raise BadInput("train.lora is out of range", got, "r of 1 or more, alpha of more than 0", "")
    is_said = settings.steps is not None or settings.tokens is not None
    if is_said and settings.epochs != TrainSettings.epochs:
        raise BadInput(
            "train.epochs and train.steps or tokens both say how long to train",
            f"{settings.epochs} epochs",
            "one of them",
            "leave out the other",
        )
    if settings.tokens is not None and settings.steps is not None:
        raise BadInput(
            "train.steps and train.tokens both say how long to train",
            f"{settings.steps} steps, {settings.tokens:,} tokens",
            "one of them",
            "leave out the other",
        )
    for key in SECTIONS:
        own = settings.deepspeed.get(key)
        if key in settings.deepspeed and not isinstance(own, dict):
            raise BadInput(f"train.deepspeed.{key} is no section", own, "a mapping, such as {}", "")
    stage = settings.deepspeed.get("zero_optimization", {}).get("stage", settings.zero_stage)
    if stage not in (0, 1, 2, 3):
        raise BadInput("train.deepspeed.zero_optimization.stage is out of range", stage, "0, 1, 2 or 3", "")
    if settings.deepspeed.get("fp16", {}).get("enabled") and settings.precision == "bfloat16":
        raise BadInput("fp16 and bfloat16 at once", "train.deepspeed.fp16", "one of them", "")
    clipping = settings.deepspeed.get("gradient_clipping", 0.0)
    if clipping != "auto" and (not isinstance(clipping, int | float) or not 0 <= clipping < math.inf):
        raise BadInput("train.deepspeed.gradient_clipping is out of range", clipping, "0 or more", "")
    for key in OWNED_BY_THE_LOOP:
        if settings.deepspeed.get(key, "auto") != "auto":
            raise BadInput(
                f"train.deepspeed sets {key}",
                settings.deepspeed[key],
                '"auto"',
                "it follows from batch_size, micro_batch_tokens and the schedule",
            )
    config = engine_config(settings, 1)
    if config["bf16"]["enabled"] and config["zero_optimization"]["stage"] == 0:
        raise BadInput(
            "ZeRO stage 0 adds gradients up in bfloat16, which loses small ones",
            "train.zero_stage 0 with bfloat16",
            "stage 1, 2 or 3, which add up in float32",
            "set train.zero_stage=1",
        )


def identity_of(settings: TrainSettings) -> dict[str, Any]:
    """The settings as plain values, for an identity. The budget of tokens is left out: it has been turned
    into steps before.
    """
    return {n: value for n, value in asdict(settings).items() if n != "tokens" or value is not None}


def with_steps(settings: TrainSettings, answer_tokens: float) -> TrainSettings:
    """The settings with the number of steps that is nearest to their budget of tokens, at least one.

    Args:
        answer_tokens: the mean number of answer tokens of an example.

    >>> with_steps(TrainSettings(tokens=64_000, batch_size=32), 50.0).steps
    40
    """
    if settings.tokens is None:
        return settings
    steps = max(1, round(settings.tokens / (settings.batch_size * answer_tokens)))
    return replace(settings, steps=steps, tokens=None)


def learning_rate_at(step: int, total: int, settings: TrainSettings) -> float:
    """The learning rate of a 0-based step: linear warm-up, then the schedule down to zero at `total`."""
    warmup = max(1, round(total * settings.warmup_ratio))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    factor = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}[
        settings.schedule
    ]
    return settings.learning_rate * factor


def engine_config(settings: TrainSettings, workers: int) -> dict[str, Any]:
    """The DeepSpeed configuration: ours, with the user's section laid over it untouched except for its "auto"
    values.

    Gradients of bfloat16 weights are added up in float32 over the passes of a step. A user's optimizer
    replaces ours with all its parameters, but the learning rate of every step is ours.
    """
    half = settings.precision == "bfloat16"
    ours: dict[str, Any] = {
        "train_batch_size": ACCUMULATION * workers,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": ACCUMULATION,
        "gradient_clipping": settings.gradient_clipping,
        "zero_optimization": {"stage": settings.zero_stage},
        "bf16": {"enabled": half},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": settings.learning_rate,
                "weight_decay": settings.weight_decay,
                "torch_adam": True,
            },
        },
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if half:
        ours["data_types"] = {"grad_accum_dtype": "fp32"}
    theirs = settings.deepspeed.get("optimizer")
    if isinstance(theirs, dict) and theirs.get("type", "AdamW") != "AdamW":
        ours["optimizer"] = {"params": {"lr": settings.learning_rate}}
        ours["zero_allow_untested_optimizer"] = True
    return _overlay(ours, settings.deepspeed)


def _overlay(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    result = dict(ours)
    for key, value in theirs.items():
        if value == "auto":
            continue
        both = isinstance(value, dict) and isinstance(ours.get(key), dict)
        result[key] = _overlay(ours[key], value) if both else value
    return result
