"""The interface of a system. A system is one record of type `System`, which the arms of its kind refer to.

To add a system, create a folder beside this file with its record under the name `SYSTEM`. Then add a class of
arms that names the folder's module, and enter that class in `jobs.experiment.arms.ARMS`.
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
    """Takes the students of some paths through all rounds. All paths belong to one system."""

    def __call__(
        self,
        run: Run,
        start: Start,
        outcome: Outcome,
        paths: Sequence[StudentPath],
        on_result: OnResult | None = None,
        by_epoch: bool = False,
    ) -> None:
        """Teach the students. In plan mode a path stops at the first result that does not exist yet.

        Args:
            outcome: the results of every path are added here.
            on_result: called after every round. With `by_epoch` it is also called after every epoch, if the
                system's trainings have epochs.
        """


@dataclass(frozen=True)
class Bound:
    """Upper bounds on a system's work. A plan prints them if it cannot know the exact work yet.

    Attributes:
        work: the system's own stages, each with an upper bound.
        steps: the most optimizer steps of one training.
    """

    work: Sequence[Planned]
    steps: int


def nothing_to_check(experiment: Experiment, questions: int) -> None:
    """The default of `System.check`: accept every experiment."""


def no_sections(outcome: Outcome) -> Iterable[Section]:
    """The default of `System.sections`: add nothing to the report."""
    return ()


@dataclass(frozen=True)
class System:
    """One way of teaching students. All arms of one kind use the same system.

    Attributes:
        teach: runs the system's algorithm.
        bound: bounds the work for an experiment and its number of training questions.
        takes_pool: whether the system learns from teachers' verified answers. If no arm of a run does, no
            teacher is asked.
        check: refuses an unsuitable experiment, given its number of training questions, before any model is
            asked.
        sections: returns the system's sections of the run's report.
    """

    teach: Teach
    bound: Callable[[Experiment, int], Bound]
    takes_pool: bool = True
    check: Callable[[Experiment, int], None] = nothing_to_check
    sections: Callable[[Outcome], Iterable[Section]] = no_sections


def system_of(arm: Arm) -> System:
    """Import and return the system that an arm uses."""
    found = import_module(arm.system).SYSTEM
    if not isinstance(found, System):
        raise TypeError(f"SYSTEM in {arm.system} is {type(found).__name__}, and no System")
    return found


def systems_of(experiment: Experiment) -> dict[str, System]:
    """Map each kind of arm in the experiment to its system, in the order of the arms."""
    return {arm.kind: system_of(arm) for arm in experiment.arms}
