"""Arms of kind `ogls_sd`: the student learns from its own rollouts, steered by right and wrong ones."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from cluster.errors import BadInput
from jobs.experiment.section import Name, Section
from jobs.experiment.teachers import Teacher, check_teacher
from training.targets import ClipName, DivergenceName, DivergenceSettings, SteeredSettings, check_steered

OglsTarget = Literal[
    "ogls",
    "lambda_zero",
    "positive_only",
    "positive_mean",
    "opsd",
    "opsd_incorrect",
    "shuffled",
    "sdpo",
    "gkd",
    "rejection_sampling",
]


SDPO_TOP_K, SDPO_TEACHER_RATE = 100, 0.05  # as in its published code


class OglsArm(Section):
    """The student learns from its own rollouts (OGLS-SD, arXiv 2605.12400, and related methods). The section
    `rollouts` says how rollouts are sampled, for all such arms together.

    `target` is the distribution that each token is trained towards, see `docs/ogls_sd.md`. By default
    `divergence` is `forward` and `clip` is `two_sided`; with the targets `sdpo` and `gkd` they are `jsd` and
    `none`, and `sdpo` has `top_k` 100. `lambda` is the greatest strength of steering, reached after `ramp`
    optimizer steps. `exclude_self` removes a rollout and its copies from its own wrong pool. `honest` tells
    the teacher that a wrong attempt is wrong. `normalise` gives equal weight to all tokens, or to all rows.
    `tail_weight` trains on the ends of short right rollouts by cross-entropy (v2 of the paper). `teacher`
    names the teacher of target `gkd`. `teacher_rate` makes the teacher a moving average of the student's
    weights, which moves by this much at each step (0.05 in SDPO's program, and the default of target `sdpo`);
    at 0 it is the student before training.
    """

    system: ClassVar[str] = "jobs.systems.ogls_sd"

    kind: Literal["ogls_sd"]
    name: Name
    target: OglsTarget = "ogls"
    most_lambda: float = Field(3.0, ge=0, alias="lambda")
    ramp: int = Field(50, ge=0)
    divergence: DivergenceName | None = None
    beta: float = Field(0.5, ge=0, le=1)
    clip: ClipName | None = None
    threshold: float = Field(0.05, gt=0)
    temperature: float = Field(1.0, gt=0)
    top_k: int | None = Field(None, ge=1)
    allow_small_beta: bool = False
    exclude_self: bool = False
    honest: bool = False
    normalise: Literal["token", "row"] = "token"
    tail_weight: float = Field(0.0, ge=0)
    tail_tokens: int = Field(128, ge=1)
    teacher: str | None = None
    teacher_rate: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: Any) -> Any:
        """Write the defaults for target `sdpo` into the settings. So the experiment that a run saves shows
        them. A saved one has all settings; one that has no `teacher_rate` was run with a teacher that stayed.
        """
        if not isinstance(given, Mapping) or given.get("target") != "sdpo":
            return given
        rate = {} if "tail_tokens" in given else {"teacher_rate": SDPO_TEACHER_RATE}
        top_k = {} if given.get("divergence") == "sampled" else {"top_k": SDPO_TOP_K}
        return {**rate, **top_k, **given}

    @model_validator(mode="after")
    def _fits(self) -> "OglsArm":
        if (self.target == "gkd") != (self.teacher is not None):
            raise ValueError("target gkd needs the name of a hosted teacher, and no other target takes one")
        for name, readers in READERS.items():
            setting = type(self).model_fields[name]
            if self.target not in readers and getattr(self, name) != setting.default:
                key = setting.alias or name
                raise ValueError(f"target {self.target} reads no {key}; it is for {', '.join(readers)}")
        try:
            if self.steered is not None:
                check_steered(self.steered)
        except BadInput as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def steered(self) -> SteeredSettings | None:
        """The objective's settings. None if the arm learns from rollouts by cross-entropy."""
        if self.target == "rejection_sampling":
            return None
        base, plus, minus = TARGETS[self.target]
        usual: tuple[DivergenceName, ClipName] = (
            ("jsd", "none") if self.target in ("sdpo", "gkd") else ("forward", "two_sided")
        )
        clip = self.clip or ("none" if self.divergence == "sampled" else usual[1])
        about = (self.divergence or usual[0], self.beta, clip, self.threshold, self.temperature, self.top_k)
        divergence = DivergenceSettings(*about, self.allow_small_beta)
        return SteeredSettings(base, plus, minus, self.most_lambda, self.ramp, divergence)

    def check(self, teachers: Sequence[Teacher]) -> None:
        """Check that the experiment hosts the arm's teacher. It has to be hosted, because its distributions
        are read.

        Raises:
            ValueError: it is not hosted. Names the teachers that are.
        """
        check_teacher(self.name, self.teacher, teachers, is_hosted=True)


# The arrays that each target is made from: base, plus, minus. lambda times (plus - minus) is added to base.
TARGETS: dict[str, tuple[str, str | None, str | None]] = {
    "ogls": ("h0", "h_pos", "h_neg"),
    "shuffled": ("h0", "h_pos", "h_neg"),
    "lambda_zero": ("h0", None, None),
    "positive_only": ("h0", "h_pos", "h0"),
    "positive_mean": ("h_pos", None, None),
    "opsd": ("h_s", None, None),
    "opsd_incorrect": ("h_s", None, None),
    "sdpo": ("h_pos", None, None),
    "gkd": ("h0", None, None),
}

# The targets that use each setting, for settings that not all targets use. Groups of targets: with a
# divergence, with a direction, with pools, and with wrong rollouts only.
STEERED = tuple(TARGETS)
DIRECTED = tuple(target for target, (_, plus, _) in TARGETS.items() if plus is not None)
POOLED = tuple(target for target in TARGETS if target not in ("sdpo", "gkd"))
OF_WRONG = tuple(target for target in POOLED if target != "opsd")
OF_ITSELF = tuple(target for target in STEERED if target != "gkd")  # their teacher is the student as it was
DIVERGENCE = ("divergence", "beta", "clip", "threshold", "temperature", "top_k", "allow_small_beta")
READERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(DIVERGENCE, STEERED),
    **dict.fromkeys(("most_lambda", "ramp"), DIRECTED),
    **dict.fromkeys(("exclude_self", "honest"), POOLED),
    **dict.fromkeys(("tail_weight", "tail_tokens"), OF_WRONG),
    "teacher_rate": OF_ITSELF,
}
