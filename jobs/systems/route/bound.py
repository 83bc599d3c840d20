"""What an experiment with routed arms needs, checked before anything is asked, and upper bounds on its
work.
"""

import operator
from collections.abc import Mapping
from functools import reduce

from cluster.errors import BadInput
from jobs.experiment.arms.route import RouteArm
from jobs.experiment.schema import Experiment
from jobs.results.outcome import Start, StudentPath
from jobs.run.run import Planned, Run
from jobs.stages.answers import asks_of
from jobs.stages.ask import left_to_ask
from jobs.stages.teachers import who
from jobs.systems.paths import arm_as
from jobs.systems.record import Bound
from jobs.systems.route.asking import harvest_of
from training.batches import count_steps


def arms_of(e: Experiment) -> list[RouteArm]:
    return [arm for arm in e.arms if isinstance(arm, RouteArm)]


def check(e: Experiment, questions: int) -> None:
    """Refuse what cannot work.

    Raises:
        BadInput: a first part that leaves nothing to choose, or a second reason to ask again.
    """
    for arm in arms_of(e):
        if arm.first >= questions:
            raise BadInput(
                f"arm {arm.name} asks all teachers the first questions, and no other question is left",
                f"first: {arm.first}, {questions:,} questions",
                "fewer first questions than there are questions",
                f"set first to {max(20, questions // 4)}" if questions > 20 else "give more questions",
            )
    if e.generate.until_verified:
        raise BadInput(
            "arms of kind route ask a teacher once, and generate.until_verified asks it again",
            f"until_verified: {e.generate.until_verified}",
            "one of the two",
            "remove it, and set tries on the arm: the next teacher is asked where an answer is wrong",
        )


def bound(e: Experiment, questions: int) -> Bound:
    """The most answers that are asked for and scored, for all arms, students and seeds together."""
    most = 0
    for arm in arms_of(e):
        first = min(arm.first, questions)
        tries = min(arm.tries, len(e.teachers))
        most += (first * len(e.teachers) + (questions - first) * tries) * e.generate.samples
    most *= len(e.students) * e.seeds
    every = questions * len(e.teachers) * e.generate.samples  # what two paths ask is asked once
    work = [
        Planned("generate", "for routed arms", f"at most {min(most, every):,} answers", "see placement"),
        Planned(
            "score",
            "for routed arms",
            f"at most {min(most, every * len(e.students)):,} answers",
            f"{e.placement.score_workers} × ({e.placement.needs})",
        ),
    ]
    return Bound(work, count_steps(questions, e.train.batch_size, e.train.epochs, e.train.steps))


def plan_the_rest(run: Run, start: Start, first: Mapping[StudentPath, frozenset[str]]) -> None:
    """Plan what paths may ask at most, where it is not known yet whom. Of each question the dearest teachers
    are counted.
    """
    e, harvest = start.experiment, harvest_of(start.experiment)
    times = sum(min(arm_as(path, RouteArm).tries, len(e.teachers)) for path in first)
    rest = frozenset().union(*(frozenset(start.questions) - own for own in first.values()))
    questions = [start.questions[i] for i in sorted(rest)]
    samples = range(e.generate.samples)
    each = [
        left_to_ask(
            who(t, start.hosted), e.generate.max_new_tokens, asks_of(questions, samples, t.ask_system)
        )
        for t in harvest.askable
    ]
    each.sort(key=lambda left: (left.most_usd or 0.0, left.prompt_tokens), reverse=True)
    if each:
        most = reduce(operator.add, each[:times])
        run.planned.append(Planned("generate", "routed questions, at most", most, "see placement"))
    place = f"{e.placement.score_workers} × ({e.placement.needs})"
    count = len(rest) * min(times, len(e.teachers)) * e.generate.samples * len(e.students)
    run.planned.append(Planned("score", "routed questions", f"at most {count:,} answers", place))
