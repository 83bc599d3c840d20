"""Routing, in the manner of PerSyn (arXiv 2510.10925), for arms of kind `route`: ask every teacher a first
part of the questions, learn whom to ask the others, ask only that teacher, train, evaluate.

`docs/routing.md` says what is published, what we chose, and what came out.
"""

from collections.abc import Mapping, Sequence

from jobs.experiment.arms.route import RouteArm
from jobs.results.outcome import OnResult, Outcome, Start, StudentPath
from jobs.run.run import Run, Unmade
from jobs.stages.examples import examples_of, settings_for
from jobs.stages.score import PoolScores, score_pool
from jobs.stages.select import Choice, select_answers
from jobs.stages.states import ModelState, Training
from jobs.stages.train import NothingToLearn
from jobs.stages.unverified import nothing_verified
from jobs.systems.paths import arm_as, end_path, path_seed, train_and_judge
from jobs.systems.route.asking import Asked, Asking, first_questions, together, usable_in
from jobs.systems.route.bound import plan_the_rest
from jobs.systems.route.learning import Routed, learn_routes
from jobs.systems.route.sections import figures_of, lines_of


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

    Raises:
        BadInput: no first answer is right.
    """
    e = start.experiment
    first = {
        p: first_questions(start.questions, arm_as(p, RouteArm).first, path_seed(e, p, 0)) for p in paths
    }
    try:
        asking = Asking.of(run, start)
        routes = learn_all(run, outcome, asking, first)
        asked = ask_the_rest(run, asking, routes)
        pools = {path: asking.pool(asked[path], path.label) for path in routes}
    except Unmade:
        plan_the_rest(run, start, first)
        return
    if not start.asked:  # no other arm wants answers: what was asked here is the run's pool
        start.pool = asking.pool(asking.asked, "all that was asked")
    now = {path: start.students[path.student] for path in routes}
    for number in range(1, e.rounds + 1):
        trainings = dict[StudentPath, Training]()
        for path, state in now.items():
            label = f"{path.label} round {number}"
            scores = score_pool(run, [state], pools[path], e.score, e.placement, label)[state.id]
            training = training_of(run, start, outcome, path, state, scores, number)
            if training is not None:
                trainings[path] = training
                outcome.round(path, number).figures = figures_of(start, routes[path], asked[path], scores)
        now = train_and_judge(run, start, outcome, now, trainings, number, on_result)
    outcome.sections += lines_of(outcome, routes)


def learn_all(
    run: Run, outcome: Outcome, asking: Asking, first: Mapping[StudentPath, frozenset[str]]
) -> dict[StudentPath, Routed]:
    """Ask all teachers the first questions; returns what each path learns from its own. A path without a
    usable first answer ends, before anything further is asked for it.

    Raises:
        BadInput: no first answer is right.
        Unmade: in a plan, something is missing.
    """
    start = outcome.start
    e, teachers = start.experiment, [teacher.name for teacher in start.experiment.teachers]
    every: dict[StudentPath, Asked] = {p: dict.fromkeys(teachers, own) for p, own in first.items()}
    asking.ask(together(every.values()), "first questions")
    pool = asking.pool(asking.asked, "first questions")
    if not pool.by_state.get("verified"):
        raise nothing_verified(pool)
    students = [start.students[name] for name in dict.fromkeys(path.student for path in first)]
    scored, routes = score_pool(run, students, pool, e.score, e.placement, "first questions"), {}
    for path, own in first.items():
        student = start.students[path.student]
        scores = scored[student.id]
        if not scores.is_finished:
            raise Unmade(f"first questions of {path.label}")
        try:
            refuse_useless(path, usable_in(scores, every[path]), scores)
        except NothingToLearn as why:
            end_path(run, outcome, path, 1, why)
            continue
        route = learn_routes(run, path, student, teachers, scores, own, path_seed(e, path, 0))
        if route is None:
            raise Unmade(f"the routes of {path.label}")
        routes[path] = route
    return routes


def refuse_useless(path: StudentPath, usable: frozenset[str], scores: PoolScores) -> None:
    """End a path that could learn nothing about its teachers.

    Raises:
        NothingToLearn: none of its first questions has a usable answer. Gives the states of all.
    """
    if not usable:
        told = scores.pool.by_state
        raise NothingToLearn(
            f"{path.label}: no right answer to its first questions could be scored",
            ", ".join(f"{n} {state}" for state, n in told.items()),
            "at least one",
            "raise score.max_length, or look at the answers' states",
        )


def ask_the_rest(run: Run, asking: Asking, routes: Mapping[StudentPath, Routed]) -> dict[StudentPath, Asked]:
    """Ask each path's other questions of their teachers, try by try; returns what each path has asked. The
    next teacher is asked where no usable answer is there yet.

    Raises:
        Unmade: in a plan, something is missing.
    """
    start = asking.start
    e, teachers = start.experiment, [teacher.name for teacher in start.experiment.teachers]
    asked: dict[StudentPath, Asked] = {p: dict.fromkeys(teachers, r.first) for p, r in routes.items()}
    left = {path: frozenset(start.questions) - route.first for path, route in routes.items()}
    for number in range(max((min(r.arm.tries, len(teachers)) for r in routes.values()), default=0)):
        for path, route in routes.items():
            if number < route.arm.tries:
                asked[path] = route.next_asked(asked[path], left[path], number)
        label = "routed questions" if number == 0 else f"routed questions, try {number + 1}"
        asking.ask(together(asked.values()), label)
        pool = asking.pool(asking.asked, label)
        students = {start.students[p.student].id: start.students[p.student] for p in routes}
        scored = score_pool(run, list(students.values()), pool, e.score, e.placement, label)
        for path in routes:
            scores = scored[start.students[path.student].id]
            if not scores.is_finished:
                raise Unmade(label)
            left[path] -= usable_in(scores, asked[path])
    return asked


def training_of(
    run: Run,
    start: Start,
    outcome: Outcome,
    path: StudentPath,
    state: ModelState,
    scores: PoolScores,
    number: int,
) -> Training | None:
    """Choose the easiest right answer to each question, and write them as training examples. None if the path
    has ended, or in a plan if something is missing. Most questions have one answer.
    """
    e, label, seed = (
        start.experiment,
        f"{path.label} round {number}",
        path_seed(start.experiment, path, number),
    )
    if not scores.is_finished:
        return None
    chosen = select_answers(run, label, Choice(path.choosing, seed), scores.pool, scores)
    if not chosen.is_finished:
        return None
    try:
        examples = examples_of(run, label, state, chosen, scores.pool, e.evaluate, e.score)
    except NothingToLearn as why:
        end_path(run, outcome, path, number, why)
        return None
    if not examples.is_finished:
        return None
    record = outcome.round(path, number)
    record.scores, record.chosen, record.examples = scores, chosen, examples
    return Training(label, state, examples, seed, settings_for(examples, e.train))
