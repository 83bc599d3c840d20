"""SCAS (arXiv 2605.26872) and competing methods, for arms of kind `select`. Each round scores, selects,
trains and evaluates.

A cost tells what an answer asks of the student in its present state. A rule uses the costs to choose among
the verified answers to each question. The student is trained on the choice, and the trained student scores
the next round.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.results.outcome import OnResult, Outcome, Round, Start, StudentPath
from jobs.run.run import Run
from jobs.stages.evaluate import evaluate_stage, evaluate_students
from jobs.stages.examples import examples_of, refuse_another_rendering, settings_for
from jobs.stages.measures import Measuring, measure_pool, measuring_of
from jobs.stages.score import score_pool
from jobs.stages.select import Choice, select_answers
from jobs.stages.states import ModelState, Training
from jobs.stages.train import NothingToLearn, train_epochs
from jobs.systems.paths import end_path, judging_of, path_seed, train_and_judge


def teach(
    run: Run,
    start: Start,
    outcome: Outcome,
    paths: Sequence[StudentPath],
    on_result: OnResult | None = None,
    by_epoch: bool = False,
) -> None:
    """Score, select, train and evaluate these paths, round after round.

    In plan mode a path stops at the first result that does not exist yet.

    Args:
        outcome: the results of every path are added here.
        on_result: called after every round. With `by_epoch` it is also called after every epoch, at which
            training stops for an evaluation.
    """
    e = start.experiment
    now = {path: start.students[path.student] for path in paths}
    for number in range(1, e.rounds + 1):
        trainings = choose(run, start, outcome, now, number)
        if by_epoch and e.train.steps is None:
            judge_epochs(run, start, trainings, number, on_result)
        now = train_and_judge(run, start, outcome, now, trainings, number, on_result)


def choose(
    run: Run, start: Start, outcome: Outcome, now: Mapping[StudentPath, ModelState], number: int
) -> dict[StudentPath, Training]:
    """Score the pool under the present students, and write each path's training examples.

    Returns:
        This round's training of each path. A path is left out if it has ended or, in plan mode, if its inputs
            do not exist yet.
    """
    e, pool = start.experiment, start.pool
    judges = choosers(now, start.students)
    distinct = list({s.id: s for s in judges.values()}.values())
    scored = score_pool(run, distinct, pool, e.score, e.placement)
    measured = measure_pool(run, measurings(judges), pool, e.score, e.placement)
    trainings = {}
    for path, state in now.items():
        measuring, seed = measuring_of(path.choosing), path_seed(e, path, number)
        scores = scored[judges[path].id]
        if measuring is not None:
            scores = replace(scores, further=(measured[judges[path].id, measuring],))
        label = f"{path.label} round {number}"
        if not scores.is_finished:
            continue
        chosen = select_answers(run, label, Choice(path.choosing, seed), pool, scores)
        if not chosen.is_finished:
            continue
        refuse_another_rendering(label, scores, state)
        try:
            examples = examples_of(run, label, state, chosen, pool, e.evaluate, e.score)
        except NothingToLearn as why:
            end_path(run, outcome, path, number, why)
            continue
        if examples.is_finished:
            trainings[path] = Training(label, state, examples, seed, settings_for(examples, e.train))
            outcome.rounds[path, number] = Round(scores, chosen, examples)
    return trainings


def measurings(
    judges: Mapping[StudentPath, ModelState],
) -> dict[str, tuple[ModelState, list[Measuring]]]:
    """For each scoring student, by its id: the measures that the costs need besides the statistics."""
    found: dict[str, tuple[ModelState, list[Measuring]]] = {}
    for path, student in judges.items():
        measuring = measuring_of(path.choosing)
        if measuring is not None and measuring not in found.setdefault(student.id, (student, []))[1]:
            found[student.id][1].append(measuring)
    return found


def choosers(
    now: Mapping[StudentPath, ModelState], start: Mapping[str, ModelState]
) -> dict[StudentPath, ModelState]:
    """The student under which each path's answers are scored. If the arm has a cost, it is the present
    student. Otherwise it is the student before training, because only the answers' lengths are needed.
    """
    return {p: now[p] if p.choosing.cost is not None else start[p.student] for p in now}


def judge_epochs(
    run: Run,
    start: Start,
    trainings: Mapping[StudentPath, Training],
    number: int,
    on_result: OnResult | None,
) -> None:
    """Train epoch by epoch, and evaluate after each epoch but the last. An epoch is skipped if a student's
    weights after it no longer exist and were not evaluated before.
    """
    e, judging = start.experiment, judging_of(start.experiment)
    for epoch in range(1, math.ceil(e.train.epochs)):
        partly = train_epochs(run, list(trainings.values()), epoch, e.placement)
        known = {f"{p.label} round {number} epoch {epoch}": s for p, s in zip(trainings, partly, strict=True)}
        there = (
            s.is_there or evaluate_stage(run.store, judging, s, start.held_out).is_finished for s in partly
        )
        if all(there):
            found = evaluate_students(run, known, start.held_out, judging, e.placement)
            if on_result is not None:
                on_result(
                    number - 1 + epoch / e.train.epochs, dict(zip(trainings, found.values(), strict=True))
                )
