"""What an experiment with routed arms needs, checked before anything is asked, and upper bounds on its
work.
"""

from cluster.errors import BadInput
from jobs.experiment.arms.route import RouteArm
from jobs.experiment.schema import Experiment
from jobs.run.run import Planned
from jobs.systems.record import Bound
from training.batches import count_steps


def arms_of(e: Experiment) -> list[RouteArm]:
    return [arm for arm in e.arms if isinstance(arm, RouteArm)]


def check(e: Experiment, questions: int) -> None:
    """Refuse what cannot work.

    Raises:
        BadInput: a first part that leaves nothing to choose, or a second reason to ask again.
    """
    for arm in arms_of(e):
        if arm.first >= questions:
            raise BadInput(
                f"arm {arm.name} asks all teachers the first questions, and no other question is left",
                f"first: {arm.first}, {questions:,} questions",
                "fewer first questions than there are questions",
                f"set first to {max(20, questions // 4)}" if questions > 20 else "give more questions",
            )
    if e.generate.until_verified:
        raise BadInput(
            "arms of kind route ask a teacher once, and generate.until_verified asks it again",
            f"until_verified: {e.generate.until_verified}",
            "one of the two",
            "remove it, and set tries on the arm: the next teacher is asked where an answer is wrong",
        )


def bound(e: Experiment, questions: int) -> Bound:
    """The most answers that are asked for and scored, for all arms, students and seeds together."""
    most = 0
    for arm in arms_of(e):
        first = min(arm.first, questions)
        tries = min(arm.tries, len(e.teachers))
        most += (first * len(e.teachers) + (questions - first) * tries) * e.generate.samples
    most *= len(e.students) * e.seeds
    every = questions * len(e.teachers) * e.generate.samples  # what two paths ask is asked once
    work = [
        Planned("generate", "for routed arms", f"at most {min(most, every):,} answers", "see placement"),
        Planned(
            "score",
            "for routed arms",
            f"at most {min(most, every * len(e.students)):,} answers",
            f"{e.placement.score_workers} × ({e.placement.needs})",
        ),
    ]
    return Bound(work, count_steps(questions, e.train.batch_size, e.train.epochs, e.train.steps))
