"""The paths of an experiment, and the steps that all systems share."""

from collections.abc import Mapping
from typing import TypeVar

from cluster.seeds import derive_seed
from jobs.experiment.schema import Experiment
from jobs.experiment.section import Section
from jobs.results.outcome import ALONE, OnResult, Outcome, Start, StudentPath
from jobs.run.run import Run
from jobs.run.store import Stage
from jobs.stages.check import Checks
from jobs.stages.evaluate import Judging, evaluate_students
from jobs.stages.states import ModelState, Training
from jobs.stages.train import NothingToLearn, remove_examples, remove_weights, train_students

ArmOfKind = TypeVar("ArmOfKind", bound=Section)


def paths_of(experiment: Experiment) -> list[StudentPath]:
    """List one path for each combination of student, arm and training seed."""
    return [
        StudentPath(s.name, arm, seed)
        for s in experiment.students
        for arm in experiment.arms
        for seed in range(experiment.seeds)
    ]


def arm_as(path: StudentPath, kind: type[ArmOfKind]) -> ArmOfKind:
    """A path's arm, which must be of a system's own kind.

    Raises:
        TypeError: the arm belongs to another system.
    """
    if not isinstance(path.arm, kind):
        raise TypeError(f"{path.label} has no {kind.__name__}")
    return path.arm


def path_seed(experiment: Experiment, path: StudentPath, number: int) -> int:
    """Derive the seed of a path's random draws and of its training in round `number`."""
    return derive_seed(experiment.seed, path.seed, number)


def judging_of(experiment: Experiment) -> Judging:
    """Collect the settings by which this experiment evaluates students."""
    e = experiment
    return Judging(e.evaluate, Checks(e.verify, e.judge), e.score, e.seed)


def train_and_judge(
    run: Run,
    start: Start,
    outcome: Outcome,
    now: Mapping[StudentPath, ModelState],
    trainings: Mapping[StudentPath, Training],
    number: int,
    on_result: OnResult | None = None,
) -> dict[StudentPath, ModelState]:
    """End a round: train the students, evaluate them, report the results, and remove weights that are no
    longer needed. In plan mode, paths whose training does not exist yet are left out.

    Args:
        now: the students before this round's training.
        trainings: this round's training of each path.
        on_result: called with the round's number and the evaluations.

    Returns:
        The students after the training, for each path that was trained.
    """
    e = start.experiment
    stages = train_students(run, list(trainings.values()), e.placement)
    trained = {p: stage for p, stage in zip(trainings, stages, strict=True) if stage.is_finished}
    for path, stage in trained.items():
        outcome.round(path, number).trained = stage
    later = {path: now[path].after(stage, trainings[path]) for path, stage in trained.items()}
    labels = {path: f"{path.label} round {number}" for path in later}
    states = {labels[path]: state for path, state in later.items()}
    judged = evaluate_students(run, states, start.held_out, judging_of(e), e.placement)
    for path in later:
        outcome.round(path, number).evaluations[ALONE] = judged[labels[path]]
    if on_result is not None:
        on_result(float(number), {path: judged[labels[path]] for path in later})
    let_weights_go(run, outcome, number)
    return later


def end_path(run: Run, outcome: Outcome, path: StudentPath, number: int, why: NothingToLearn) -> None:
    """Record that a path ends because it has no example left to learn from. The other paths continue.

    Raises:
        NothingToLearn: every path has ended and no student was ever trained.
    """
    outcome.ended[path] = number, str(why)  # the text names the path and the round
    if len(outcome.ended) == len(outcome.paths) and not any(outcome.evaluated()):
        raise why
    run.terminal.say(f"ended: {why}")


def let_weights_go(run: Run, outcome: Outcome, number: int) -> None:
    """Remove trained weights that are no longer needed, after a round has been evaluated. `keep: last` keeps
    those of the last round. `keep: best` keeps those of the round with the best evaluation, and the earlier
    of two equal ones. Until the last round, the weights of the present round are kept too. Examples that can
    be written again go with every round.
    """
    e = outcome.start.experiment
    if e.keep == "all" or run.mode != "make":
        return
    kept: set[str] = set()
    gone: dict[str, Stage] = {}
    for path in outcome.paths:
        trained = {n: stage for n in range(1, number + 1) if (stage := outcome.trained(path, n)) is not None}
        if not trained:
            continue
        judged = {n: outcome.rounds[path, n].evaluation for n in trained}
        values = {n: stage.manifest()["counts"]["value"] for n, stage in judged.items() if stage is not None}
        keep = max(values, key=lambda n: values[n]) if e.keep == "best" else max(trained)
        kept |= {trained[n].id for n in {keep, *([number] if number < e.rounds else [])} & trained.keys()}
        gone |= {stage.id: stage for stage in trained.values()}
    for identity, stage in gone.items():
        if identity not in kept:
            remove_weights(run, stage)
    for own in outcome.rounds.values():
        if own.trained is not None and own.examples is not None:
            remove_examples(run, own.examples)
