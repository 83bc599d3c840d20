"""Any run, top to bottom: look at everything first, ask and verify, evaluate the students as they are, then
let each system teach them on its arms.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cluster.errors import BadInput
from cluster.placement import Node, check_fits
from cluster.session import refuse_more_than_here
from jobs.experiment.questions import Fields
from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import FileTeacher, ModelTeacher, ServerTeacher
from jobs.files.columns import value_at
from jobs.files.overlap import overlaps
from jobs.files.questions import Question, ReadQuestions, read_questions, take_rows
from jobs.files.rows import check_source
from jobs.miniature.world import build_world, resolve
from jobs.results.outcome import Data, Outcome, Start
from jobs.run.run import Run
from jobs.run.tables import Table
from jobs.stages.check import Checkable, Checks, check_checks, true_solutions
from jobs.stages.evaluate import evaluate_students, parts_line
from jobs.stages.examples import RARE
from jobs.stages.judge import judge_owner
from jobs.stages.secret import read_key
from jobs.stages.states import ModelState, check_student, first_state
from jobs.stages.teachers import Harvest, build_pool, endpoints_of
from jobs.stages.unverified import nothing_verified
from jobs.systems.paths import judging_of, paths_of
from jobs.systems.record import systems_of
from selection.verification import check_settings
from training.trainer import check_train_room


@dataclass(frozen=True)
class Looked:
    """What a look at the files tells before anything is asked or made.

    Attributes:
        experiment: with the paths of a world's models in place of their names.
        hosted: the teachers that are hosted here, by name.
    """

    experiment: Experiment
    questions: dict[str, Question]
    held_out: list[Question]
    hosted: dict[str, ModelState]
    students: dict[str, ModelState]
    data: Data


def run_pipeline(run: Run, experiment: Experiment) -> Outcome:
    """Run an experiment from questions to evaluated students; finished stages are read from the store."""
    return teach(run, begin(run, look(run, experiment)))


def look(run: Run, experiment: Experiment) -> Looked:
    """Read the questions, and look at every teacher, student and setting before the first is asked.

    Raises:
        Unmade: in a plan, the miniature world does not exist yet.
    """
    check_placement(run, experiment)
    e = experiment
    if e.miniature is not None:
        e = resolve(e, build_world(run, e.miniature, e.placement))
    questions, held_out, data = load_questions(e, run.terminal.say)
    for system in systems_of(e).values():
        system.check(e, len(questions))
    hosted = check_teachers(e)
    if (
        e.judge is not None
        and run.mode == "make"
        and not Table(run.store.root, judge_owner(e.judge)).is_there
    ):
        read_key(e.judge)  # before teachers are paid for answers that cannot be judged
    for teacher, owner in endpoints_of(harvest_of(e)) if run.mode == "make" else ():
        if not Table(run.store.root, owner).is_there:
            read_key(teacher)  # before anything is evaluated
    for line in unread_sections(e):
        run.terminal.say(line)
    check_engines(e)
    if line := longer_than_judged(e):
        run.terminal.say(line)
    students = {s.name: first_state(s) for s in e.students}
    for student in students.values():
        check_student(student, e.score.target_layer, e.train.lora)
    return Looked(e, questions, held_out, hosted, students, data)


READ_BY_ARMS = {"elicit": "arte", "rollouts": "ogls_sd", "wheels": "training_wheels"}


def unread_sections(e: Experiment) -> list[str]:
    """Lines about sections of the file that nothing in it reads."""
    kinds = {arm.kind for arm in e.arms}
    lines = [
        f"nothing reads the section {name}: it is for arms of kind {kind}, and there is none"
        for name, kind in READ_BY_ARMS.items()
        if getattr(e, name) is not None and kind not in kinds
    ]
    fields = e.questions.train_fields.method, e.questions.evaluate_fields.method
    if e.judge is not None and e.verify.method != "judge" and not any(fields):
        lines.append("nothing reads the section judge: no question is checked by method judge")
    return lines


def begin(run: Run, looked: Looked) -> Start:
    """Evaluate the students as they are, ask the teachers, verify: what every arm and every sweep's trial
    shares.

    Raises:
        Unmade: in a plan, the pool is not known yet.
    """
    e, questions, students = looked.experiment, looked.questions, looked.students
    before = evaluate_students(run, students, looked.held_out, judging_of(e), e.placement)
    harvest = harvest_of(e)
    pool = build_pool(run, harvest, looked.hosted, questions, looked.data.refused)
    if harvest.teachers and not pool.by_state.get("verified"):
        raise nothing_verified(pool)
    return Start(e, questions, looked.held_out, pool, students, before, looked.data, looked.hosted)


def longer_than_judged(e: Experiment) -> str:
    """A line if teachers may write longer answers than students may be judged by: such a run ends after its
    teachers were paid, if it chooses many of them. Empty otherwise.
    """
    written, judged = e.generate.max_new_tokens, e.evaluate.max_new_tokens
    asked = [t for t in e.teachers if not isinstance(t, FileTeacher)]
    is_tolerated = e.evaluate.metric != "accuracy" or e.evaluate.allow_truncation
    if not asked or is_tolerated or written <= judged:
        return ""
    return (
        f"beware: teachers may write {written:,} tokens (generate.max_new_tokens) and students {judged:,} "
        f"(evaluate.max_new_tokens): the run ends if more than {RARE:.0%} of chosen answers are longer"
    )


def harvest_of(e: Experiment) -> Harvest:
    """What an experiment asks of teachers before anything else: nothing where no arm learns from answers."""
    takes_pool = any(system.takes_pool for system in systems_of(e).values())
    teachers = e.teachers if takes_pool else ()
    return Harvest(teachers, e.generate, Checks(e.verify, e.judge), e.seed, e.questions.skip_broken_lines)


def teach(run: Run, start: Start) -> Outcome:
    """Let each system teach the students on its arms."""
    outcome = Outcome(start, paths_of(start.experiment))
    systems = systems_of(start.experiment)
    for kind, system in systems.items():
        system.teach(run, start, outcome, [path for path in outcome.paths if path.arm.kind == kind])
    if run.mode != "plan":
        outcome.sections += [one for system in systems.values() for one in system.sections(outcome)]
    return outcome


def check_teachers(experiment: Experiment) -> dict[str, ModelState]:
    """Look at every teacher before any is asked; returns those that are hosted here, by name.

    Raises:
        BadInput: no model or no file there, or a template that cannot be used for training.
    """
    hosted = {}
    for teacher in experiment.teachers:
        if isinstance(teacher, ModelTeacher | ServerTeacher):
            hosted[teacher.name] = first_state(teacher)
        elif isinstance(teacher, FileTeacher):
            check_source(teacher.path, f"answers of teacher {teacher.name}")
    return hosted


def check_engines(e: Experiment) -> None:
    """Refuse an engine that would lose what its student learns.

    Raises:
        BadInput: merged into weights of half precision, most of an adapter would be rounded away.
    """
    for student in e.students:
        server = student.server
        is_half = student.dtype != "float32" and e.train.lora is not None
        if server is not None and is_half and not server.loads_adapters:
            raise BadInput(
                f"the engine of student {student.name} would load its adapter merged into {student.dtype}",
                server.command[:200],
                "an engine that keeps the adapter beside the weights",
                "add --enable-lora to the command, and VLLM_ALLOW_RUNTIME_LORA_UPDATING to server.env",
            )


def check_placement(run: Run, experiment: Experiment) -> None:
    """Refuse before anything starts what a local run can never place. A cluster is looked at when it is
    connected, also before anything starts.

    Raises:
        NoRoom: with what was asked for and what there is.
    """
    e, room = experiment, run.host.room
    if run.mode != "make":
        return
    if room is None:
        run.host.check_when_up(lambda nodes: check_room(e, nodes))
        return
    if e.ray.num_cpus is not None:
        refuse_more_than_here(e.ray)
    check_room(e, [Node(room)])


def check_room(e: Experiment, nodes: Sequence[Node]) -> None:
    """Refuse what these nodes can never place, the training too, which comes last.

    Raises:
        NoRoom: with what was asked for and what there is.
    """
    wanted = {"the student": e.placement.needs}
    wanted |= {
        f"teacher {t.name}": t.needs for t in e.teachers if isinstance(t, ModelTeacher | ServerTeacher)
    }
    wanted |= {f"the engine of student {s.name}": s.server.needs_for(s.path) for s in e.students if s.server}
    for name, needs in wanted.items():
        check_fits(name, needs, nodes)
    workers = e.placement.train_workers * e.placement.train_lanes
    check_train_room(workers, e.placement.train_needs, nodes)


def with_solution(question: Question, field: str, keeps_row: bool) -> Question:
    """A question with the worked solution that its row has; nothing else hangs on the row then."""
    found = value_at(json.loads(question.row), field) if question.row else None
    solution = found.strip() if isinstance(found, str) else ""
    return replace(question, solution=solution, row=question.row if keeps_row else "")


def load_questions(
    experiment: Experiment, say: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, Question], list[Question], Data]:
    """The training questions by id, the held-out ones, and what was seen of their files.

    Args:
        say: told what was detected.

    Raises:
        BadInput: a defect of either file, or held-out questions that are also trained on.
    """
    e, files = experiment, experiment.questions
    checks = Checks(e.verify, e.judge)

    def read(path: str, fields: Fields, needs_reference: bool) -> ReadQuestions:
        found = read_questions(
            path,
            fields,
            system=files.system,
            on_broken=say if files.skip_broken_lines else None,
            need_reference=needs_reference and fields.method is None,
            keep_rows=checks.reads_rows or (path == files.train and shows_solutions),
            to_learn=path == files.train,
            check=(lambda question: None) if for_loss and path != files.train else Checkable(checks),
        )
        for line in [str(found), *found.notes]:
            say(line)
        return found

    check_settings(checks.verify)
    for_loss = e.evaluate.metric == "loss"
    shows_solutions = e.drawn.solution_field is not None
    train = read(files.train, files.train_fields, checks.needs_reference())
    held_out = read(files.evaluate, files.evaluate_fields, for_loss or checks.needs_reference())
    asked = take_rows(train.questions, files.train_rows)
    if shows_solutions:
        asked = [with_solution(q, str(e.drawn.solution_field), checks.reads_rows) for q in asked]
    held = take_rows(held_out.questions, files.evaluate_rows)
    twice = overlaps(asked, held)
    if twice and not files.allow_overlap:
        raise BadInput(
            "a held-out question is also trained on, or nearly",
            f"{len(twice):,} of {len(held):,}, such as {twice[0].held_out} beside {twice[0].train}: "
            f"{twice[0].text[:60]!r}",
            "separate questions",
            "remove them from one of the files, or set questions.allow_overlap to go on with them",
        )
    check_checks(checks, [*asked, *(() if for_loss else held)])
    if e.evaluate.loss_on is not None:
        say(parts_line(held, e.evaluate.loss_on))
    asked = asked[: e.limit]
    if shows_solutions:
        asked = true_solutions(asked, checks, say)
    data = Data((str(train), str(held_out)), train.refused, len(twice))
    return {q.id: q for q in asked}, held[: e.limit], data
