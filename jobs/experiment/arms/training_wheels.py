"""Arms of kind `training_wheels`: a student learns by value learning, and when to ask its teacher for a
token."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from cluster.errors import BadInput
from jobs.experiment.section import Name, Section
from jobs.experiment.teachers import ModelTeacher, Teacher
from training.path_settings import PathSettings, ValueKind, check_paths


class WheelsArm(Section):
    """After the idea of Training Wheels (arXiv 2502.17717). The decision process, the loss, the prices, both
    stages and all settings are derived by us from path consistency learning. The section `wheels` says how
    the student practises.

    `variant`: `wheels`, or `cloning`, which goes on with cloning for as many steps. `teacher` names the
    hosted teacher, which must share the student's vocabulary. `positions`: where cloned answers call,
    `weakest` (where the student finds the teacher's token least likely) or `random`. `reward_of_call`:
    `zero`, or `logprob`, the teacher's log-probability of its token. `alpha`, `gamma`, `lengths`, `value`,
    `slow`, `clip`: see `training/path_settings.py`. `cloning`: the weight of cloning in later rounds, which
    goes down to 0 at their last step.
    """

    system: ClassVar[str] = "jobs.systems.training_wheels"

    kind: Literal["training_wheels"]
    name: Name
    teacher: str
    variant: Literal["wheels", "cloning"] = "wheels"
    positions: Literal["weakest", "random"] = "weakest"
    reward_of_call: Literal["zero", "logprob"] = "zero"
    alpha: float = Field(1.0, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lengths: tuple[int, ...] = (1, 4)
    value: ValueKind = "head"
    slow: float = 0.995
    clip: float = Field(20.0, gt=0)
    cloning: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "WheelsArm":
        if self.variant == "cloning":
            for name in ("reward_of_call", "alpha", "gamma", "lengths", "value", "slow", "clip", "cloning"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"variant cloning reads no {name}")
        if self.alpha != 1 and self.value == "logits":
            raise ValueError("value logits needs alpha 1, because rollouts are drawn at temperature 1")
        try:
            check_paths(self.paths(None, 0))
        except BadInput as error:
            raise ValueError(str(error)) from error
        return self

    def paths(self, help_id: int | None, cloning_steps: int) -> PathSettings:
        """The objective's settings in later rounds."""
        if self.variant == "cloning":
            return cloned(help_id)
        return PathSettings(
            alpha=self.alpha,
            gamma=self.gamma,
            lengths=self.lengths,
            value=self.value,
            slow=self.slow,
            clip=self.clip,
            cloning=self.cloning,
            cloning_steps=cloning_steps,
            help_id=help_id,
        )

    def check(self, teachers: Sequence[Teacher]) -> None:
        """Check that the experiment hosts the arm's teacher in actors of its own.

        Raises:
            ValueError: it does not. Says why it has to.
        """
        own = next((t for t in teachers if t.name == self.teacher), None)
        if own is None:
            known = ", ".join(sorted(t.name for t in teachers)) or "none"
            raise ValueError(
                f"arm {self.name}: {self.teacher} is no teacher of the experiment; known are {known}"
            )
        if not isinstance(own, ModelTeacher):
            raise ValueError(
                f"arm {self.name}: teacher {own.name} is of kind {own.kind}, which gives no distribution "
                "over its next token at a place that the student asks for; host it with kind: model"
            )


def cloned(help_id: int | None) -> PathSettings:
    """The objective of cloning alone: cross-entropy on decisions."""
    return PathSettings(value="zero", consistency=0.0, cloning=1.0, help_id=help_id)
