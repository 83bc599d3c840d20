"""Who is taught."""

from typing import Any

from pydantic import Field

from cluster.models.loading import DType
from jobs.experiment.section import Name, Section
from jobs.experiment.server import Server


class Student(Section):
    """A student to fine-tune. `chat_template_kwargs` are further variables of its template, such as
    `enable_thinking: false`. Students that are checkpoints of one training, or go on from one, have the same
    `lineage`: together they count as one where students are counted. `server` is an engine that gives its
    rollouts and its answers in evaluations, instead of actors that host it.
    """

    name: Name
    path: str
    lineage: str | None = None
    revision: str | None = None
    dtype: DType = "float32"
    trust_remote_code: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    server: Server | None = None
