"""Any run, top to bottom: look at everything first, ask and verify, score and evaluate the students as they
are, then let a system teach them.
"""

from cluster.errors import BadInput
from cluster.placement import Node, check_fits
from cluster.session import refuse_more_than_here
from cluster.storage import local_copy
from jobs.experiment.schema import ModelTeacher, QuestionSet
from jobs.files.datasets import OnBroken, Question, read_questions, take_rows
from jobs.miniature.world import build_world, resolve
from jobs.results.outcome import Outcome, Start
from jobs.run.context import Context
from jobs.stages.ask import check_teachers
from jobs.stages.evaluate import evaluate_students
from jobs.stages.pool import build_pool
from jobs.stages.score import check_student, first_state, pool_rows, score_students
from jobs.stages.verify import check_verifier
from jobs.systems.paths import paths_of
from jobs.systems.scas import run_rounds
from training.trainer import check_train_room


def run_pipeline(context: Context) -> Outcome:
    """Run an experiment from questions to evaluated students; finished stages are read from the store."""
    start = begin(context)
    return run_rounds(context, start, paths_of(context.experiment))


def begin(context: Context) -> Start:
    """Ask the teachers, verify, and evaluate and score the students as they are: what every arm and every
    sweep's trial shares.
    """
    check_placement(context)
    if context.experiment.miniature is not None:
        world = build_world(context, context.experiment.miniature)
        context.experiment = resolve(context.experiment, world)
    e = context.experiment
    questions, held_out = load_questions(e.questions, e.limit, context.on_broken)
    students = {s.name: first_state(s) for s in e.students}
    check_verifier(e.verify)
    check_teachers(context)
    for student in students.values():
        check_student(student, e.score)
    pool = build_pool(context, questions)
    before = evaluate_students(context, students, held_out)
    rows = pool_rows(pool.answers, questions)
    if not rows:
        states = (
            ", ".join(f"{n} {s}" for s, n in pool.answers["state"].value_counts().items())
            or "no answers at all"
        )
        raise BadInput(
            "no teacher has a verified answer to any question",
            states,
            "at least one",
            "check verify.method and verify.pattern",
        )
    score_students(context, list(students.values()), rows, pool.ids)
    return Start(questions, held_out, pool, rows, students, before)


def check_placement(context: Context) -> None:
    """Refuse before anything starts what a local run can never place; a cluster is asked when it is
    connected.

    Raises:
        NoRoom: with what was asked for and what there is.
    """
    e, room = context.experiment, context.host.room
    if room is None:
        return
    if e.ray.num_cpus is not None:
        refuse_more_than_here(e.ray)
    wanted = {"the student": context.needs}
    wanted |= {f"teacher {t.name}": t.needs for t in e.teachers if isinstance(t, ModelTeacher)}
    for name, needs in wanted.items():
        check_fits(name, needs, [Node(room)])
    check_train_room(e.placement.train_workers, e.placement.train_needs, [Node(room)])


def load_questions(
    files: QuestionSet, limit: int | None, on_broken: OnBroken
) -> tuple[dict[str, Question], list[Question]]:
    """The training questions by id, and the held-out ones; a held-out question that is also trained on is
    refused.

    Raises:
        BadInput: a defect of either file, or the same question in both.
    """
    train = read_questions(
        local_copy(files.train), files.train_fields, system=files.system, on_broken=on_broken
    )
    held_out = read_questions(
        local_copy(files.evaluate), files.evaluate_fields, system=files.system, on_broken=on_broken
    )
    train, held_out = take_rows(train, files.train_rows), take_rows(held_out, files.evaluate_rows)
    texts = {q.text.strip() for q in held_out}
    both = [q for q in train if q.text.strip() in texts]
    if both:
        raise BadInput(
            "a held-out question is also trained on",
            both[0].text[:60],
            "separate questions",
            f"remove {len(both)} from one of the files",
        )
    return {q.id: q for q in train[:limit]}, held_out[:limit]
