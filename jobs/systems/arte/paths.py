"""What a path of ARTE needs, and the labels of what paths share."""

from jobs.experiment.arms.arte import ALIGNED, SCORED, ArteArm
from jobs.experiment.elicit import Elicit
from jobs.experiment.schema import Experiment
from jobs.results.outcome import StudentPath
from jobs.systems.paths import arm_as


def arm_of(path: StudentPath) -> ArteArm:
    """Return a path's arm, which must be of this system.

    Raises:
        TypeError: the arm belongs to another system.
    """
    return arm_as(path, ArteArm)


def elicit_of(e: Experiment) -> Elicit:
    """The section that says what teachers write. `check` refuses experiments without it.

    Raises:
        TypeError: there is none.
    """
    if e.elicit is None:
        raise TypeError("the experiment has no section elicit")
    return e.elicit


def is_aligned(path: StudentPath) -> bool:
    """Whether a path learns from an aligned teacher."""
    return arm_of(path).variant in ALIGNED


def needs_scores(path: StudentPath) -> bool:
    """Whether a path needs a student's preference."""
    return arm_of(path).variant in SCORED


def preferring(path: StudentPath) -> str:
    """The name of the student whose preference counts."""
    return arm_of(path).aligned_to or path.student


def signal_label(path: StudentPath) -> str:
    """The label of a path's preference. Paths with the same label share it."""
    arm = arm_of(path)
    how: list[str] = [arm.signal, *([arm.items] if arm.signal == "icl" else [])]
    if arm.signal == "scas":
        how.append(f"lambda {arm.scas_lambda:g}")
    return f"{preferring(path)} by {' '.join(how)}"


def aligned_label(path: StudentPath, shares_material: bool = False) -> str:
    """The label of the material that a path learns from.

    Args:
        shares_material: the label of the aligned teacher instead, which several kinds of material share.
    """
    variant = arm_of(path).variant
    way = variant if variant in ("shuffled", "chosen_sft") else "arte"
    aligned = f"{way}, {signal_label(path)}, seed {path.seed}"
    return aligned if shares_material or variant == way else f"{variant}, {aligned}"
