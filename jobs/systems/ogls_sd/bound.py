"""Upper bounds on the work of OGLS-SD, for a plan that cannot know the exact work yet."""

from jobs.experiment.arms.ogls_sd import OglsArm
from jobs.experiment.rollouts import Rollouts
from jobs.experiment.schema import Experiment
from jobs.run.run import Planned
from jobs.systems.ogls_sd.usable import ONE_PASS
from jobs.systems.record import Bound


def bound(e: Experiment, questions: int) -> Bound:
    """The most rollouts that are sampled, and the most that teachers read. In the first round all arms have
    the same student, so they share its rollouts.
    """
    arms = [arm for arm in e.arms if isinstance(arm, OglsArm)]
    drawn, place = e.drawn, f"{e.placement.evaluate_workers} × ({e.placement.needs})"
    one, later = min(drawn.questions, questions) * drawn.group * len(e.students), (e.rounds - 1) * e.seeds
    steered = [arm for arm in arms if arm.steered is not None]
    passes = {
        ("contexts" if a.target in ONE_PASS else a.target, a.exclude_self, a.honest, a.teacher)
        for a in steered
    }
    asked, read = one * (1 + later * len(arms)), one * (len(passes) + later * len(steered))
    said = f"at most {asked:,} rollouts of at most {drawn.max_new_tokens:,} tokens"
    work = [Planned("roll out", "in all rounds", said, place)]
    if read:
        tokens = teacher_tokens(drawn, read)
        shown = (
            f"at most {read:,} rollouts, each after at most {drawn.group + 1} solutions: {tokens:,} tokens"
        )
        shown += " beside the questions' own"
        work.append(Planned("steer", "in all rounds", shown, place))
    return Bound(work, drawn.steps_per_round)


def teacher_tokens(drawn: Rollouts, rollouts: int) -> int:
    """The most tokens that teachers compute, without those of the questions. The rollouts of a question share
    its solutions: each solution is read once. Each rollout is read after every solution, and after none.

    >>> teacher_tokens(Rollouts(group=8, max_new_tokens=8192, scored_tokens=1024), 8)
    155648
    """
    solutions = drawn.group + 1
    read = min(drawn.scored_tokens, drawn.max_new_tokens)
    once = rollouts // drawn.group * solutions * drawn.max_new_tokens
    return once + rollouts * (solutions + 1) * read
