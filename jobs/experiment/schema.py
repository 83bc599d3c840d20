"""An experiment: what one YAML file says, section by section, validated before anything starts and frozen.

A section that belongs to another folder is that folder's own settings class; nothing is restated here.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.models.loading import DType
from cluster.placement import Needs
from cluster.pool import SHARD_DEADLINE_S
from cluster.session import RaySettings
from selection.costs import CostName, CostSettings
from selection.rules import RANKING_RULES, RuleName, RuleSettings, WeightName
from selection.verification import VerifySettings
from training.settings import TrainSettings

MINIATURE = "miniature:"
# Names of teachers, students and arms become parts of file names.
Name = Annotated[str, Field(pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$")]


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Fields(Section):
    """Where a row keeps things, as dotted paths (`model_a.solution`). None: the first of the usual names that
    is there.
    """

    id: str | None = None
    question: str | None = None
    reference: str | None = None
    answer: str | None = None
    system: str | None = None


class QuestionSet(Section):
    """Questions to train from, and held-out ones to evaluate on: JSONL, JSON or Parquet files, or
    `miniature:NAME`.

    `train_rows` and `evaluate_rows` take a slice `start:stop` of the file, so that one file can serve both.
    """

    train: str
    evaluate: str
    train_rows: str | None = Field(None, pattern=r"^\d*:\d*$")
    evaluate_rows: str | None = Field(None, pattern=r"^\d*:\d*$")
    train_fields: Fields = Fields()
    evaluate_fields: Fields = Fields()
    system: str | None = None
    skip_broken_lines: bool = False


class ModelTeacher(Section):
    """A teacher hosted in Ray actors from a local directory or a hub id; `labels` are those its node must
    carry.
    """

    kind: Literal["model"] = "model"
    name: Name
    path: str
    revision: str | None = None
    dtype: DType = "float32"
    trust_remote_code: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    family: str | None = None
    replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0, le=1)
    memory_gib: float = Field(0.0, ge=0)
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        """What one replica asks of the cluster."""
        return Needs(self.num_cpus, self.num_gpus, self.memory_gib, tuple(sorted(self.labels.items())))


class EndpointTeacher(Section):
    """A teacher behind an OpenAI-compatible server. The key is read from the environment variable
    `api_key_env`, never from a file.
    """

    kind: Literal["endpoint"]
    name: Name
    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    family: str | None = None
    concurrency: int = Field(8, ge=1)
    requests_per_minute: float | None = Field(None, gt=0)
    timeout_s: float = Field(60.0, gt=0)
    max_retries: int = Field(5, ge=0)
    usd_per_million_input_tokens: float = Field(0.0, ge=0)
    usd_per_million_output_tokens: float = Field(0.0, ge=0)
    budget_usd: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _budget_has_prices(self) -> "EndpointTeacher":
        if self.budget_usd is not None and not (
            self.usd_per_million_input_tokens or self.usd_per_million_output_tokens
        ):
            raise ValueError("budget_usd needs usd_per_million_input_tokens or usd_per_million_output_tokens")
        return self


class FileTeacher(Section):
    """A teacher whose answers already exist in a file."""

    kind: Literal["file"]
    name: Name
    path: str
    fields: Fields = Fields()
    family: str | None = None


Teacher = Annotated[ModelTeacher | EndpointTeacher | FileTeacher, Field(discriminator="kind")]


class Student(Section):
    """A student to fine-tune. `chat_template_kwargs` are further variables of its template, such as
    `enable_thinking: false`.
    """

    name: Name
    path: str
    revision: str | None = None
    dtype: DType = "float32"
    trust_remote_code: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)


class Generate(Section):
    """How teachers are asked. With `until_verified` a teacher is asked again, up to `max_samples`, until that
    many samples are right.
    """

    samples: int = Field(1, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)
    until_verified: int = Field(0, ge=0)
    max_samples: int = Field(4, ge=1)
    shard_size: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _sampling_makes_sense(self) -> "Generate":
        if self.temperature == 0 and (self.samples > 1 or self.until_verified):
            raise ValueError(
                "several samples at temperature 0 would all be the same; set generate.temperature above 0"
            )
        if self.until_verified and self.max_samples < max(self.samples, self.until_verified):
            raise ValueError("max_samples must be at least samples and until_verified")
        return self


class Score(Section):
    """How the student is asked what an answer would cost it; `token_budget` tokens per forward pass follow
    from the device if not set.
    """

    target_layer: str | None = None
    max_length: int = Field(4096, ge=8)
    token_budget: int | None = Field(None, ge=8)
    shard_size: int = Field(256, ge=1)


class Evaluate(Section):
    """How a student is judged on held-out questions: right answers, or loss on worked reference answers."""

    metric: Literal["accuracy", "loss"] = "accuracy"
    max_new_tokens: int = Field(512, ge=1)
    shard_size: int = Field(128, ge=1)
    baseline: str | None = None
    allow_truncation: bool = False


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
    groups: int = Field(5, ge=1)
    group: int = Field(1, ge=1)
    k: int = Field(1, ge=1)
    weights: WeightName = "equal"
    teacher: str | None = None
    temperature: float = Field(1.0, gt=0)
    threshold: float | None = None
    threshold_quantile: float | None = Field(None, gt=0, le=1)
    cap: float | None = Field(None, gt=0, le=1)

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
        if self.group > self.groups:
            raise ValueError("group is larger than groups")
        return self

    @property
    def cost_settings(self) -> CostSettings | None:
        return None if self.cost is None else CostSettings(self.cost, self.scas_lambda, self.length_exponent)

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
        )


class TrainPlacement(Section):
    """What each train worker is given; what is not set is as for the student's other actors.

    GPUs are whole: half a GPU is enough to score with, but two workers of one group cannot share one under
    NCCL.
    """

    num_cpus: float | None = Field(None, ge=0)
    num_gpus: int | None = Field(None, ge=0)
    memory_gib: float | None = Field(None, ge=0)
    labels: dict[str, str] | None = None


class Placement(Section):
    """Workers of each stage and what each is given; `labels` are those that the nodes of students must carry.
    A training is shared by `train_workers`, and `train_lanes` trainings run side by side.

    A shard, or a model's loading, that takes longer than `shard_deadline_s` counts as a death of its actor.
    Cluster settings never change results or ids.
    """

    score_workers: int = Field(2, ge=1)
    evaluate_workers: int = Field(2, ge=1)
    train_workers: int = Field(1, ge=1)
    train_lanes: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0, le=1)
    memory_gib: float = Field(0.0, ge=0)
    labels: dict[str, str] = Field(default_factory=dict)
    train: TrainPlacement = TrainPlacement()
    max_failures: int = Field(3, ge=0)
    shard_deadline_s: float = Field(SHARD_DEADLINE_S, gt=0)

    @property
    def needs(self) -> Needs:
        """What one actor with a student asks of the cluster."""
        return Needs(self.num_cpus, self.num_gpus, self.memory_gib, tuple(sorted(self.labels.items())))

    @property
    def train_needs(self) -> Needs:
        """What one train worker asks of the cluster: at least one CPU, unless a GPU does its work, and whole
        GPUs.
        """
        t = self.train
        gpus = math.ceil(self.num_gpus) if t.num_gpus is None else t.num_gpus
        cpus = t.num_cpus if t.num_cpus is not None else max(self.num_cpus, 0.1 if gpus else 1.0)
        labels = self.labels if t.labels is None else t.labels
        return Needs(
            cpus,
            float(gpus),
            self.memory_gib if t.memory_gib is None else t.memory_gib,
            tuple(sorted(labels.items())),
        )


class Miniature(Section):
    """The miniature world: which one (seed), and how many questions it offers."""

    seed: int = 0
    train_questions: int = Field(400, ge=8)
    evaluate_questions: int = Field(300, ge=8)
    scale: float = Field(1.0, gt=0, le=10)


class Draw(Section):
    """A random value of one swept key: exactly one of these."""

    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    randint: tuple[int, int] | None = None
    choice: tuple[Any, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_one(self) -> "Draw":
        given = {k: v for k, v in self.model_dump().items() if v is not None}
        if len(given) != 1:
            raise ValueError("a random value needs exactly one of uniform, loguniform, randint, choice")
        low, high = next(iter(given.values())) if self.choice is None else (0, 1)
        if low >= high or (self.loguniform is not None and low <= 0):
            raise ValueError("a range needs low < high, and low above 0 for loguniform")
        return self


class Sweep(Section):
    """What `tutelage sweep` tries. A list of values is tried whole (a grid); a random value is drawn
    `samples` times.

    Keys are those of the experiment (`train.learning_rate`), and `arm.lambda`, `arm.threshold_quantile` … of
    the swept arm, or `arm` for all of it. The other arms run once as references. Every setting is trained
    with `seeds` training seeds.
    """

    parameters: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)] | Draw] = Field(min_length=1)
    arm: str | None = None
    samples: int = Field(8, ge=1)
    seeds: int = Field(1, ge=1)
    report_every: Literal["round", "epoch"] = "round"
    stop_early: bool = False
    reduction_factor: float = Field(3.0, gt=1)
    grace: int = Field(1, ge=1)
    choose_share: float = Field(0.5, gt=0, lt=1)
    max_concurrent: int | None = Field(None, ge=1)
    max_failures: int = Field(1, ge=0)


class Experiment(Section):
    """Everything a run depends on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = 0
    seeds: int = Field(1, ge=1)
    rounds: int = Field(1, ge=1)
    limit: int | None = Field(None, ge=1)
    store: str = "store"
    runs: str = "runs"
    miniature: Miniature | None = None
    questions: QuestionSet
    teachers: tuple[Teacher, ...] = Field(min_length=1)
    students: tuple[Student, ...] = Field(min_length=1)
    arms: tuple[Arm, ...] = Field(min_length=1)
    generate: Generate = Generate()
    verify: VerifySettings = VerifySettings()
    score: Score = Score()
    train: TrainSettings = TrainSettings()
    evaluate: Evaluate = Evaluate()
    ray: RaySettings = RaySettings()
    placement: Placement = Placement()
    sweep: Sweep | None = None

    @model_validator(mode="after")
    def _names_are_clear(self) -> "Experiment":
        for what in ("teachers", "students", "arms"):
            names = [x.name for x in getattr(self, what)]
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise ValueError(f"{what} named twice: {', '.join(sorted(twice))}")
        known = {t.name for t in self.teachers}
        for arm in self.arms:
            if arm.teacher is not None and arm.teacher not in known:
                raise ValueError(
                    f"arm {arm.name} names the teacher {arm.teacher}; known are {', '.join(sorted(known))}"
                )
        if self.evaluate.baseline is not None and self.evaluate.baseline not in {a.name for a in self.arms}:
            raise ValueError(f"evaluate.baseline {self.evaluate.baseline} is no arm")
        if (
            self.sweep is not None
            and self.sweep.arm is not None
            and self.sweep.arm not in {a.name for a in self.arms}
        ):
            raise ValueError(f"sweep.arm {self.sweep.arm} is no arm")
        return self
