"""What all settings of a sweep share: verified answers, and the costs and evaluations of students before
training.
"""

from collections.abc import Sequence

from jobs.experiment.parsing import resolved
from jobs.experiment.schema import Experiment
from jobs.pipeline import begin, look
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.stages.score import score_pool
from jobs.sweep.settings import Setting, experiment_of

# Settings whose experiments agree in these sections have one pool.
SHARED = (
    "seed",
    "limit",
    "miniature",
    "questions",
    "teachers",
    "students",
    "generate",
    "verify",
    "score",
    "evaluate",
)


def prepare_shared(run: Run, experiment: Experiment, settings: Sequence[Setting]) -> None:
    """Make once what the settings share: every distinct pool, and the first costs and evaluations of the
    students.
    """
    wanted = [experiment_of(experiment, s) for s in settings]
    distinct = {digest({k: v for k, v in resolved(w).items() if k in SHARED}): w for w in wanted}
    for number, one in enumerate(distinct.values(), 1):
        if len(distinct) > 1:
            run.terminal.say(f"pool {number} of {len(distinct)}")
        start = begin(run, look(run, one))
        e, students = start.experiment, list(start.students.values())
        score_pool(run, students, start.pool, e.score, e.placement)
