"""Who answers the questions: a model hosted here, a model behind an engine that is started here, an endpoint,
or a file of answers.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from cluster.models.loading import DType
from cluster.placement import Needs
from jobs.experiment.questions import Fields
from jobs.experiment.section import Name, Section
from jobs.experiment.server import Server
from jobs.experiment.url import check_url


class LocalTeacher(Section):
    """A teacher whose weights the cluster has, in a local directory or by a hub id. `ask_system` is told to
    the teacher before what a question says, and never trained on. Teachers that are checkpoints of one
    training have the same `lineage`, as students do.
    """

    name: Name
    path: str
    revision: str | None = None
    dtype: DType = "float32"
    trust_remote_code: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    ask_system: str | None = None
    family: str | None = None
    lineage: str | None = None


class ModelTeacher(LocalTeacher):
    """A teacher hosted in Ray actors; `labels` are those its node must carry."""

    kind: Literal["model"] = "model"
    replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0, le=1)
    memory_gib: float = Field(0.0, ge=0)
    labels: dict[str, str] = Field(default_factory=dict)
    server: ClassVar[None] = None

    @property
    def needs(self) -> Needs:
        """What one replica asks of the cluster."""
        return Needs(self.num_cpus, self.num_gpus, self.memory_gib, tuple(sorted(self.labels.items())))


class ServerTeacher(LocalTeacher, Server):
    """A teacher behind an inference engine, such as vLLM, that the cluster starts itself."""

    kind: Literal["server"]

    @property
    def server(self) -> Server:
        """How the engine is started."""
        return Server(**{name: getattr(self, name) for name in Server.model_fields})

    @property
    def needs(self) -> Needs:
        """What one replica asks of the cluster."""
        return self.needs_for(self.path)


class EndpointTeacher(Section):
    """A teacher behind an OpenAI-compatible server. The key is read from the environment variable
    `api_key_env`, never from a file. Its answers are known by `name`, `model`, `revision`, `extra_body` and
    `limit_name`, wherever the server is: give another revision when the model behind it changes.

    `base_url` holds host, port and path, and no secret. `timeout_s` is a call's whole time, from its
    connection to its last byte: 512 tokens of a busy 70B server take minutes. `max_retries` is how often one
    answer is asked for again, whatever the calls before failed of. `limit_name` is what the server
    calls the most tokens of an answer; `extra_body` goes into every call as it is, such as
    `{chat_template_kwargs: {enable_thinking: false}}` or `{reasoning_effort: low}`. `ask_system` is told to
    the teacher before what a question says, and never trained on.
    """

    kind: Literal["endpoint"]
    name: Name
    base_url: Annotated[str, AfterValidator(check_url)]
    model: str
    revision: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    family: str | None = None
    lineage: str | None = None
    ask_system: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: int = Field(32, ge=1)
    requests_per_minute: float | None = Field(None, gt=0, allow_inf_nan=False)
    timeout_s: float = Field(600.0, gt=0, allow_inf_nan=False)
    max_retries: int = Field(5, ge=0)
    usd_per_million_input_tokens: float = Field(0.0, ge=0, le=1e9, allow_inf_nan=False)
    usd_per_million_output_tokens: float = Field(0.0, ge=0, le=1e9, allow_inf_nan=False)
    budget_usd: float | None = Field(None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _asks_for_one_answer(self) -> "EndpointTeacher":
        if self.extra_body.get("n") not in (None, 1) or self.extra_body.get("stream"):
            raise ValueError("extra_body: a call gives one whole answer; generate.samples asks for more")
        return self

    @model_validator(mode="after")
    def _budget_has_prices(self) -> "EndpointTeacher":
        if self.budget_usd is not None and not (
            self.usd_per_million_input_tokens or self.usd_per_million_output_tokens
        ):
            raise ValueError("budget_usd needs usd_per_million_input_tokens or usd_per_million_output_tokens")
        return self


class FileTeacher(Section):
    """A teacher whose answers exist in a file. `rows_of` takes only the rows that name this teacher. With
    `turns: all` an answer is everything after the question, and the student learns all turns of the
    assistant in it.
    """

    kind: Literal["file"]
    name: Name
    path: str
    turns: Literal["last", "all"] = "last"
    fields: Fields = Fields()
    rows_of: str | None = None
    family: str | None = None
    lineage: str | None = None


Teacher = Annotated[ModelTeacher | ServerTeacher | EndpointTeacher | FileTeacher, Field(discriminator="kind")]


def check_teacher(arm: str, name: str | None, teachers: Sequence[Teacher], is_hosted: bool = False) -> None:
    """Refuse the name of a teacher, which an arm gives, that no teacher has.

    Args:
        is_hosted: the arm reads the teacher's distributions, so it must be a model that is hosted here.

    Raises:
        ValueError: with the names of those there are.
    """
    if name is None:
        return
    found = [teacher for teacher in teachers if teacher.name == name]
    if not found:
        known = ", ".join(sorted(t.name for t in teachers)) or "none"
        raise ValueError(f"arm {arm} names the teacher {name}; known are {known}")
    if is_hosted and not isinstance(found[0], ModelTeacher):
        raise ValueError(f"arm {arm} reads the teacher {name}, which is not hosted here")
