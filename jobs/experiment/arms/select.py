"""Arms of kind `select`: a rule chooses among the teachers' answers by their costs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from jobs.experiment.section import Name, Section
from jobs.experiment.teachers import Teacher, check_teacher
from selection.costs import FEATURES, CostName, CostSettings
from selection.rules import RANKING_RULES, RuleName, RuleSettings, WeightName

# settings that one rule alone reads
READ_BY: Mapping[str, RuleName] = {
    "teacher": "teacher",
    "groups": "groups",
    "group": "groups",
    "temperature": "softmax",
    "k": "top_k",
}
# settings that some costs alone read
OF_COSTS = {
    "window": ("local_naturalness",),
    "beta": ("car",),
    "scas_lambda": ("scas",),
    "length_exponent": ("scas",),
}


class SelectArm(Section):
    """The student learns from verified teachers' answers that a rule chooses by a cost.

    Each arm has its own training and evaluation in every round.
    """

    system: ClassVar[str] = "jobs.systems.select"

    kind: Literal["select"] = "select"
    name: Name
    rule: RuleName = "groups"
    cost: CostName | None = None
    scas_lambda: float = Field(0.5, ge=0, le=1, alias="lambda")
    length_exponent: float = Field(1.0, ge=0, le=1)
    window: int = Field(4, ge=0)
    beta: float = Field(1.0, ge=0)
    coefficients: tuple[tuple[str, float], ...] = ()
    groups: int = Field(5, ge=1)
    group: int = Field(1, ge=1)
    k: int = Field(1, ge=1)
    weights: WeightName = "equal"
    teacher: str | None = None
    temperature: float = Field(1.0, gt=0)
    threshold: float | None = None
    threshold_quantile: float | None = Field(None, gt=0, le=1)
    cap: float | None = Field(None, gt=0, le=1)
    most_questions: int | None = Field(None, ge=1)

    @field_validator("coefficients", mode="before")
    @classmethod
    def _from_mapping(cls, given: Any) -> Any:
        return tuple(sorted(given.items())) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _rule_and_cost_fit(self) -> "SelectArm":
        if self.rule in RANKING_RULES and self.cost is None:
            raise ValueError(f"rule {self.rule} ranks by a cost; set cost, for example scas")
        thresholds = [t for t in (self.threshold, self.threshold_quantile) if t is not None]
        if self.rule not in RANKING_RULES and self.cost is not None and not thresholds:
            raise ValueError(f"rule {self.rule} reads no cost; remove cost")
        if thresholds and self.cost is None:
            raise ValueError("a threshold is on a cost; set cost, for example scas")
        if len(thresholds) > 1:
            raise ValueError("set threshold or threshold_quantile, not both")
        if self.rule == "teacher" and self.teacher is None:
            raise ValueError("rule teacher needs the name of a teacher")
        for name, rule in READ_BY.items():
            if getattr(self, name) != type(self).model_fields[name].default and self.rule != rule:
                raise ValueError(f"rule {self.rule} reads no {name}; it is for rule {rule}")
        if self.weights == "margin" and self.rule != "top_k":
            raise ValueError("weights: margin is for rule top_k")
        strange = sorted({name for name, _ in self.coefficients} - set(FEATURES))
        if strange or (self.cost == "learned") != bool(self.coefficients):
            wanted = f"coefficients of {', '.join(FEATURES)}"
            raise ValueError(f"cost learned takes {wanted}; got {', '.join(strange) or 'none'}")
        for name, costs in OF_COSTS.items():
            field = type(self).model_fields[name]
            if getattr(self, name) != field.default and self.cost not in costs:
                raise ValueError(f"{field.alias or name} is for cost {', '.join(costs)}")
        if self.weights == "margin" and self.cost in ("ifd", "car", "grace"):
            raise ValueError(
                f"weights: margin weighs by how far costs differ, which says nothing for {self.cost}"
            )
        if self.group > self.groups:
            raise ValueError("group is larger than groups")
        return self

    @property
    def cost_settings(self) -> CostSettings | None:
        if self.cost is None:
            return None
        return CostSettings(
            self.cost,
            self.scas_lambda,
            self.length_exponent,
            self.window,
            self.beta,
            self.coefficients,
        )

    @property
    def rule_settings(self) -> RuleSettings:
        return RuleSettings(
            name=self.rule,
            groups=self.groups,
            group=self.group,
            k=self.k,
            weights=self.weights,
            teacher=self.teacher,
            temperature=self.temperature,
            threshold=self.threshold,
            threshold_quantile=self.threshold_quantile,
            cap=self.cap,
            most_questions=self.most_questions,
        )

    @property
    def only_teacher(self) -> str | None:
        """The one teacher whose answers this arm uses. None if it may use any teacher's."""
        return self.teacher if self.rule == "teacher" else None

    def check(self, teachers: Sequence[Teacher]) -> None:
        """Check that the experiment has teachers, and the one that this arm names.

        Raises:
            ValueError: it has not. Gives the names of its teachers.
        """
        if not teachers:
            raise ValueError(f"arm {self.name} chooses among teachers' answers, and there are no teachers")
        if self.cost == "preference":
            raise ValueError(
                f"arm {self.name}: cost preference is for arms of kind arte, variant best_scored"
            )
        check_teacher(self.name, self.teacher, teachers)


def choosing_arms(arms: Iterable[object]) -> list[SelectArm]:
    """The arms of kind `select` among some arms."""
    return [arm for arm in arms if isinstance(arm, SelectArm)]


def single_teachers(arms: Iterable[object]) -> dict[str, str]:
    """The arms that use the answers of one fixed teacher: arm's name -> teacher's name."""
    return {arm.name: arm.only_teacher for arm in choosing_arms(arms) if arm.only_teacher is not None}


def strongest_arm(arms: Iterable[object]) -> str | None:
    """The name of the first arm that learns from the strongest teacher. None if there is no such arm."""
    return next((arm.name for arm in choosing_arms(arms) if arm.rule == "strongest"), None)
