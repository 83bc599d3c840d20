"""Arms of kind `route`: each question is asked of the one teacher whose answer should suit the student."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from jobs.experiment.arms.select import SelectArm
from jobs.experiment.section import Name, Section
from jobs.experiment.teachers import Teacher
from selection.costs import MEASURE_OF, CostName, CostSettings
from selection.routing import LEAST
from selection.teacher_costs import TEACHER_COSTS

NOT_OF_ONE_ANSWER = ("lark", "learned", "preference")  # lark's depends on the other answers to a question
By = Literal["router", "best", "random"]


class RouteArm(Section):
    """All teachers are asked the `first` questions. From these a small model learns whom to ask each other
    question, in the manner of PerSyn (arXiv 2510.10925). The student learns from the easiest right answer to
    each first question, and from what the chosen teachers answer to the others.

    `learnability` weighs how easy a right answer is for the student (its `cost`) against that it is right.
    If a question's answer is wrong, the next teacher in order is asked, `tries` teachers in all.

    `by`: `router` chooses by question. If it cannot tell that this is better than one teacher for all, it
    asks the best one; `force` makes it choose all the same. Controls: `best` always asks the best teacher of
    the first questions, `random` draws one.
    """

    system: ClassVar[str] = "jobs.systems.route"

    kind: Literal["route"]
    name: Name
    by: By = "router"
    first: int = Field(100, ge=LEAST, le=5000)
    learnability: float = Field(0.4, ge=0, le=1)
    cost: CostName = "naturalness"
    scas_lambda: float = Field(0.5, ge=0, le=1, alias="lambda")
    length_exponent: float = Field(1.0, ge=0, le=1)
    tries: int = Field(1, ge=1)
    force: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "RouteArm":
        if self.cost in MEASURE_OF or self.cost in TEACHER_COSTS or self.cost in NOT_OF_ONE_ANSWER:
            raise ValueError(f"cost {self.cost} is no cost of one answer after one pass; use scas, say")
        if self.by != "router" and self.force:
            raise ValueError(f"by {self.by} reads no force")
        return self

    @property
    def chooser(self) -> SelectArm:
        """The rule that takes the easiest right answer to each question."""
        given = {"name": self.name, "rule": "minimum", "cost": self.cost, "lambda": self.scas_lambda}
        return SelectArm.model_validate(given | {"length_exponent": self.length_exponent})

    @property
    def cost_settings(self) -> CostSettings:
        return CostSettings(self.cost, self.scas_lambda, self.length_exponent)

    def check(self, teachers: Sequence[Teacher]) -> None:
        """Check that there are teachers to choose among.

        Raises:
            ValueError: there are fewer than two.
        """
        if len(teachers) < 2:
            raise ValueError(f"arm {self.name} chooses whom to ask, and there are {len(teachers)} teachers")
