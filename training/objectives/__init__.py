"""The objectives that a training step minimises, one a file."""

from collections.abc import Callable

from training.objectives.cross_entropy import WEIGHTED_CROSS_ENTROPY
from training.objectives.objective import Objective
from training.objectives.steered import steered
from training.settings import TrainSettings
from training.targets import SteeredSettings

OBJECTIVES: dict[str, Callable[[TrainSettings], Objective]] = {
    "weighted_cross_entropy": lambda settings: WEIGHTED_CROSS_ENTROPY,
    "steered": lambda settings: steered(settings.steered or SteeredSettings()),
}


def objective_of(settings: TrainSettings) -> Objective:
    """The objective that a training's settings name."""
    return OBJECTIVES[settings.objective](settings)
