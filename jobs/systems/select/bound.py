"""Upper bounds on the work of arms of kind `select`, for a plan that cannot know the number of right answers
yet."""

from jobs.experiment.arms.select import SelectArm
from jobs.experiment.schema import Experiment
from jobs.run.run import Planned
from jobs.stages.measures import measuring_of
from jobs.systems.record import Bound
from training.batches import count_steps


def bound(e: Experiment, questions: int) -> Bound:
    """Upper bounds: the answers to score and to measure in the first round, for all students together, and
    the steps of one training.
    """
    arms = [arm for arm in e.arms if isinstance(arm, SelectArm)]
    samples = max(e.generate.samples, e.generate.max_samples if e.generate.until_verified else 1)
    most = questions * len(e.teachers) * samples * len(e.students)
    place = f"{e.placement.score_workers} × ({e.placement.needs})"
    further = sorted({m.label for m in map(measuring_of, arms) if m is not None})
    work = [Planned("score", "in round 1", f"at most {most:,} answers", place)]
    work += [Planned("measure", f"{name} in round 1", f"at most {most:,} answers", place) for name in further]
    return Bound(work, count_steps(questions, e.train.batch_size, e.train.epochs, e.train.steps))
