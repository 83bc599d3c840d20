"""The algorithm of a run, top to bottom: questions -> generate -> verify -> score -> select -> train ->
evaluate, per round.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from cluster.errors import BadInput
from cluster.placement import Node, check_fits
from cluster.seeds import derive_seed
from cluster.session import refuse_more_than_here
from cluster.storage import local_copy
from jobs.experiment.schema import EndpointTeacher, Experiment, FileTeacher, ModelTeacher, QuestionSet
from jobs.files.datasets import OnBroken, Question, read_questions, take_rows
from jobs.miniature.world import build_world, resolve
from jobs.results.outcome import AnswerPool, Outcome, Start, StudentPath
from jobs.run.context import Context
from jobs.run.store import Stage, digest_rows
from jobs.stages.answers import Ask, Asks
from jobs.stages.ask import ask_again, ask_waves, check_teachers, plan_wave
from jobs.stages.evaluate import evaluate_stage, evaluate_students
from jobs.stages.score import StudentState, check_student, first_state, pool_rows, score_students
from jobs.stages.select import select_answers
from jobs.stages.take import take_file
from jobs.stages.train import Training, train_epochs, train_students
from jobs.stages.verify import check_verifier, join_pool, verify_answers
from training.trainer import check_train_room

# Told of every evaluation on the way: rounds done (2.5 is half of the third), and each path's evaluation.
OnResult = Callable[[float, Mapping[StudentPath, Stage]], None]


def run_pipeline(context: Context) -> Outcome:
    """Run an experiment from questions to evaluated students; finished stages are read from the store."""
    start = prepare(context)
    return run_rounds(context, start, paths_of(context.experiment))


def prepare(context: Context) -> Start:
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


def run_rounds(
    context: Context,
    start: Start,
    paths: Sequence[StudentPath],
    on_result: OnResult | None = None,
    by_epoch: bool = False,
) -> Outcome:
    """Score, select, train and evaluate, round after round, for these paths.

    Args:
        on_result: called after every round; with `by_epoch` after every epoch of it, where training stops for
            the evaluation.
    """
    e, pool, students = context.experiment, start.pool, start.students
    outcome = Outcome(start.questions, start.held_out, pool, list(paths))
    outcome.evaluations.update({(name, 0): stage for name, stage in start.before.items()})
    now: dict[StudentPath, StudentState] = {path: students[path.student] for path in paths}
    for number in range(1, e.rounds + 1):
        scored = score_students(context, choosers(paths, now, students), start.rows, pool.ids)
        trainings = {}
        for path in paths:
            judge = now[path] if path.arm.cost is not None else students[path.student]
            label = f"{path.label} round {number}"
            seed = path_seed(e, path, number)
            chosen = select_answers(
                context,
                f"select {label}",
                path.arm,
                seed,
                pool.answers,
                list(start.questions),
                scored[judge.id],
                pool.accuracy,
            )
            trainings[path] = Training(f"train {label}", now[path], chosen, scored[judge.id], seed)
            outcome.scores[path.label, number], outcome.chosen[path.label, number] = scored[judge.id], chosen
        for epoch in range(1, math.ceil(e.train.epochs)) if by_epoch and e.train.steps is None else ():
            partly = train_epochs(context, list(trainings.values()), pool.answers, start.questions, epoch)
            known = {f"{p.label} round {number} epoch {epoch}": partly[t.label] for p, t in trainings.items()}
            if all(
                s.is_there or evaluate_stage(context, s, start.held_out).is_finished for s in known.values()
            ):
                found = evaluate_students(context, known, start.held_out)
                if on_result is not None:
                    on_result(
                        number - 1 + epoch / e.train.epochs, dict(zip(trainings, found.values(), strict=True))
                    )
        after = train_students(context, list(trainings.values()), pool.answers, start.questions)
        now = {path: after[t.label] for path, t in trainings.items()}
        results = evaluate_students(
            context, {f"{path.label} round {number}": now[path] for path in paths}, start.held_out
        )
        outcome.evaluations.update(
            {(path.label, number): results[f"{path.label} round {number}"] for path in paths}
        )
        if on_result is not None:
            on_result(float(number), {path: outcome.evaluations[path.label, number] for path in paths})
    return outcome


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


def build_pool(context: Context, questions: Mapping[str, Question]) -> AnswerPool:
    """Ask all teachers, verify, and ask again where `until_verified` wants more right answers."""
    e = context.experiment
    askable = [t for t in e.teachers if isinstance(t, ModelTeacher | EndpointTeacher)]
    stages = {
        f"generate {t.name}": take_file(context, t, questions)
        for t in e.teachers
        if isinstance(t, FileTeacher)
    }
    first = Asks(
        Ask(q.id, q.text, q.system, s) for q in questions.values() for s in range(e.generate.samples)
    )
    waves = {f"generate {t.name}": plan_wave(context, t, first, f"generate {t.name}") for t in askable}
    ask_waves(context, list(waves.values()))
    waves.update([again for label, wave in list(waves.items()) for again in ask_again(context, label, wave)])
    stages.update({label: wave.stage for label, wave in waves.items()})
    verified = verify_answers(context, stages, questions)
    for number in range(e.generate.samples, e.generate.max_samples if e.generate.until_verified else 0):
        answers = join_pool(list(stages.values()), list(verified.values()), questions)
        again = {}
        for teacher in askable:
            asks = still_lacking(answers, teacher.name, questions, e.generate.until_verified, number)
            label = f"generate {teacher.name} sample {number}"
            if asks:
                again[label] = plan_wave(context, teacher, asks, label)
        if not again:
            break
        ask_waves(context, list(again.values()))
        stages.update({label: wave.stage for label, wave in again.items()})
        verified.update(
            verify_answers(context, {label: wave.stage for label, wave in again.items()}, questions)
        )
    answers = join_pool(list(stages.values()), list(verified.values()), questions)
    return AnswerPool(
        answers,
        pool_ids(questions, verified),
        teacher_accuracy(answers, [t.name for t in e.teachers], len(questions)),
    )


def pool_ids(questions: Mapping[str, Question], verified: Mapping[str, Stage]) -> dict[str, str]:
    """What a pool depends on: the questions' texts and every verify stage."""
    content = digest_rows((q.id, q.text, q.system) for q in questions.values())
    return {"questions": content, **{label: stage.id for label, stage in sorted(verified.items())}}


