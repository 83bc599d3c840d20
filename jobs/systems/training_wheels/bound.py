"""What an experiment of this system needs, checked before anything is asked, and upper bounds on its work."""

from typing import Any

from cluster.errors import BadInput, Unrenderable
from cluster.models.added_tokens import add_to_tokenizer
from cluster.models.directory import check_model_directory
from cluster.models.identity import pinned
from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.messages import plain
from cluster.models.rendering import Renderer
from jobs.experiment.arms.training_wheels import WheelsArm
from jobs.experiment.schema import Experiment
from jobs.experiment.students import Student
from jobs.experiment.teachers import ModelTeacher
from jobs.experiment.wheels import Wheels
from jobs.run.run import Planned
from jobs.systems.record import Bound
from jobs.systems.training_wheels.judging import CAPPED, CONTROLS, LIKELY
from jobs.systems.training_wheels.paths import wheels_of
from training.batches import count_steps


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
    if e.rounds < 2 and any(arm.variant == "wheels" for arm in arms_of(e)):
        raise BadInput(
            "round 1 of arms of kind training_wheels only clones",
            f"rounds: {e.rounds}",
            "2 or more; from round 2 on the student learns from its own answers",
            "set rounds, or variant: cloning",
        )
    teachers = {t.name: t for t in e.teachers if isinstance(t, ModelTeacher)}
    asked = {name: tokenizer_of(teachers[name]) for name in dict.fromkeys(arm.teacher for arm in arms_of(e))}
    for student in e.students:
        own = tokenizer_of(student)
        for name, other in asked.items():
            check_same_vocabulary(student.name, own, name, other)
        check_renders(student, own, wheels_of(e))


def tokenizer_of(model: Student | ModelTeacher) -> Any:
    """A model's tokenizer.

    Raises:
        BadInput: the model does not exist.
    """
    check_model_directory(model.path)
    return load_tokenizer(
        pinned(ModelSource(model.path, model.dtype, model.revision, model.trust_remote_code))
    )


def check_renders(student: Student, tokenizer: Any, wheels: Wheels) -> None:
    """Refuse a student that cannot be told a budget, or whose tokenizer cannot get the help token.

    Raises:
        BadInput: names the student.
    """
    renderer = Renderer(tokenizer, student.chat_template, template_kwargs=student.chat_template_kwargs)
    try:
        for budget in wheels.budgets:
            renderer.prompt(plain("1 + 1?").told(wheels.told(budget)))
    except Unrenderable as error:
        raise BadInput(
            f"student {student.name} cannot be told a budget",
            error,
            "a template with a place for a system text",
            "give the student another chat_template",
        ) from error
    add_to_tokenizer(tokenizer, [wheels.help])


def check_same_vocabulary(student: str, own: Any, teacher: str, other: Any) -> None:
    """Refuse a teacher whose tokens are not the student's: its distribution is read at the student's tokens.

    Args:
        own, other: their tokenizers.

    Raises:
        BadInput: names both.
    """
    differing = sorted(set(own.get_vocab().items()) ^ set(other.get_vocab().items()))
    if differing:
        raise BadInput(
            f"student {student} and teacher {teacher} do not share their vocabulary",
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
    asked = min(questions, max(wheels.cloning_questions, (e.rounds - 1) * wheels.questions))
    asked *= wheels.samples * students * teachers
    practising = [arm for arm in arms if arm.variant == "wheels"]
    each = min(questions, wheels.questions) * len(wheels.budgets)
    rolled = each * (e.rounds - 1) * len(practising) * e.seeds * students
    work = [Planned("ask the teacher", "in all rounds", f"at most {asked:,} answers {tokens}", place)]
    if rolled:
        most = f"at most {rolled:,} rollouts {tokens}"
        work.append(Planned("roll out with calls", "in all rounds", most, place))
    paths = len(arms) * students * e.seeds
    work.append(
        Planned("evaluate with calls", "in all rounds", told_conditions(wheels, e.rounds, paths), place)
    )
    first = count_steps(asked, e.train.batch_size, e.train.epochs, e.train.steps)
    return Bound(work, max(wheels.steps_per_round, first))


def told_conditions(wheels: Wheels, rounds: int, paths: int) -> str:
    """How many evaluations with calls there are at most, in words."""
    budgets = len(wheels.budgets) - 1
    count = paths * (
        rounds * budgets + (len((CAPPED, LIKELY, *CONTROLS)) * budgets if wheels.controls else 0)
    )
    return f"at most {count:,} evaluations"
