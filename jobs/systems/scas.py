"""SCAS (arXiv 2605.26872) and its rivals: score, select, train and evaluate, round after round.

A cost says what an answer asks of the student as it is now, a rule chooses by it among a question's verified
answers, and a round of training on the choice gives the student that scores the next round.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from jobs.results.outcome import Outcome, Start, StudentPath
from jobs.run.context import Context
from jobs.run.store import Stage
from jobs.stages.evaluate import evaluate_stage, evaluate_students
from jobs.stages.score import StudentState, score_students
from jobs.stages.select import select_answers
from jobs.stages.train import Training, train_epochs, train_students
from jobs.systems.paths import path_seed

# Told of every evaluation on the way: rounds done (2.5 is half of the third), and each path's evaluation.
OnResult = Callable[[float, Mapping[StudentPath, Stage]], None]


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
    e = context.experiment
    outcome = Outcome(start.questions, start.held_out, start.pool, list(paths))
    outcome.evaluations.update({(name, 0): stage for name, stage in start.before.items()})
    now = {path: start.students[path.student] for path in paths}
    for number in range(1, e.rounds + 1):
        trainings = choose(context, start, outcome, now, number)
        if by_epoch and e.train.steps is None:
            judge_epochs(context, start, trainings, number, on_result)
        after = train_students(context, list(trainings.values()), start.pool.answers, start.questions)
        now = {path: after[t.label] for path, t in trainings.items()}
        labels = {path: f"{path.label} round {number}" for path in paths}
        judged = evaluate_students(context, {labels[path]: now[path] for path in paths}, start.held_out)
        outcome.evaluations.update({(path.label, number): judged[labels[path]] for path in paths})
        if on_result is not None:
            on_result(float(number), {path: judged[labels[path]] for path in paths})
    return outcome


def choose(
    context: Context, start: Start, outcome: Outcome, now: Mapping[StudentPath, StudentState], number: int
) -> dict[StudentPath, Training]:
    """Score the pool under the students as they are, and choose for every path what it will be trained on."""
    pool, paths, questions = start.pool, outcome.paths, list(start.questions)
    scored = score_students(context, choosers(paths, now, start.students), start.rows, pool.ids)
    trainings = {}
    for path in paths:
        judge = now[path] if path.arm.cost is not None else start.students[path.student]
        label, scores = f"{path.label} round {number}", scored[judge.id]
        seed = path_seed(context.experiment, path, number)
        chosen = select_answers(context, f"select {label}", path.arm, seed, pool, questions, scores)
        trainings[path] = Training(f"train {label}", now[path], chosen, scores, seed)
        outcome.scores[path.label, number], outcome.chosen[path.label, number] = scores, chosen
    return trainings


def judge_epochs(
    context: Context,
    start: Start,
    trainings: Mapping[StudentPath, Training],
    number: int,
    on_result: OnResult | None,
) -> None:
    """Train epoch by epoch, and evaluate after each but the last; what is finished let its epochs go."""
    epochs = context.experiment.train.epochs
    for epoch in range(1, math.ceil(epochs)):
        partly = train_epochs(context, list(trainings.values()), start.pool.answers, start.questions, epoch)
        known = {f"{p.label} round {number} epoch {epoch}": partly[t.label] for p, t in trainings.items()}
        there = (s.is_there or evaluate_stage(context, s, start.held_out).is_finished for s in known.values())
        if all(there):
            found = evaluate_students(context, known, start.held_out)
            if on_result is not None:
                on_result(number - 1 + epoch / epochs, dict(zip(trainings, found.values(), strict=True)))


def choosers(
    paths: Sequence[StudentPath], now: Mapping[StudentPath, StudentState], start: Mapping[str, StudentState]
) -> list[StudentState]:
    """The students whose costs are needed: those of arms that read costs, as they are now, and every
    student's first state.
    """
    costed = [now[p] for p in paths if p.arm.cost is not None]
    plain = [start[p.student] for p in paths if p.arm.cost is None]
    return list({s.id: s for s in [*plain, *costed]}.values())
