"""Every student under every arm and training seed, and what all systems do alike on the way."""

from collections.abc import Mapping

from cluster.seeds import derive_seed
from jobs.experiment.schema import Experiment
from jobs.results.outcome import ALONE, OnResult, Outcome, Start, StudentPath
from jobs.run.run import Run
from jobs.run.store import Stage
from jobs.stages.check import Checks
from jobs.stages.evaluate import Judging, evaluate_students
from jobs.stages.states import ModelState, Training
from jobs.stages.train import NothingToLearn, remove_weights, train_students


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


def judging_of(experiment: Experiment) -> Judging:
    """How this experiment judges students."""
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
    """The end of a round: train, evaluate, tell, and let weights go that nobody will need. In a plan paths
    whose training is not there are left out.

    Args:
        now: the students as they are.
        on_result: told of the evaluations.

    Returns:
        The trained students.
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
    """Let a path end that has nothing left to learn from, while the others go on.

    Raises:
        NothingToLearn: it was the last of all, in the first round: nothing was trained.
    """
    outcome.ended[path] = number, str(why)  # which says whose and in which round
    if len(outcome.ended) == len(outcome.paths) and not any(outcome.evaluated()):
        raise why
    run.terminal.say(f"ended: {why}")


def let_weights_go(run: Run, outcome: Outcome, number: int) -> None:
    """After a round has been judged, remove the trained weights that nobody will need: `keep: last` keeps
    those of the last round, `best` those of the round that was judged best, of the earlier of equals.
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
