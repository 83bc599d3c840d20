"""The arms that an experiment can compare. Each kind of arm has a file here and belongs to one system.

To add a kind, enter it in `ARMS`. An arm's class names the module of its system. That module is imported only
when a run needs it, so an experiment can be read without it.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import BaseModel, PlainValidator

from jobs.experiment.arms.arte import ArteArm
from jobs.experiment.arms.ogls_sd import OglsArm
from jobs.experiment.arms.route import RouteArm
from jobs.experiment.arms.select import SelectArm
from jobs.experiment.arms.training_wheels import WheelsArm
from jobs.experiment.section import Section
from jobs.experiment.teachers import Teacher

ARMS: dict[str, type[Section]] = {
    "select": SelectArm,
    "ogls_sd": OglsArm,
    "arte": ArteArm,
    "training_wheels": WheelsArm,
    "route": RouteArm,
}


class Arm(Protocol):
    """The interface of every kind of arm. An arm is also a section of the experiment's file.

    Attributes:
        system: the name of the module that holds the arm's system as `SYSTEM` (`jobs.systems.record`).
    """

    system: ClassVar[str]

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    def check(self, teachers: Sequence[Teacher]) -> None:
        """Check that the arm fits the experiment's teachers.

        Raises:
            ValueError: it does not fit.
        """


def arm_of(given: Any) -> Any:
    """Read an arm from a mapping, by its kind. An arm that was already read is returned as it is.

    Raises:
        ValueError: the kind is unknown, or pydantic refuses the mapping.
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
