"""What a system is to the rest of the program: one record, found by the arms of its kind.

A new system is a folder beside this file with its record under the name `SYSTEM`, a class of arms that names
the folder's module, and an entry of that class in `jobs.experiment.arms.ARMS`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from jobs.experiment.arms import Arm
from jobs.experiment.schema import Experiment
from jobs.results.outcome import OnResult, Outcome, Section, Start, StudentPath
from jobs.run.run import Planned, Run


class Teach(Protocol):
    """Lets the students of some paths, all of one system, go through every round."""

    def __call__(
        self,
        run: Run,
        start: Start,
        outcome: Outcome,
        paths: Sequence[StudentPath],
        on_result: OnResult | None = None,
        by_epoch: bool = False,
    ) -> None:
        """In a plan a path ends at the first thing that nobody has made yet.

        Args:
            outcome: gets what every path came to.
            on_result: called after every round; with `by_epoch` also after every epoch of one, where the
                system's trainings have epochs.
        """


@dataclass(frozen=True)
class Bound:
    """What a plan says of a system while it is not known what there is to do.

    Attributes:
        work: the system's own stages, at most.
        steps: optimizer steps of one training, at most.
    """

    work: Sequence[Planned]
    steps: int


def nothing_to_check(experiment: Experiment, questions: int) -> None:
    """For a system that asks nothing of an experiment beyond its arms' own settings."""


def no_sections(outcome: Outcome) -> Iterable[Section]:
    """For a system that adds nothing to the report."""
    return ()


@dataclass(frozen=True)
class System:
    """One way of teaching students: the kind of some arms.

    Attributes:
        teach: the system itself.
        bound: for a plan, of an experiment with so many training questions.
        takes_pool: it learns from teachers' verified answers; a run in which no arm does asks no teacher.
        check: refuses, before anybody is asked, an experiment with so many training questions.
        sections: what it adds to a run's report.
    """

    teach: Teach
    bound: Callable[[Experiment, int], Bound]
    takes_pool: bool = True
    check: Callable[[Experiment, int], None] = nothing_to_check
    sections: Callable[[Outcome], Iterable[Section]] = no_sections


def system_of(arm: Arm) -> System:
    """The system that teaches by an arm."""
    found = import_module(arm.system).SYSTEM
    if not isinstance(found, System):
        raise TypeError(f"SYSTEM in {arm.system} is {type(found).__name__}, and no System")
    return found


def systems_of(experiment: Experiment) -> dict[str, System]:
    """The systems of an experiment's arms by kind, in the order of its arms."""
    return {arm.kind: system_of(arm) for arm in experiment.arms}
