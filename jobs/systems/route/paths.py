"""What a path of this system is."""

from jobs.experiment.arms.route import RouteArm
from jobs.results.outcome import StudentPath


def arm_of(path: StudentPath) -> RouteArm:
    """Return a path's arm, which must be of this system.

    Raises:
        TypeError: the arm belongs to another system.
    """
    if not isinstance(path.arm, RouteArm):
        raise TypeError(f"{path.label} asks all teachers alike")
    return path.arm
