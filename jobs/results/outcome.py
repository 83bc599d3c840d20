"""What a run works through and what comes of it: the pool, every student's path, and the stages along it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from jobs.experiment.arms import Arm, OglsArm
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
    arm: Arm | OglsArm
    seed: int

    @property
    def choosing(self) -> Arm:
        """The arm of a path that chooses among teachers' answers.

        Raises:
            TypeError: it is an arm of another kind.
        """
        if not isinstance(self.arm, Arm):
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


@dataclass
class Outcome:
    """What a run produced: the report is a view of this.

    Attributes:
        scores: what each path chose by in each round; `chosen`, `examples`, `trained` and `evaluations` what
            followed. Of paths that choose nothing `ledgers` holds counts of states, and `rollouts` what is
            told of their rollouts; `lost` those that no teacher could read: state and reason; `learned` the
            rollouts that a training saw. `ended` says of paths that had nothing left to learn from in which
            round that was, and why.
    """

    start: Start
    paths: list[StudentPath]
    scores: dict[tuple[StudentPath, int], PoolScores] = field(default_factory=dict)
    chosen: dict[tuple[StudentPath, int], Sliced] = field(default_factory=dict)
    examples: dict[tuple[StudentPath, int], Stage] = field(default_factory=dict)
    trained: dict[tuple[StudentPath, int], Stage] = field(default_factory=dict)
    evaluations: dict[tuple[StudentPath, int], Stage] = field(default_factory=dict)
    ledgers: dict[tuple[StudentPath, int], pd.DataFrame] = field(default_factory=dict)
    rollouts: dict[tuple[StudentPath, int], dict[str, float]] = field(default_factory=dict)
    lost: dict[tuple[StudentPath, int], dict[str, list[str]]] = field(default_factory=dict)
    learned: dict[tuple[StudentPath, int], frozenset[str]] = field(default_factory=dict)
    ended: dict[StudentPath, tuple[int, str]] = field(default_factory=dict)


# Told of every evaluation on the way: rounds done (2.5 is half of the third), and each path's evaluation.
OnResult = Callable[[float, Mapping[StudentPath, Stage]], None]