def paths_of(experiment: Experiment) -> list[StudentPath]:
    """Every student under every arm and training seed."""
    return [
        StudentPath(s.name, arm, seed)
        for s in experiment.students
        for arm in experiment.arms
        for seed in range(experiment.seeds)
    ]


def path_seed(experiment: Experiment, path: StudentPath, number: int) -> int:
    """The seed of one path's draws and training in one round."""
    return derive_seed(experiment.seed, path.seed, number)


def still_lacking(
    answers: pd.DataFrame, teacher: str, questions: Mapping[str, Question], wanted: int, sample: int
) -> list[Ask]:
    """The questions a teacher has fewer than `wanted` right answers to, as asks for its next sample."""
    right = answers[(answers["teacher"] == teacher) & (answers["state"] == "verified")][
        "question_id"
    ].value_counts()
    return [Ask(q.id, q.text, q.system, sample) for q in questions.values() if right.get(q.id, 0) < wanted]


def teacher_accuracy(answers: pd.DataFrame, teachers: Sequence[str], questions: int) -> dict[str, float]:
    """Per teacher, the share of all questions its first sample got right; a duplicate text of a right answer
    is right.
    """
    first = answers[(answers["sample"] == 0) & answers["state"].isin(["verified", "duplicate"])]
    return {t: float((first["teacher"] == t).sum()) / questions for t in teachers}


def choosers(
    paths: Sequence[StudentPath], now: Mapping[StudentPath, StudentState], start: Mapping[str, StudentState]
) -> list[StudentState]:
    """The students whose costs are needed: those of arms that read costs, as they are now, and every
    student's first state.
    """
    costed = [now[p] for p in paths if p.arm.cost is not None]
    plain = [start[p.student] for p in paths if p.arm.cost is None]
    return list({s.id: s for s in [*plain, *costed]}.values())
