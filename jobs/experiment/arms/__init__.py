"""The ways of teaching that an experiment compares: arms, of a kind for each system, each in a file here.

`ARMS` is the one place where a kind is entered. An arm's class names the module of its system, which is
imported when a run comes to it: an experiment can be read without any of them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import BaseModel, PlainValidator

from jobs.experiment.arms.ogls_sd import OglsArm
from jobs.experiment.arms.select import SelectArm
from jobs.experiment.section import Section
from jobs.experiment.teachers import Teacher

ARMS: dict[str, type[Section]] = {"select": SelectArm, "ogls_sd": OglsArm}


class Arm(Protocol):
    """What an arm of any kind is, beside a section of the experiment's file.

    Attributes:
        system: the module whose `SYSTEM` teaches by it (`jobs.systems.record`).
    """

    system: ClassVar[str]

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    def check(self, teachers: Sequence[Teacher]) -> None:
        """Refuse what does not fit to the experiment's teachers, as a ValueError."""


def arm_of(given: Any) -> Any:
    """The arm that a mapping describes, by its kind; one that is read already is itself.

    Raises:
        ValueError: no such kind, or what pydantic finds in it.
    """
    if isinstance(given, BaseModel):
        return given
    if not isinstance(given, dict):
        raise ValueError("an arm is a mapping, such as {name: random, rule: random}")
    kind = given.get("kind", "select")
    if kind not in ARMS:
        raise ValueError(f"{kind!r} is no kind of arm; known are {', '.join(ARMS)}")
    return ARMS[kind].model_validate(given)


AnyArm = Annotated[Arm, PlainValidator(arm_of)]
