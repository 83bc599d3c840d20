"""An experiment: one YAML file with dotted overrides, validated before anything starts, frozen, saved as resolved.

A section that belongs to another folder is that folder's own settings class; nothing is restated here.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cluster.errors import BadInput
from cluster.loading import DType
from cluster.pool import Needs
from cluster.session import RaySettings
from selection.costs import CostName, CostSettings
from selection.rules import RANKING_RULES, RuleName, RuleSettings, WeightName
from selection.verification import VerifySettings
from training.loop import LoraSettings, TrainSettings, check_settings

MINIATURE = "miniature:"


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Fields(Section):
    """Where a row keeps things, as dotted paths (`model_a.solution`). None: the first of the usual names that is there."""

    id: str | None = None
    question: str | None = None
    reference: str | None = None
    answer: str | None = None
    system: str | None = None


class QuestionSet(Section):
    """Questions to train from, and held-out ones to evaluate on: JSONL, JSON or Parquet files, or `miniature:NAME`.

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
    """A teacher hosted in Ray actors from a local directory or a hub id; `labels` are those its node must carry."""

    kind: Literal["model"] = "model"
    name: str
    path: str
    revision: str | None = None
    dtype: DType = "float32"
    trust_remote_code: bool = False
    chat_template: str | None = None
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
    """A teacher behind an OpenAI-compatible server. The key is read from the environment variable `api_key_env`, never from a file."""

    kind: Literal["endpoint"]
    name: str
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
        if self.budget_usd is not None and not (self.usd_per_million_input_tokens or self.usd_per_million_output_tokens):
            raise ValueError("budget_usd needs usd_per_million_input_tokens or usd_per_million_output_tokens")
        return self


class FileTeacher(Section):
    """A teacher whose answers already exist in a file."""

    kind: Literal["file"]
    name: str
    path: str
    fields: Fields = Fields()
    family: str | None = None


Teacher = Annotated[ModelTeacher | EndpointTeacher | FileTeacher, Field(discriminator="kind")]


class Student(Section):
    """A student to fine-tune."""

    name: str
    path: str
    revision: str | None = None
    dtype: DType = "float32"
    trust_remote_code: bool = False
    chat_template: str | None = None


class Generate(Section):
    """How teachers are asked. With `until_verified` a teacher is asked again, up to `max_samples`, until that many samples are right."""

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
            raise ValueError("several samples at temperature 0 would all be the same; set generate.temperature above 0")
        if self.until_verified and self.max_samples < max(self.samples, self.until_verified):
            raise ValueError("max_samples must be at least samples and until_verified")
        return self


class Score(Section):
    """How the student is asked what an answer would cost it; `token_budget` tokens per forward pass follow from the device if not set."""

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
    """One selector: a rule over a cost. Its whole path goes through every round of training and evaluation."""

    name: str
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


class Placement(Section):
    """Workers of each stage and what each is given; `labels` are those that the nodes of students must carry.

    Cluster settings never change results or ids.
    """

    score_workers: int = Field(2, ge=1)
    evaluate_workers: int = Field(2, ge=1)
    train_workers: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0, le=1)
    memory_gib: float = Field(0.0, ge=0)
    labels: dict[str, str] = Field(default_factory=dict)
    max_failures: int = Field(3, ge=0)

    @property
    def needs(self) -> Needs:
        """What one actor with a student asks of the cluster."""
        return Needs(self.num_cpus, self.num_gpus, self.memory_gib, tuple(sorted(self.labels.items())))


class Miniature(Section):
    """The miniature world: which one (seed), and how many questions it offers."""

    seed: int = 0
    train_questions: int = Field(400, ge=8)
    evaluate_questions: int = Field(300, ge=8)
    scale: float = Field(1.0, gt=0, le=10)


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
                raise ValueError(f"arm {arm.name} names the teacher {arm.teacher}; known are {', '.join(sorted(known))}")
        if self.evaluate.baseline is not None and self.evaluate.baseline not in {a.name for a in self.arms}:
            raise ValueError(f"evaluate.baseline {self.evaluate.baseline} is no arm")
        return self


