"""What a run works through and what comes of it: the pool, every student's path, and the stages along it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from jobs.experiment.arms import Arm
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
    """One student's way through the rounds under one arm and one training seed."""

    student: str
    arm: Arm
    seed: int

    @property
    def choosing(self) -> SelectArm:
        """The arm of a path that chooses among teachers' answers.

        Raises:
            TypeError: it is an arm of another kind.
        """
        if not isinstance(self.arm, SelectArm):
            raise TypeError(f"{self.label} chooses among no teacher's answers")
        return self.arm

    @property
    def label(self) -> str:
        return f"{self.student} {self.arm.name} seed {self.seed}"


@dataclass(frozen=True)
class Data:
    """What was seen of the questions' files.

    Attributes:
        lines: what was detected, as it was printed.
        refused: rows of the training file of which no question could be made.
        overlap: held-out questions that are also trained on, or nearly, and were allowed.
    """

    lines: tuple[str, ...] = ()
    refused: Sequence[Refused] = ()
    overlap: int = 0


@dataclass
class Start:
    """Where all arms set out from: the questions, the pool, and the students as they are, evaluated.

    Attributes:
        experiment: with the paths of a world's models in place of their names.
        hosted: the teachers that are hosted here, by name.
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
        """The names of the teachers whose answers are in the pool, in the experiment's order: of all, or of
        none where no arm learns from answers.
        """
        return list(self.pool.accuracy)


@dataclass(frozen=True)
class SetAside:
    """A row that could not be learned from for a named failure.

    Attributes:
        row: its name, for people.
        stage: where it failed.
        look: the command that looks at it again; empty where there is none.
    """

    row: str
    stage: str
    state: str
    reason: str
    look: str = ""


@dataclass(frozen=True)
class Section:
    """What a system adds to a run's report, under a heading of its own.

    Attributes:
        id: of the place in the page.
        about: a sentence or two below the heading.
        table: its figures.
        notes: by what is said before them, lines.
    """

    id: str
    title: str
    about: str
    table: pd.DataFrame
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


ALONE = "alone"  # the condition of an evaluation in which the student answers by itself


@dataclass
class Round:
    """What one path did in one round; None where it came to no such thing.

    Attributes:
        scores: the costs that it chose by, where it chose among teachers' answers, and its choice.
        examples, trained: what it learned from, and the training.
        evaluations: of the student after the training, by condition.
        ledger: counts of final states (columns kind, state, count) of a path that chose among no teacher's
            answers: `chosen` holds those of one that did.
        set_aside: rows of the system's own that failed.
        figures: what the system tells of this round, by name.
        learned: names of the rows that the training saw, where the system compares paths by them.
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
        """The evaluation in which the student answered by itself."""
        return self.evaluations.get(ALONE)


@dataclass
class Outcome:
    """What a run produced: the report is a view of this.

    Attributes:
        rounds: what every path did, round by round, in the order in which it was done.
        ended: of paths that had nothing left to learn from, the round in which that was, and why.
        sections: what its systems add to the report.
    """

    start: Start
    paths: list[StudentPath]
    rounds: dict[tuple[StudentPath, int], Round] = field(default_factory=dict)
    ended: dict[StudentPath, tuple[int, str]] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)

    def round(self, path: StudentPath, number: int) -> Round:
        """A path's round; a new one where it has not begun."""
        return self.rounds.setdefault((path, number), Round())

    def choices(self) -> Iterator[tuple[StudentPath, int, PoolScores, Sliced]]:
        """Every choice among teachers' answers: path, round, the costs it was made by, and the choice."""
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

    def trained(self, path: StudentPath, number: int) -> Stage | None:
        """A path's training of a round; None where it has none."""
        own = self.rounds.get((path, number))
        return None if own is None else own.trained

    def evaluated(self) -> Iterator[tuple[StudentPath, int, Stage]]:
        """Every evaluation of a student by itself after a training: path, round, evaluation."""
        for (path, number), own in self.rounds.items():
            if own.evaluation is not None:
                yield path, number, own.evaluation


# Told of every evaluation on the way: rounds done (2.5 is half of the third), and each path's evaluation.
OnResult = Callable[[float, Mapping[StudentPath, Stage]], None]
