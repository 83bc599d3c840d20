"""After the idea of Training Wheels (arXiv 2502.17717), for arms of kind `training_wheels`: distillation as
value learning, with a teacher that the student may ask for a token while it answers. The decision process,
the loss, the prices, both stages and all settings are derived by us from path consistency learning.

Round 1 clones: a teacher's own answers, in which calls for help stand for the tokens that the student finds
least likely. Each later round rolls the student out under every budget. The teacher reads the rollouts, the
student learns by path consistency from them and from the teacher's answers, and calls get a new price.
`docs/training_wheels.md` says what is published, what we chose, and what the results were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cluster.models.relay import Calls
from cluster.seeds import derive_seed
from jobs.experiment.arms.training_wheels import cloned
from jobs.experiment.wheels import Wheels
from jobs.files.questions import Question
from jobs.results.outcome import OnResult, Outcome, SetAside, Start, StudentPath
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.views import View
from jobs.stages.drawn import drawn_questions
from jobs.stages.examples import settings_for
from jobs.stages.hosted import Draw
from jobs.stages.states import ModelState, SharedOptimizer, Training
from jobs.stages.train import EXAMPLES, NothingToLearn, train_students
from jobs.systems.paths import end_path, let_weights_go, path_seed
from jobs.systems.training_wheels.examples import Entry, Rewards, Source, WritePaths
from jobs.systems.training_wheels.handler import Asking
from jobs.systems.training_wheels.judging import judge_by_budget
from jobs.systems.training_wheels.ledger import ledger_of
from jobs.systems.training_wheels.making import Made, make_paths
from jobs.systems.training_wheels.paths import Learner, arm_of, help_of, label_of, teacher_of, wheels_of
from jobs.systems.training_wheels.price import first_price, prices_after
from jobs.systems.training_wheels.relays import (
    Relays,
    asking_of,
    call_share,
    needs_of,
    relays,
)
from training.batches import count_steps, drawn_in
from training.data import count_groups


def teach(
    run: Run,
    start: Start,
    outcome: Outcome,
    paths: Sequence[StudentPath],
    on_result: OnResult | None = None,
    by_epoch: bool = False,
) -> None:
    """Clone, then roll out, read, train and evaluate these paths, round after round.

    In plan mode a path stops at the first result that does not exist yet.

    Args:
        on_result: called after every round, with the evaluations without calls.
        by_epoch: has no effect here, because a round's rollouts come from the student at its beginning.
    """
    e, wheels = start.experiment, wheels_of(start.experiment)
    first = {s: start.students[s].with_tokens([wheels.help]) for s in dict.fromkeys(p.student for p in paths)}
    now = {p: Learner(first[p.student], first_prices(wheels)) for p in paths}
    for number in range(1, e.rounds + 1):
        questions = drawn(start.questions, wheels, e.seed, number)
        taught = ask_teachers(run, start, first, list(now), questions, number)
        rolled = roll_out(run, start, now, questions, number)
        trainings: dict[StudentPath, Training] = {}
        for path, learner in now.items():
            views = [taught[path], *rolled.get(path, {}).values()]
            if not all(view.is_finished for view in views):
                continue
            try:
                written = writes(start, path, learner, questions, views)
                made = make_paths(run, label_of(path, number), written)
            except NothingToLearn as why:
                end_path(run, outcome, path, number, why)
                continue
            if made is not None:
                trainings[path] = training_of(start, outcome, path, learner, number, made)
        stages = train_students(run, list(trainings.values()), e.placement)
        later: dict[StudentPath, Learner] = {}
        for (path, training), stage in zip(trainings.items(), stages, strict=True):
            if stage.is_finished:
                learner, own = now[path], outcome.round(path, number)
                own.trained, before = stage, learner.prices
                used = {b: view.manifest()["counts"] for b, view in rolled.get(path, {}).items()}
                prices = prices_after(before, used, wheels)
                own.figures |= {f"price, {b} in 100": price for b, price in before.items() if b}
                own.figures |= {f"calls in training, {b} in 100": call_share(n) for b, n in used.items() if b}
                later[path] = Learner(learner.state.after(stage, training), prices, stage)
        states = {path: learner.state for path, learner in later.items()}
        judged = judge_by_budget(run, start, outcome, states, number, wheels)
        now = {path: learner for path, learner in later.items() if path in judged}
        if on_result is not None and judged:
            on_result(float(number), judged)
        let_weights_go(run, outcome, number)


def first_prices(wheels: Wheels) -> dict[int, float]:
    """The first price of every budget."""
    return {budget: first_price(budget / 100) for budget in wheels.budgets}


def drawn(questions: Mapping[str, Question], wheels: Wheels, seed: int, number: int) -> list[Question]:
    """The questions of one round, the same for all arms. Rounds after the first one begin with the first part
    again.
    """
    if number == 1:
        return drawn_questions(questions, wheels.cloning_questions, seed, 1)
    return drawn_questions(questions, wheels.questions, seed, number - 1)


def ask_teachers(
    run: Run,
    start: Start,
    first: Mapping[str, ModelState],
    paths: Sequence[StudentPath],
    questions: Sequence[Question],
    number: int,
) -> dict[StudentPath, View]:
    """Draw teachers' own answers, and let the students read them: their probabilities decide where cloned
    answers call.

    Args:
        first: the students as they were before training, with their help token.
    """
    e, wheels = start.experiment, wheels_of(start.experiment)
    draw = Draw(1.0, 1.0, wheels.max_new_tokens, derive_seed(e.seed, "teacher's answers"))
    request = asking_of(questions, wheels.told(0), wheels.samples)
    labels = {path: f"{path.student}, {arm_of(path).teacher}, round {number}" for path in paths}
    wanted = {}
    for path, label in labels.items():
        state, needs = first[path.student], needs_of(e, arm_of(path).teacher)
        # without a help token: these are the teacher's texts
        about = help_of(state, wheels), Calls("always"), draw, True, request, needs
        wanted[label] = Relays(state, teacher_of(start, path), *about)
    views = relays(run, "ask the teacher", wanted, wheels.shard_size, e.placement)
    return {path: views[labels[path]] for path in paths}


def roll_out(
    run: Run, start: Start, now: Mapping[StudentPath, Learner], questions: Sequence[Question], number: int
) -> dict[StudentPath, dict[int, View]]:
    """Roll the students out under every budget, and let the teacher read the rollouts. Nothing in round 1, in
    which a student cannot call yet, and nothing for variant `cloning`.
    """
    if number == 1:
        return {}
    e, wheels = start.experiment, wheels_of(start.experiment)
    wanted = {}
    practising = {path: learner for path, learner in now.items() if arm_of(path).variant == "wheels"}
    for path, learner in practising.items():
        seed = derive_seed(e.seed, "rollouts", number, path.seed)
        draw = Draw(1.0, 1.0, wheels.max_new_tokens, seed)
        help_id, teacher = help_of(learner.state, wheels), teacher_of(start, path)
        for budget in wheels.budgets:
            calls = Calls("student" if budget else "never", help_id)
            request = asking_of(questions, wheels.told(budget), 1)
            needs = needs_of(e, teacher.name)
            wanted[path, budget] = Relays(learner.state, teacher, help_id, calls, draw, True, request, needs)
    labels = {(p, b): f"{label_of(p, number)}, {b} in 100" for p, b in wanted}
    named = {labels[key]: one for key, one in wanted.items()}
    views = relays(run, "roll out with calls", named, wheels.shard_size, e.placement)
    return {path: {b: views[labels[path, b]] for b in wheels.budgets} for path in practising}


def writes(
    start: Start, path: StudentPath, learner: Learner, questions: Sequence[Question], views: Sequence[View]
) -> WritePaths:
    """The examples of a path's round: the teacher's answers, each under one drawn budget. Later they are the
    teacher's answers under every budget, and as many rollouts of the student.
    """
    e, arm, wheels = start.experiment, arm_of(path), wheels_of(start.experiment)
    taught, *rolled = views
    entries = []
    for q in questions:
        for k in range(wheels.samples):
            seed = derive_seed(e.seed, path.seed, "calls", question_key(q.prompt).hex(), k)
            under = [wheels.budgets[seed % len(wheels.budgets)]] if learner.before is None else wheels.budgets
            key = Asking(q.prompt, wheels.told(0), k).key
            entries += [Entry(q.id, key, budget, derive_seed(seed, budget)) for budget in under]
    sources = [Source(taught.id, taught.finished, entries, is_own=False)]
    for budget, view in zip(wheels.budgets if rolled else (), rolled, strict=True):
        own = [Entry(q.id, Asking(q.prompt, wheels.told(budget), 0).key, budget) for q in questions]
        sources.append(Source(view.id, view.finished, own, is_own=True))
    rewards = Rewards(dict(learner.prices), arm.reward_of_call == "logprob", wheels.floor)
    return WritePaths(
        learner.state,
        {q.id: q for q in questions},
        sources,
        {b: wheels.told(b) for b in wheels.budgets},
        rewards,
        help_of(learner.state, wheels),
        arm.positions,
    )


def training_of(
    start: Start, outcome: Outcome, path: StudentPath, learner: Learner, number: int, made: Made
) -> Training:
    """Describe a path's training of a round. Later rounds share one optimizer."""
    e, arm, wheels = start.experiment, arm_of(path), wheels_of(start.experiment)
    own, seed, label = outcome.round(path, number), path_seed(e, path, number), label_of(path, number)
    help_id = help_of(learner.state, wheels)
    own.examples, count = made.stage, count_groups(made.stage.part(EXAMPLES))
    if number == 1:
        settings = settings_for(made.stage, e.train)
        steps = count_steps(count, settings.batch_size, settings.epochs, settings.steps)
    else:
        steps, rate = wheels.steps_per_round, wheels.learning_rate or e.train.learning_rate
        settings = replace(e.train, steps=steps, tokens=None, learning_rate=rate)
    own.set_aside = [SetAside(f"{label}: {q}", "relay", "failed", why) for q, why in made.lost.items()]
    seen = frozenset(drawn_in(count, settings.batch_size, seed, steps))
    own.ledger = ledger_of(made.states, made.is_own, seen, len(start.questions), made.questions)
    if number == 1:
        return Training(label, learner.state, made.stage, seed, settings, objective=cloned(help_id))
    first = number == 2
    shared = SharedOptimizer(
        None if first else learner.before, (number - 2) * steps, (e.rounds - 1) * steps, number == e.rounds
    )
    objective = arm.paths(help_id, (e.rounds - 1) * steps)
    return Training(label, learner.state, made.stage, seed, settings, shared, objective=objective)
