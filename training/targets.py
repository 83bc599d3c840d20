"""Settings of objectives that train a student towards a frozen teacher's distributions: the target and the
divergence, with their checks. It does not import torch, because experiment files are checked with it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cluster.errors import BadInput

if TYPE_CHECKING:
    from training.objectives.objective import Objective

DivergenceName = Literal["forward", "reverse", "jsd", "sampled"]
ClipName = Literal["none", "one_sided", "two_sided", "per_token"]
SMALLEST_BETA = 0.05
SAMPLED = "sampled"  # the array of log-probabilities that tokens had when they were sampled


@dataclass(frozen=True)
class DivergenceSettings:
    """The name of a divergence, and its parameters.

    `forward` is KL(target || student), `reverse` KL(student || target), `jsd` the generalised Jensen-Shannon
    divergence, where `beta` is the target's weight. Beta 0 and 1 are the forward and reverse KL themselves,
    as in TRL and OPSD. That is not the limit: for small beta the divergence is about beta times the forward
    KL. `sampled` is the policy-gradient form of reverse KL at the token that was sampled.

    `clip` cuts entries before they are summed over the vocabulary: `one_sided` from above at `threshold`,
    `two_sided` to [-threshold, threshold]; a cut entry has no gradient. `per_token` (ours) weighs a token by
    min(1, threshold / its divergence). `temperature` divides both sides' logits. `top_k` keeps the student's
    k likeliest entries and makes all others one bucket.
    """

    divergence: DivergenceName = "forward"
    beta: float = 0.5
    clip: ClipName = "two_sided"
    threshold: float = 0.05
    temperature: float = 1.0
    top_k: int | None = None
    allow_small_beta: bool = False


def check_divergence(s: DivergenceSettings) -> None:
    """Refuse what does not fit together.

    Raises:
        BadInput: a number is out of range, the divergence has no entries to clip, or beta is so small that
            almost nothing is learned.
    """
    for name, value, low, high in (
        ("beta", s.beta, 0.0, 1.0),
        ("threshold", s.threshold, 0.0, float("inf")),
        ("temperature", s.temperature, 0.0, float("inf")),
    ):
        if not low <= value <= high or (name != "beta" and value in (0, float("inf"))):
            raise BadInput(f"{name} is out of range", value, f"{low:g} to {high:g}", "")
    if s.divergence == "jsd" and 0 < s.beta < SMALLEST_BETA and not s.allow_small_beta:
        raise BadInput(
            "with so small a beta the jsd is about beta times the forward KL, so almost nothing is learned",
            f"beta {s.beta:g}",
            f"0 (the forward KL itself) or {SMALLEST_BETA:g} and more",
            "set allow_small_beta to use it all the same",
        )
    if s.divergence == "sampled" and (s.clip in ("one_sided", "two_sided") or s.top_k is not None):
        raise BadInput(
            "the sampled divergence looks at one token: it has no entries to cut or to keep",
            f"clip {s.clip}, top_k {s.top_k}",
            "clip none or per_token, no top_k",
            "choose another divergence or clip",
        )
    if s.top_k is not None and s.top_k < 1:
        raise BadInput("top_k is out of range", s.top_k, "1 or more", "")


@dataclass(frozen=True)
class SteeredSettings:
    """A target, and the divergence of the student from it.

    Attributes:
        base, plus, minus: names of states. Without `plus` the target is the base alone.
        most: the largest lambda. It is reached after `ramp` optimizer steps, counted over all rounds on one
            optimizer. With a ramp of 0 it is reached at once.
    """

    name: ClassVar[str] = "steered"

    base: str = "h0"
    plus: str | None = None
    minus: str | None = None
    most: float = 3.0
    ramp: int = 50
    divergence: DivergenceSettings = DivergenceSettings()

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of the states that the target reads."""
        return tuple(dict.fromkeys(n for n in (self.base, self.plus, self.minus) if n is not None))

    def make(self) -> "Objective":
        """The objective under these settings."""
        from training.objectives.steered import steered

        return steered(self)


def check_steered(settings: SteeredSettings) -> None:
    """Refuse settings that do not fit together.

    Raises:
        BadInput: with what does not.
    """
    if (settings.plus is None) != (settings.minus is None):
        raise BadInput(
            "a target with a direction needs plus and minus",
            f"{settings.plus} - {settings.minus}",
            "both",
            "",
        )
    if settings.most < 0 or settings.ramp < 0:
        raise BadInput("lambda's maximum and ramp", f"{settings.most}, {settings.ramp}", "0 or more", "")
    check_divergence(settings.divergence)


def lambda_at(step: int, settings: SteeredSettings) -> float:
    """Lambda of a 0-based optimizer step.

    >>> lambda_at(0, SteeredSettings()), lambda_at(49, SteeredSettings()), lambda_at(500, SteeredSettings())
    (0.06, 3.0, 3.0)
    """
    return settings.most * (min(1.0, (step + 1) / settings.ramp) if settings.ramp else 1.0)
