"""What a training minimises, as plain settings that travel with it. Torch is imported when the objective is
made, in a train worker.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from training.settings import TrainSettings, identity_of

if TYPE_CHECKING:
    from training.objectives.objective import Objective


class ObjectiveSettings(Protocol):
    """Settings of an objective: a frozen dataclass of plain values.

    Attributes:
        name: of the objective; it stands in identities of trainings.
    """

    name: ClassVar[str]

    def make(self) -> "Objective":
        """The objective under these settings."""


@dataclass(frozen=True)
class WeightedCrossEntropy:
    """Cross-entropy on answer tokens, weighted by example: supervised fine-tuning."""

    name: ClassVar[str] = "weighted_cross_entropy"

    def make(self) -> "Objective":
        """The objective."""
        from training.objectives.cross_entropy import WEIGHTED_CROSS_ENTROPY

        return WEIGHTED_CROSS_ENTROPY


CROSS_ENTROPY = WeightedCrossEntropy()


def training_identity(settings: TrainSettings, objective: ObjectiveSettings) -> dict[str, Any]:
    """A training's settings and its objective's as plain values, for an identity."""
    own = asdict(objective)  # type: ignore[call-overload]  # which takes a protocol for no dataclass
    return {**identity_of(settings), "objective": objective.name, **({objective.name: own} if own else {})}
