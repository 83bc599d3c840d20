"""Every student under every arm and training seed, and what all systems do alike on the way."""

from cluster.seeds import derive_seed
from jobs.experiment.schema import Experiment
from jobs.results.outcome import Outcome, StudentPath
from jobs.run.run import Run
from jobs.run.store import Stage
from jobs.stages.check import Checks
from jobs.stages.evaluate import Judging
from jobs.stages.train import NothingToLearn, remove_weights


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


def end_path(run: Run, outcome: Outcome, path: StudentPath, number: int, why: NothingToLearn) -> None:
    """Let a path end that has nothing left to learn from, while the others go on.

    Raises:
        NothingToLearn: it was the last of all, in the first round: nothing was trained.
    """
    outcome.ended[path] = number, str(why)  # which says whose and in which round
    if len(outcome.ended) == len(outcome.paths) and not outcome.evaluations:
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
        rounds = [n for n in range(1, number + 1) if (path, n) in outcome.trained]
        if not rounds:
            continue
        best = max(rounds, key=lambda n: outcome.evaluations[path, n].manifest()["counts"]["value"])
        keep = best if e.keep == "best" else rounds[-1]
        kept |= {outcome.trained[path, n].id for n in {keep, *([number] if number < e.rounds else [])}}
        gone |= {outcome.trained[path, n].id: outcome.trained[path, n] for n in rounds}
    for identity, stage in gone.items():
        if identity not in kept:
            remove_weights(run, stage)
