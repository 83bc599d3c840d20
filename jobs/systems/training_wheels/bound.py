"""What an experiment of this system needs, checked before anything is asked, and upper bounds on its work."""

from cluster.errors import BadInput
from cluster.models.directory import check_model_directory
from cluster.models.identity import pinned
from cluster.models.loading import ModelSource, load_tokenizer
from jobs.experiment.arms.training_wheels import WheelsArm
from jobs.experiment.schema import Experiment
from jobs.experiment.students import Student
from jobs.experiment.teachers import ModelTeacher
from jobs.run.run import Planned
from jobs.systems.record import Bound
from jobs.systems.training_wheels.paths import wheels_of


def arms_of(e: Experiment) -> list[WheelsArm]:
    return [arm for arm in e.arms if isinstance(arm, WheelsArm)]


def check(e: Experiment, questions: int) -> None:
    """Refuse what cannot work.

    Raises:
        BadInput: says what, and what to do.
    """
    if e.evaluate.metric != "accuracy":
        raise BadInput(
            "arms of kind training_wheels are judged by their answers",
            f"evaluate.metric {e.evaluate.metric}",
            "accuracy",
            "set evaluate.metric=accuracy, or leave these arms out",
        )
    served = [s.name for s in e.students if s.server is not None]
    if served:
        raise BadInput(
            "an engine cannot stop at a call and let the teacher write a token",
            f"students with a server: {', '.join(served)}",
            "students that actors host",
            "remove their server for this experiment",
        )

    teachers = {t.name: t for t in e.teachers if isinstance(t, ModelTeacher)}
    for student in e.students:
        for name in dict.fromkeys(arm.teacher for arm in arms_of(e)):
            check_same_vocabulary(student, teachers[name])


def check_same_vocabulary(student: Student, teacher: ModelTeacher) -> None:
    """Refuse a teacher whose tokens are not the student's: its distribution is read at the student's tokens.

    Raises:
        BadInput: names both.
    """
    vocabularies = []
    for model in (student, teacher):
        check_model_directory(model.path)
        source = pinned(ModelSource(model.path, model.dtype, model.revision, model.trust_remote_code))
        vocabularies.append(load_tokenizer(source).get_vocab())
    own, other = vocabularies
    differing = sorted(set(own.items()) ^ set(other.items()))
    if differing:
        raise BadInput(
            f"student {student.name} and teacher {teacher.name} do not share their vocabulary",
            f"{len(differing):,} tokens differ, such as {differing[0][0]!r}",
            "a teacher with the student's tokenizer, because its probabilities are read at student's tokens",
            "choose a teacher of the same family, or another kind of arm",
        )


def bound(e: Experiment, questions: int) -> Bound:
    """The most answers of teachers, rollouts and evaluated answers."""
    wheels, arms = wheels_of(e), arms_of(e)
    place = f"{e.placement.evaluate_workers} × ({e.placement.needs}), both models"
    students, tokens = len(e.students), f"of at most {wheels.max_new_tokens:,} tokens"
    teachers = len({arm.teacher for arm in arms})
    asked = min(questions, wheels.cloning_questions) * wheels.samples * students * teachers
    practising = [arm for arm in arms if arm.variant == "wheels"]
    each = min(questions, wheels.questions) * len(wheels.budgets)
    rolled = each * (e.rounds - 1) * len(practising) * e.seeds * students
    work = [Planned("ask the teacher", "in all rounds", f"at most {asked:,} answers {tokens}", place)]
    if rolled:
        work.append(Planned("roll out", "in all rounds", f"at most {rolled:,} rollouts {tokens}", place))
    return Bound(work, wheels.steps_per_round)
