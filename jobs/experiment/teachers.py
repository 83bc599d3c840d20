"""Who answers the questions: a model hosted here, an endpoint, or a file of answers."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cluster.models.loading import DType
from cluster.placement import Needs
from jobs.experiment.questions import Fields
from jobs.experiment.section import Name, Section


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
    `api_key_env`, never from a file. Its answers are known by `name`, `model` and `revision`, wherever the
    server is: give another revision when the model behind it changes.
    """

    kind: Literal["endpoint"]
    name: Name
    base_url: str
    model: str
    revision: str | None = None
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
