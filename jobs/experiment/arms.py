"""The ways of teaching that an experiment compares: arms, of a kind for each system."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cluster.errors import BadInput
from jobs.experiment.section import Name, Section
from selection.costs import FEATURES, CostName, CostSettings
from selection.rules import RANKING_RULES, RuleName, RuleSettings, WeightName
from training.targets import ClipName, DivergenceName, DivergenceSettings, SteeredSettings, check_steered


class Arm(Section):
    """One way of teaching a student, by the system of its kind; its whole path goes through every round of
    training and evaluation. `select` chooses among the teachers' answers: a rule over a cost.
    """

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
    def _rule_and_cost_fit(self) -> "Arm":
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
        if self.weights == "margin" and self.rule != "top_k":
            raise ValueError("weights: margin is for rule top_k")
        strange = sorted({name for name, _ in self.coefficients} - set(FEATURES))
        if strange or (self.cost == "learned") != bool(self.coefficients):
            wanted = f"coefficients of {', '.join(FEATURES)}"
            raise ValueError(f"cost learned takes {wanted}; got {', '.join(strange) or 'none'}")
        for name, cost in (("window", "local_naturalness"), ("beta", "car")):
            if getattr(self, name) != type(self).model_fields[name].default and self.cost != cost:
                raise ValueError(f"{name} is for cost {cost}")
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


OglsTarget = Literal[
    "ogls",
    "lambda_zero",
    "positive_only",
    "positive_mean",
    "opsd",
    "opsd_incorrect",
    "shuffled",
    "sdpo",
    "gkd",
    "rejection_sampling",
]


SDPO_TOP_K = 100  # as in its published code


class OglsArm(Section):
    """The student learns from its own rollouts (OGLS-SD, arXiv 2605.12400, and its relatives); how they are
    drawn is said for all such arms in `rollouts`.

    `target` is what each token is drawn to, see `docs/ogls_sd.md`. `lambda` is the largest, reached after
    `ramp` optimizer steps. `exclude_self` leaves a rollout and its copies out of its own wrong pool; `honest`
    tells the teacher that a wrong attempt is wrong. `normalise` by tokens or by rows. `tail_weight` trains on
    the ends of short right rollouts by cross-entropy (v2 of the paper). `teacher` is `gkd`'s.
    """

    kind: Literal["ogls_sd"]
    name: Name
    target: OglsTarget = "ogls"
    most_lambda: float = Field(3.0, ge=0, alias="lambda")
    ramp: int = Field(50, ge=0)
    divergence: DivergenceName | None = None
    beta: float = Field(0.5, ge=0, le=1)
    clip: ClipName | None = None
    threshold: float = Field(0.05, gt=0)
    temperature: float = Field(1.0, gt=0)
    top_k: int | None = Field(None, ge=1)
    allow_small_beta: bool = False
    exclude_self: bool = False
    honest: bool = False
    normalise: Literal["token", "row"] = "token"
    tail_weight: float = Field(0.0, ge=0)
    tail_tokens: int = Field(128, ge=1)
    teacher: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: Any) -> Any:
        """Whoever does not speak of `top_k` gets `sdpo`'s own, as a value: what a run writes down of its
        experiment says it too.
        """
        if (
            not isinstance(given, Mapping)
            or given.get("target") != "sdpo"
            or given.get("divergence") == "sampled"
        ):
            return given
        return {"top_k": SDPO_TOP_K, **given}

    @model_validator(mode="after")
    def _fits(self) -> "OglsArm":
        if (self.target == "gkd") != (self.teacher is not None):
            raise ValueError("target gkd needs the name of a hosted teacher, and no other target takes one")
        for name, readers in READERS.items():
            setting = type(self).model_fields[name]
            if self.target not in readers and getattr(self, name) != setting.default:
                key = setting.alias or name
                raise ValueError(f"target {self.target} reads no {key}; it is for {', '.join(readers)}")
        try:
            if self.steered is not None:
                check_steered(self.steered)
        except BadInput as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def steered(self) -> SteeredSettings | None:
        """The objective's settings; None where rollouts are learned from by cross-entropy."""
        if self.target == "rejection_sampling":
            return None
        base, plus, minus = TARGETS[self.target]
        usual: tuple[DivergenceName, ClipName] = (
            ("jsd", "none") if self.target in ("sdpo", "gkd") else ("forward", "two_sided")
        )
        clip = self.clip or ("none" if self.divergence == "sampled" else usual[1])
        about = (self.divergence or usual[0], self.beta, clip, self.threshold, self.temperature, self.top_k)
        divergence = DivergenceSettings(*about, self.allow_small_beta)
        return SteeredSettings(base, plus, minus, self.most_lambda, self.ramp, divergence)

    # What arms of every kind say of choosing: these choose among no teacher's answers.
    @property
    def cost(self) -> None:
        return None

    @property
    def cost_settings(self) -> None:
        return None

    @property
    def rule(self) -> str:
        return "rollouts"


# States that a target is made of: base, and what lambda times the difference of is added.
TARGETS: dict[str, tuple[str, str | None, str | None]] = {
    "ogls": ("h0", "h_pos", "h_neg"),
    "shuffled": ("h0", "h_pos", "h_neg"),
    "lambda_zero": ("h0", None, None),
    "positive_only": ("h0", "h_pos", "h0"),
    "positive_mean": ("h_pos", None, None),
    "opsd": ("h_s", None, None),
    "opsd_incorrect": ("h_s", None, None),
    "sdpo": ("h_pos", None, None),
    "gkd": ("h0", None, None),
}

# Which targets read a setting, where not all do: those with a direction, those with a divergence, those whose
# rows follow from pools, those that learn from wrong rollouts alone.
STEERED = tuple(TARGETS)
DIRECTED = tuple(target for target, (_, plus, _) in TARGETS.items() if plus is not None)
POOLED = tuple(target for target in TARGETS if target not in ("sdpo", "gkd"))
OF_WRONG = tuple(target for target in POOLED if target != "opsd")
DIVERGENCE = ("divergence", "beta", "clip", "threshold", "temperature", "top_k", "allow_small_beta")
READERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(DIVERGENCE, STEERED),
    **dict.fromkeys(("most_lambda", "ramp"), DIRECTED),
    **dict.fromkeys(("exclude_self", "honest"), POOLED),
    **dict.fromkeys(("tail_weight", "tail_tokens"), OF_WRONG),
}

AnyArm = Annotated[Arm | OglsArm, Field(discriminator="kind")]
