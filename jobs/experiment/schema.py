"""An experiment: what one YAML file says, section by section, validated before anything starts and frozen.

Each section has a file of its own in this folder; one that belongs to another folder is that folder's own
settings class. Nothing is restated here.
"""

from typing import Literal

from pydantic import Field, model_validator

from cluster.session import RaySettings
from jobs.experiment.arms import AnyArm
from jobs.experiment.elicit import Elicit
from jobs.experiment.judge import Judge
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.experiment.questions import QuestionSet
from jobs.experiment.rollouts import Rollouts
from jobs.experiment.section import Section
from jobs.experiment.stages import Evaluate, Generate, Score
from jobs.experiment.students import Student
from jobs.experiment.sweep import Sweep
from jobs.experiment.teachers import Teacher
from jobs.experiment.wheels import Wheels
from selection.verification import VerifySettings
from training.settings import TrainSettings

BEFORE = "before training"  # in tables: a student as it was, as if it were an arm
IN_HINDSIGHT = "in hindsight"  # the best single teacher, as if it were an arm


class Experiment(Section):
    """Everything a run depends on. `seed` is the seed of everything that is drawn; every arm is trained with
    `seeds` training seeds, in so many `rounds`. `limit` takes only the first questions. `store` is where
    results are kept, a folder or an object store's URI; `runs` is the folder of reports. `keep` says which
    rounds' trained weights stay; the others can be made again.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**32)
    seeds: int = Field(1, ge=1)
    rounds: int = Field(1, ge=1)
    limit: int | None = Field(None, ge=1)
    store: str = "store"
    runs: str = "runs"
    keep: Literal["all", "last", "best"] = "all"
    miniature: Miniature | None = None
    questions: QuestionSet
    teachers: tuple[Teacher, ...] = ()
    students: tuple[Student, ...] = Field(min_length=1)
    arms: tuple[AnyArm, ...] = Field(min_length=1)
    generate: Generate = Generate()
    verify: VerifySettings = VerifySettings()
    judge: Judge | None = None
    score: Score = Score()
    train: TrainSettings = TrainSettings()
    evaluate: Evaluate = Evaluate()
    ray: RaySettings = RaySettings()
    placement: Placement = Placement()
    sweep: Sweep | None = None
    rollouts: Rollouts | None = None
    elicit: Elicit | None = None
    wheels: Wheels | None = None

    @property
    def drawn(self) -> Rollouts:
        """How rollouts are drawn."""
        return self.rollouts or Rollouts()

    @model_validator(mode="after")
    def _sweep_takes_the_seeds(self) -> "Experiment":
        """A sweep that says nothing of seeds has the experiment's."""
        if self.sweep is not None and "seeds" not in self.sweep.model_fields_set and self.seeds > 1:
            own = self.sweep.model_copy(update={"seeds": self.seeds})
            object.__setattr__(self, "sweep", own)
        return self

    @model_validator(mode="after")
    def _names_are_clear(self) -> "Experiment":
        for what in ("teachers", "students", "arms"):
            names = [x.name for x in getattr(self, what)]
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise ValueError(f"{what} named twice: {', '.join(sorted(twice))}")
        taken = sorted({arm.name for arm in self.arms} & {BEFORE, IN_HINDSIGHT})
        if taken:
            raise ValueError(f"no arm can be called {taken[0]!r}: tables have rows of that name")
        self._refuse_paths_alike()
        for arm in self.arms:
            arm.check(self.teachers)
        if self.verify.method == "judge" and self.judge is None:
            raise ValueError("verify.method judge needs a section judge: an endpoint with a rubric")
        if self.judge is not None and self.judge.check_method == "function" and not self.verify.function:
            raise ValueError("judge.check_method function needs verify.function: package.module:name")
        is_unchecked = self.verify.method == "none" and self.questions.evaluate_fields.method is None
        if is_unchecked and self.evaluate.metric == "accuracy":
            raise ValueError(
                "verify.method none would call every answer of a student right; set "
                "questions.evaluate_fields.method for the held-out questions, or evaluate.metric=loss"
            )
        if self.evaluate.baseline is not None and self.evaluate.baseline not in {a.name for a in self.arms}:
            raise ValueError(f"evaluate.baseline {self.evaluate.baseline} is no arm")
        if (
            self.sweep is not None
            and self.sweep.arm is not None
            and self.sweep.arm not in {a.name for a in self.arms}
        ):
            raise ValueError(f"sweep.arm {self.sweep.arm} is no arm")
        if self.sweep is not None and len(self.arms) > 1:
            swept = self.sweep.arm or self.arms[0].name
            if self.evaluate.baseline == swept:
                raise ValueError(
                    f"evaluate.baseline {swept} is the arm that is swept: every setting of it is another "
                    "arm; name another one, or leave it out"
                )
        return self

    def _refuse_paths_alike(self) -> None:
        """A student under an arm is called by both names, in files with `-` for a space: no two of them may
        be called alike.
        """
        seen: dict[str, tuple[str, str]] = {}
        for student in self.students:
            for arm in self.arms:
                pair = student.name, arm.name
                called = " ".join(pair).replace(" ", "-").replace("/", "_")
                if seen.setdefault(called, pair) != pair:
                    (s, a), (t, b) = seen[called], pair
                    raise ValueError(
                        f"student {s!r} under arm {a!r} and student {t!r} under arm {b!r} would both be "
                        f"called {called}; rename one"
                    )
