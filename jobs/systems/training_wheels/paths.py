"""What a path of this system is: its arm, its labels, and the token with which its student calls."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.experiment.arms.training_wheels import WheelsArm
from jobs.experiment.schema import Experiment
from jobs.experiment.wheels import Wheels
from jobs.results.outcome import Start, StudentPath
from jobs.run.store import Stage
from jobs.stages.states import ModelState
from jobs.systems.paths import arm_as


@dataclass(frozen=True)
class Learner:
    """A student on its path: its state, the price of a call under each budget, and its last training."""

    state: ModelState
    prices: Mapping[int, float]
    before: Stage | None = None


def arm_of(path: StudentPath) -> WheelsArm:
    """A path's arm, which must be of this system.

    Raises:
        TypeError: the arm belongs to another system.
    """
    return arm_as(path, WheelsArm)


def teacher_of(start: Start, path: StudentPath) -> ModelState:
    """The teacher that a path's student may ask."""
    return start.hosted[arm_of(path).teacher]


def wheels_of(e: Experiment) -> Wheels:
    """How students practise."""
    return e.wheels or Wheels()


def label_of(path: StudentPath, number: int) -> str:
    return f"{path.label} round {number}"


def help_of(state: ModelState, wheels: Wheels) -> int:
    """The id of the token that calls."""
    return int(state.renderer().tokenizer.convert_tokens_to_ids(wheels.help))
