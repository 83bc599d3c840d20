"""What a training step minimises, one objective a file."""

from training.objectives.cross_entropy import WEIGHTED_CROSS_ENTROPY
from training.objectives.objective import Objective

OBJECTIVES: dict[str, Objective] = {"weighted_cross_entropy": WEIGHTED_CROSS_ENTROPY}
