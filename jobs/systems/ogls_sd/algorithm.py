"""OGLS-SD (arXiv 2605.12400) and related methods, for arms of kind `ogls_sd`. Each round rolls out, verifies,
forms contexts, steers, trains and evaluates. All rounds share one optimizer.

The student answers questions, and a checker marks the answers right or wrong. A frozen teacher, by default
the student before training, then reads each wrong answer: once after right solutions and once after wrong
ones. The difference between the two readings gives the direction of training. With a `teacher_rate` the
teacher follows the student between rounds. `docs/ogls_sd.md` says what is published, what we chose, and what
the results were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from cluster.seeds import derive_seed
from jobs.experiment.schema import Experiment
from jobs.results.outcome import OnResult, Outcome, SetAside, Start, StudentPath
from jobs.run.run import Run
from jobs.run.store import Stage, digest
from jobs.run.views import View
from jobs.stages.check import Checks
from jobs.stages.drawn import drawn_questions
from jobs.stages.rollouts import RolledOut, roll_out
from jobs.stages.states import ModelState, SharedOptimizer, Training
from jobs.stages.train import EXAMPLES, NothingToLearn, examples_stage
from jobs.systems.ogls_sd.comprehension import check_reading, check_vocabularies
from jobs.systems.ogls_sd.examples import WriteExamples, tail_of, write_slices
from jobs.systems.ogls_sd.ledger import CONTEXTS_OUT, LEFT, final_states, ledger_of, refuse_nothing
from jobs.systems.ogls_sd.reading import arm_of, followed, read_by_teachers, teacher_of
from jobs.systems.ogls_sd.usable import TRAINED, Decided, Decision, decide
from jobs.systems.paths import end_path, judging_of, path_seed, train_and_judge
from training.batches import drawn_in


def teach(
    run: Run,
    start: Start,
    outcome: Outcome,
    paths: Sequence[StudentPath],
    on_result: OnResult | None = None,
    by_epoch: bool = False,
) -> None:
    """Roll out, verify, steer, train and evaluate these paths, round after round.

    In plan mode a path stops at the first result that does not exist yet.

    Args:
        on_result: called after every round.
        by_epoch: has no effect here, because all rollouts of a round come from the student at its beginning.
    """
    e = start.experiment
    now = {path: start.students[path.student] for path in paths}
    students = {path.student: start.students[path.student] for path in paths}
    teachers = {path: teacher_of(start, path) for path in paths}
    check_vocabularies({p.label: (teachers[p], start.students[p.student]) for p in paths})
    check_reading(run, e, students, start.questions.values(), judging_of(e))
    before: dict[StudentPath, Stage] = {}
    for number in range(1, e.rounds + 1):
        questions = drawn_questions(start.questions, e.drawn.questions, e.seed, number)
        labels = {path: f"{path.label} round {number}" for path in now}
        states = {labels[path]: state for path, state in now.items()}
        seeds = {labels[path]: rollout_seed(e, path, number) for path in now}
        said = roll_out(run, states, questions, e.drawn, Checks(e.verify, e.judge), seeds, e.placement)
        rolled = {path: said[label] for path, label in labels.items() if label in said}
        decided = decide_all(run, e, rolled, labels)
        views = read_by_teachers(run, start, number, decided, teachers)
        trainings = {}
        for path, own in decided.items():
            round_ = Material(number, len(questions), own, teachers[path], views.get(path), before.get(path))
            try:
                training = training_of(run, start, outcome, path, now[path], round_)
            except NothingToLearn as why:
                end_path(run, outcome, path, number, why)
                continue
            if training is not None:
                trainings[path] = training
        now = train_and_judge(run, start, outcome, now, trainings, number, on_result)
        before = {path: stage for path in now if (stage := outcome.trained(path, number)) is not None}
        if number < e.rounds:
            teachers = followed(run, e, teachers, now, number)
            now = {path: state for path, state in now.items() if path in teachers}


def rollout_seed(e: Experiment, path: StudentPath, number: int) -> int:
    """The seed that rollouts are sampled with. All arms share it. In round 1 all training seeds share it too,
    because every path still has the same student. Later rounds each have their own, for each training seed.
    """
    return derive_seed(e.seed, "rollouts", *((number, path.seed) if number > 1 else ()))


def decide_all(
    run: Run, e: Experiment, rolled: Mapping[StudentPath, RolledOut], labels: Mapping[StudentPath, str]
) -> dict[StudentPath, Decided]:
    """Decide for every path which of its rollouts are used. Paths that decide alike share the decision."""
    known, found = dict[str, Decided](), {}
    for path, own in rolled.items():
        arm = arm_of(path)
        decision = Decision(own, arm.target, arm.exclude_self, e.drawn.scored_tokens)
        if decision.id not in known:
            known[decision.id] = decide(run, labels[path], decision)
        found[path] = known[decision.id]
    return found


@dataclass(frozen=True)
class Material:
    """The inputs of one path's training in one round: the number of questions that were drawn, the rollouts
    that the arm uses, the teacher and its readings, and the training of the round before.
    """

    number: int
    questions: int
    decided: Decided
    teacher: ModelState
    said: View | None
    before: Stage | None

    @property
    def rolled(self) -> RolledOut:
        return self.decided.decision.rolled


def training_of(
    run: Run, start: Start, outcome: Outcome, path: StudentPath, state: ModelState, r: Material
) -> Training | None:
    """Write the examples of a path's round and describe its training. In plan mode returns None if the inputs
    do not exist yet.

    Raises:
        NothingToLearn: no rollout is left to learn from.
    """
    e, arm, drawn = start.experiment, arm_of(path), start.experiment.drawn
    label, why = f"{path.label} round {r.number}", r.decided.why
    if arm.steered is not None and r.said is None and r.decided.readings:
        return None
    trained, tails = [i for i, reason in why.items() if reason == TRAINED], tail_of(arm, r.rolled)
    tail = [i for own in tails for i in own]
    refuse_nothing(label, list(why.values()), bool(trained or tail))
    read = None if r.said is None else r.said.finished
    about = [
        r.rolled.id,
        "" if r.said is None else r.said.id,
        sorted(trained),
        sorted(tail),
        arm.model_dump(exclude={"name", "teacher_rate"}),
        drawn.scored_tokens,
    ]
    stage = examples_stage(run.store, "ogls_sd", state.rendering, digest(about))
    run.note("examples", label, stage)
    writes = WriteExamples(arm, state, r.decided.decision, read)
    write = run.writers[stage.path] = partial(write_slices, run, label, stage, writes, tails)
    with run.claimed([stage]):
        if not stage.is_finished and run.mode == "make":
            made = write()
            stage.finish([EXAMPLES] if made["examples"] else [], about=made, examples=made["examples"])
    if not stage.is_finished:
        return None
    made, count, steps = stage.manifest()["about"], r.questions, drawn.steps_per_round
    lost = made["lost"]
    fell_out = why | {i: state for i, (state, _) in lost.items()}
    refuse_nothing(label, list(fell_out.values()), made["examples"] > 0)
    seed = path_seed(e, path, r.number)
    order = examples_in_order(r.decided, lost, tails)
    seen = frozenset(order[k] for k in drawn_in(len(order), e.train.batch_size, seed, steps))
    own = outcome.round(path, r.number)
    final = final_states(why, lost, tail, seen)
    own.ledger, own.learned = ledger_of(final, len(start.questions), count, drawn.group), seen
    own.set_aside = [SetAside(f"{label}: {i}", "steer", *told) for i, told in lost.items()]
    told = {TRAINED: float(len(seen)), LEFT: float(len(order) - len(seen))}
    if r.said is not None:
        told[CONTEXTS_OUT] = float(r.said.manifest()["counts"]["left_out"])
    own.figures, own.examples = r.rolled.figures() | told, stage
    settings = replace(e.train, steps=steps, tokens=None)  # all rounds have the same number of steps
    shared = SharedOptimizer(r.before, (r.number - 1) * steps, e.rounds * steps, r.number == e.rounds)
    if arm.steered is None:
        return Training(label, state, stage, seed, settings, shared)
    return Training(label, state, stage, seed, settings, shared, r.teacher, arm.steered)


def examples_in_order(
    decided: Decided, lost: Mapping[str, Sequence[str]], tails: Sequence[Sequence[str]]
) -> list[str]:
    """The rollouts of the examples, in the order of the examples' file: for each slice those that are trained
    on, then those whose tail is learned.
    """
    order = []
    for own, tail in zip(decided.slices, tails, strict=True):
        order += [i for i, why in own.why.items() if why == TRAINED and i not in lost]
        order += tail
    return order
