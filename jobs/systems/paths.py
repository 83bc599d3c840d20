"""Every student under every arm and training seed, and what all systems do alike on the way."""

from cluster.seeds import derive_seed
from jobs.experiment.schema import Experiment
from jobs.results.outcome import StudentPath
from jobs.stages.evaluate import Judging


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
    return Judging(e.evaluate, e.verify, e.score, e.seed)
