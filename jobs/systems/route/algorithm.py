"""Routing, in the manner of PerSyn (arXiv 2510.10925), for arms of kind `route`: ask every teacher a first
part of the questions, learn whom to ask the others, ask only that teacher, train, evaluate.

`docs/routing.md` says what is published, what we chose, and what came out.
"""

from collections.abc import Mapping, Sequence

from jobs.experiment.arms.select import SelectArm
from jobs.results.outcome import OnResult, Outcome, Start, StudentPath
from jobs.run.run import Run
from jobs.stages.examples import examples_of, settings_for
from jobs.stages.score import PoolScores, score_pool
from jobs.stages.select import Choice, select_answers
from jobs.stages.states import ModelState, Training
from jobs.stages.train import NothingToLearn
from jobs.systems.paths import end_path, path_seed, train_and_judge
from jobs.systems.route.asking import Asked, ask_for, first_questions, lacking, together
from jobs.systems.route.learning import Routed, learn_routes
from jobs.systems.route.paths import arm_of
from jobs.systems.route.sections import figures_of, ledger_of


def teach(
    run: Run,
    start: Start,
    outcome: Outcome,
    paths: Sequence[StudentPath],
    on_result: OnResult | None = None,
    by_epoch: bool = False,
) -> None:
    """Take the students of these paths through all rounds. Teachers are asked in the first one.

    In plan mode this ends at the first result that does not exist yet.

    Args:
        on_result: called after every round.
        by_epoch: has no effect here.
    """
    e = start.experiment
    first = {p: first_questions(start, arm_of(p).first, path_seed(e, p, 0)) for p in paths}
    everyone = [teacher.name for teacher in e.teachers]
    asked: dict[StudentPath, Asked] = {p: dict.fromkeys(everyone, own) for p, own in first.items()}
    ask_for(run, start, together(asked.values()), "first questions")
    routes = learn_all(run, start, asked, first)
    for number in range(max(arm_of(path).tries for path in paths)):
        wrong = {p: lacking(run, start, asked[p], p.label, first[p]) for p in routes}
        for path, route in routes.items():
            if number < arm_of(path).tries:
                asked[path] = route.next_asked(asked[path], wrong[path], number)
        wanted = together(asked[p] for p in routes)
        ask_for(run, start, wanted, "routed questions" if number == 0 else f"routed questions, try {number}")
    now = {path: start.students[path.student] for path in routes}
    for number in range(1, e.rounds + 1):
        trainings = choose(run, start, outcome, now, asked, routes, number)
        now = train_and_judge(run, start, outcome, now, trainings, number, on_result)


def learn_all(
    run: Run,
    start: Start,
    asked: Mapping[StudentPath, Asked],
    first: Mapping[StudentPath, frozenset[str]],
) -> dict[StudentPath, Routed]:
    """What each path learns from its first questions. In plan mode a path is left out if it needs scores that
    do not exist yet.
    """
    e, routes = start.experiment, {}
    every = ask_for(run, start, together(asked.values()), "first questions")
    students = [start.students[name] for name in dict.fromkeys(path.student for path in asked)]
    score_pool(run, students, every, e.score, e.placement, "first questions")
    for path, own in asked.items():
        pool = ask_for(run, start, own, f"first questions of {path.label}")
        student = start.students[path.student]
        scores = score_pool(run, [student], pool, e.score, e.placement, f"first of {path.label}")[student.id]
        if scores.is_finished:
            routes[path] = learn_routes(run, path, student, scores, first[path], path_seed(e, path, 0))
    return {path: route for path, route in routes.items() if route.is_known}


def choose(
    run: Run,
    start: Start,
    outcome: Outcome,
    now: Mapping[StudentPath, ModelState],
    asked: Mapping[StudentPath, Asked],
    routes: Mapping[StudentPath, Routed],
    number: int,
) -> dict[StudentPath, Training]:
    """Of each question's right answers the one with the lowest cost under the present student, as training
    examples. Most questions have one answer.
    """
    e, trainings = start.experiment, {}
    for path, state in now.items():
        label = f"{path.label} round {number}"
        pool = ask_for(run, start, asked[path], path.label)
        scores: PoolScores = score_pool(run, [state], pool, e.score, e.placement, label)[state.id]
        if not scores.is_finished:
            continue
        seed = path_seed(e, path, number)
        chosen = select_answers(run, label, Choice(easiest(path), seed), pool, scores)
        if not chosen.is_finished:
            continue
        try:
            examples = examples_of(run, label, state, chosen, pool, e.evaluate, e.score)
        except NothingToLearn as why:
            end_path(run, outcome, path, number, why)
            continue
        if not examples.is_finished:
            continue
        record = outcome.round(path, number)
        record.examples, record.ledger = examples, ledger_of(chosen)
        record.figures = figures_of(start, path, routes[path], asked[path], pool, chosen)
        trainings[path] = Training(label, state, examples, seed, settings_for(examples, e.train))
    return trainings


def easiest(path: StudentPath) -> SelectArm:
    """The rule that takes the answer with the lowest cost."""
    arm = arm_of(path)
    given = {
        "name": arm.name,
        "rule": "minimum",
        "cost": arm.cost,
        "lambda": arm.scas_lambda,
        "length_exponent": arm.length_exponent,
    }
    return SelectArm.model_validate(given)
