"""The teachers of arms of kind `ogls_sd`: what they read, and how they follow their students over rounds."""

from collections.abc import Mapping, Sequence

from cluster.placement import Needs
from jobs.experiment.arms.ogls_sd import OglsArm
from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import ModelTeacher
from jobs.results.outcome import Start, StudentPath
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.run.views import View
from jobs.stages.states import ModelState
from jobs.systems.ogls_sd.comprehension import refuse_unmoved
from jobs.systems.ogls_sd.moving import Move, move, share_of
from jobs.systems.ogls_sd.steer import Steering, steer
from jobs.systems.ogls_sd.usable import ONE_PASS, Decided, arrays_of, request_of
from jobs.systems.paths import arm_as


def arm_of(path: StudentPath) -> OglsArm:
    """Return a path's arm, which must be of this system.

    Raises:
        TypeError: the arm belongs to another system.
    """
    return arm_as(path, OglsArm)


def teacher_of(start: Start, path: StudentPath) -> ModelState:
    """The model that reads a path's rollouts of the first round: the student before any training, or for
    target `gkd` another model.
    """
    arm = arm_of(path)
    return start.students[path.student] if arm.teacher is None else start.hosted[arm.teacher]


def needs_of(e: Experiment, arm: OglsArm) -> Needs:
    """The resources of an actor that holds an arm's teacher."""
    own = (t.needs for t in e.teachers if isinstance(t, ModelTeacher) and t.name == arm.teacher)
    return next(own, e.placement.needs)


def read_by_teachers(
    run: Run,
    start: Start,
    number: int,
    decided: Mapping[StudentPath, Decided],
    teachers: Mapping[StudentPath, ModelState],
) -> dict[StudentPath, View]:
    """Let the teachers read the rollouts that the arms use. Arms whose targets need the same contexts share
    one pass.
    """
    e, sharing, shared = start.experiment, dict[str, list[StudentPath]](), set[str]()
    for path, own in decided.items():
        arm, teacher, rolled = arm_of(path), teachers[path], own.decision.rolled
        if arm.steered is None or not own.readings:
            continue
        kind = ("view", arm.exclude_self) if arm.target in ONE_PASS else (arm.target,)
        key = digest([rolled.id, rolled.state.id, teacher.id, kind, arm.honest])
        sharing.setdefault(key, []).append(path)
        if arm.target in ONE_PASS:
            shared.add(key)
    wanted = {
        key: steering_of(start, number, paths, decided, teachers[paths[0]]) for key, paths in sharing.items()
    }
    views = dict(zip(wanted, steer(run, list(wanted.values()), e.drawn, e.placement), strict=True))
    for key, view in views.items():
        if number == 1 and view.is_finished and key in shared:
            refuse_unmoved(wanted[key].label, view, e)
    return {path: views[key] for key, paths in sharing.items() for path in paths if views[key].is_finished}


def steering_of(
    start: Start,
    number: int,
    paths: Sequence[StudentPath],
    decided: Mapping[StudentPath, Decided],
    teacher: ModelState,
) -> Steering:
    """What a teacher reads for paths that share one pass."""
    first = paths[0]
    arm = arm_of(first)
    what = "contexts" if arm.target in ONE_PASS else f"{arm.target} by {teacher.name}"
    return Steering(
        f"{first.label} round {number}, {what}",
        teacher,
        arm.honest,
        arrays_of(arm),
        request_of(decided[path] for path in paths),
        needs_of(start.experiment, arm),
    )


def followed(
    run: Run,
    e: Experiment,
    teachers: Mapping[StudentPath, ModelState],
    students: Mapping[StudentPath, ModelState],
    number: int,
) -> dict[StudentPath, ModelState]:
    """The teachers of these students after a round. Those of arms with a `teacher_rate` move towards their
    students. In a plan, those that do not exist yet are left out.
    """
    moves = {
        path: Move(
            f"{path.label} round {number}",
            teachers[path],
            student,
            share_of(rate, e.drawn.steps_per_round),
        )
        for path, student in students.items()
        if (rate := arm_of(path).teacher_rate) > 0
    }
    moved = dict(zip(moves, move(run, list(moves.values()), e.placement), strict=True))
    found = {path: moved.get(path, teachers[path]) for path in students}
    return {path: teacher for path, teacher in found.items() if teacher is not None}