def load_experiment(path: Path, overrides: list[str] | None = None) -> Experiment:
    """Read an experiment file and lay `key.sub=value` overrides over it; values are YAML.

    Raises:
        BadInput: a missing file, broken YAML, an unknown key (with the nearest known one), a value that does not fit.
    """
    if not path.is_file():
        raise BadInput("no experiment file there", path, "a YAML file", "see experiments/ for ready ones")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not YAML", " ".join(str(error).split()), "", "check the indentation there") from error
    if not isinstance(tree, dict):
        raise BadInput(f"{path} holds no experiment", type(tree).__name__, "a mapping of sections", "see experiments/quickstart.yaml")
    for override in overrides or []:
        _apply(tree, override)
    return parse_experiment(tree)


def parse_experiment(tree: dict[str, Any]) -> Experiment:
    """Validate a tree of plain values."""
    try:
        experiment = Experiment.model_validate(_with_default_kinds(tree))
    except ValidationError as error:
        raise BadInput(*_first_problem(error)) from error
    check_settings(experiment.train)
    return experiment


def _with_default_kinds(tree: dict[str, Any]) -> dict[str, Any]:
    """A teacher without `kind` is a model."""
    teachers = tree.get("teachers")
    if isinstance(teachers, list):
        tree = {**tree, "teachers": [{"kind": "model", **t} if isinstance(t, dict) else t for t in teachers]}
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key; a number in the path is a list index."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise BadInput("an override has no value", override, "key.sub=value", "")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"the value of {key} is not YAML", text, "", "quote it") from error
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        if isinstance(node, list):
            node = _item(node, part, key)
            continue
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict | list):
            raise BadInput(f"{key} goes below a plain value", override, "a section", "")
    if isinstance(node, list):
        _item(node, last, key)
        node[int(last)] = value
    else:
        node[last] = value


def _item(items: list[Any], part: str, key: str) -> Any:
    if not part.isdigit() or int(part) >= len(items):
        raise BadInput(f"{key} names no item", part, f"an index from 0 to {len(items) - 1}", "")
    return items[int(part)]


SECTIONS: dict[str, tuple[type, ...]] = {
    "questions": (QuestionSet, Fields),
    "teachers": (ModelTeacher, EndpointTeacher, FileTeacher, Fields),
    "students": (Student,),
    "arms": (Arm,),
    "generate": (Generate,),
    "verify": (VerifySettings,),
    "score": (Score,),
    "train": (TrainSettings, LoraSettings),
    "evaluate": (Evaluate,),
    "ray": (RaySettings,),
    "placement": (Placement,),
    "miniature": (Miniature,),
}


def known_keys(section: str | None) -> list[str]:
    """The keys of a section, or the top-level ones."""
    if section not in SECTIONS:
        return list(Experiment.model_fields)
    names: list[str] = []
    for owner in SECTIONS[section]:
        fields = getattr(owner, "model_fields", None)
        if fields is not None:
            names += [f.alias or n for n, f in fields.items()]
        else:
            names += list(owner.__dataclass_fields__)  # type: ignore[attr-defined]
    return names


def _first_problem(error: ValidationError) -> tuple[str, str, str, str]:
    """One line about the first thing pydantic found."""
    problem = error.errors(include_url=False)[0]
    loc = [str(part) for part in problem["loc"] if part not in ("model", "endpoint", "file")]
    where = ".".join(loc) or "the experiment"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        names = known_keys(loc[0] if len(loc) > 1 else None)
        near = difflib.get_close_matches(loc[-1], names, n=1, cutoff=0.5)
        return f"unknown key {where}", "", "", f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names)}"
    got = "" if isinstance(problem["input"], dict | list) or problem["type"] == "missing" else repr(problem["input"])
    return f"{where} does not fit", got, problem["msg"].removeprefix("Value error, "), ""


EXPERIMENT = TypeAdapter(Experiment)


def resolved(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values, every default filled in; reads back to the same experiment."""
    return EXPERIMENT.dump_python(experiment, mode="json", by_alias=True)  # type: ignore[no-any-return]
