"""The inputs and results of a run in memory: the pool, the path of every student, and the stages of each
path."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from jobs.experiment.arms import Arm
from jobs.experiment.arms.route import RouteArm
from jobs.experiment.arms.select import SelectArm
from jobs.experiment.schema import Experiment
from jobs.files.questions import Question, Refused
from jobs.run.slices import Sliced
from jobs.run.store import Stage
from jobs.stages.pool import AnswerPool
from jobs.stages.score import PoolScores
from jobs.stages.states import ModelState


@dataclass(frozen=True)
class StudentPath:
    """One student under one arm and one training seed, through all rounds."""

    student: str
    arm: Arm
    seed: int

    @property
    def choosing(self) -> SelectArm:
        """How the path chooses among teachers' answers.

        Raises:
            TypeError: it does not choose among them.
        """
        if isinstance(self.arm, RouteArm):
            return self.arm.chooser
        if not isinstance(self.arm, SelectArm):
            raise TypeError(f"{self.label} chooses among no teacher's answers")
        return self.arm

    @property
    def label(self) -> str:
        return f"{self.student} {self.arm.name} seed {self.seed}"


@dataclass(frozen=True)
class Data:
    """What was found while the questions' files were read.

    Attributes:
        lines: the detected layout, as it was printed.
        refused: the rows of the training file that could not be read as questions.
        overlap: the number of held-out questions that equal or nearly equal a training question and were
            allowed.
    """

    lines: tuple[str, ...] = ()
    refused: Sequence[Refused] = ()
    overlap: int = 0


@dataclass
class Start:
    """The common starting point of all arms: the questions, the pool, and the evaluated students before
    training.

    Attributes:
        experiment: the experiment, with paths in place of the names of a miniature world's models.
        before: the evaluation of each student before training, by name.
        hosted: the teachers that this cluster hosts, by name.
    """

    experiment: Experiment
    questions: dict[str, Question]
    held_out: list[Question]
    pool: AnswerPool
    students: dict[str, ModelState]
    before: dict[str, Stage]
    data: Data = Data()
    hosted: dict[str, ModelState] = field(default_factory=dict)

    @property
    def asked(self) -> list[str]:
        """The names of the teachers whose answers are in the pool, in the experiment's order. Empty if no arm
        learns from teachers' answers.
        """
        return list(self.pool.accuracy)


@dataclass(frozen=True)
class SetAside:
    """A row that was excluded from learning because it failed.

    Attributes:
        row: the row's name, as shown to users.
        stage: the stage in which it failed.
        look: the command that examines the row again. Empty if there is none.
    """

    row: str
    stage: str
    state: str
    reason: str
    look: str = ""


@dataclass(frozen=True)
class Point:
    """A point of a curve, with its interval."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curves:
    """Points by line, which a report draws in one figure. `x` and `y` are the names of the axes."""

    x: str
    y: str
    lines: Mapping[str, Sequence[Point]]


@dataclass(frozen=True)
class Section:
    """A section that a system adds to a run's report.

    Attributes:
        id: the section's anchor in the page.
        about: one or two sentences below the heading.
        table: the section's numbers.
        notes: lists of lines, each by the sentence that introduces it.
        curves: a figure of some of the numbers, in panels of which each has the same lines.
    """

    id: str
    title: str
    about: str
    table: pd.DataFrame
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    curves: Sequence[Curves] = ()


ALONE = "alone"  # the condition of an evaluation in which the student answers by itself


@dataclass
class Round:
    """The results of one path in one round. An attribute is None if the path has no such result.

    Attributes:
        scores: the costs that the path chose by. Only paths that choose among teachers' answers have them.
        chosen: the path's choice, with its ledger.
        examples, trained: the training examples, and the training on them.
        evaluations: the evaluations after the training, by condition.
        ledger: counts of final states (columns kind, state, count), if the path does not choose among
            teachers' answers. Otherwise `chosen` holds the ledger.
        set_aside: the failed rows of the system's own stages.
        figures: further numbers about this round, by name.
        learned: the names of the rows that the training saw, if the system compares paths by them.
    """

    scores: PoolScores | None = None
    chosen: Sliced | None = None
    examples: Stage | None = None
    trained: Stage | None = None
    evaluations: dict[str, Stage] = field(default_factory=dict)
    ledger: pd.DataFrame | None = None
    set_aside: list[SetAside] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    learned: frozenset[str] = frozenset()

    @property
    def evaluation(self) -> Stage | None:
        """The evaluation in which the student answered without help."""
        return self.evaluations.get(ALONE)


@dataclass
class Outcome:
    """All results of a run. The report shows them.

    Attributes:
        rounds: the results of every path in every round, in the order in which they were made.
        ended: for each path that had nothing left to learn from, the round in which it ended and the reason.
        sections: the sections that the run's systems add to the report. A system may add some while it
            teaches.
    """

    start: Start
    paths: list[StudentPath]
    rounds: dict[tuple[StudentPath, int], Round] = field(default_factory=dict)
    ended: dict[StudentPath, tuple[int, str]] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)

    def round(self, path: StudentPath, number: int) -> Round:
        """Return a path's round. An empty one is created if it does not exist."""
        return self.rounds.setdefault((path, number), Round())

    def choices(self) -> Iterator[tuple[StudentPath, int, PoolScores, Sliced]]:
        """Iterate over all choices among teachers' answers: path, round, the costs used, and the choice."""
        for (path, number), own in self.rounds.items():
            if own.scores is not None and own.chosen is not None:
                yield path, number, own.scores, own.chosen

    def chosen(self, path: StudentPath, number: int) -> Sliced | None:
        """What a path chose in a round; None where it chose nothing."""
        own = self.rounds.get((path, number))
        return None if own is None else own.chosen

    def scores(self, path: StudentPath, number: int) -> PoolScores | None:
        """The costs that a path chose by in a round; None where it chose nothing."""
        own = self.rounds.get((path, number))
        return None if own is None else own.scores

    def first_scores(self, student: str) -> PoolScores | None:
        """A student's costs before training: of all answers in the pool if a path has them, else those that
        the first path chose by. None if no path chose among teachers' answers.
        """
        own = [s for path, number, s, _ in self.choices() if number == 1 and path.student == student]
        whole = (scores for scores in own if scores.pool.id == self.start.pool.id)
        return next(whole, own[0] if own else None)

    def trained(self, path: StudentPath, number: int) -> Stage | None:
        """A path's training of a round; None where it has none."""
        own = self.rounds.get((path, number))
        return None if own is None else own.trained

    def evaluated(self) -> Iterator[tuple[StudentPath, int, Stage]]:
        """Iterate over the evaluations of trained students that answered without help: path, round,
        evaluation.
        """
        for (path, number), own in self.rounds.items():
            if own.evaluation is not None:
                yield path, number, own.evaluation


# Called after each evaluation: rounds done (2.5 is half of the third), and each path's evaluation.
OnResult = Callable[[float, Mapping[StudentPath, Stage]], None]
