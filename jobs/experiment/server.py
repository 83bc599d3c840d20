"""An inference engine that the cluster starts, behind which a teacher or a student is asked."""

import shlex
import sys
from pathlib import PurePath

from pydantic import Field, field_validator, model_validator

from cluster.engine.process import EngineCommand
from cluster.placement import Needs
from jobs.experiment.section import Section

# programs that start another one
STARTERS = (
    "bash",
    "sh",
    "env",
    "nice",
    "numactl",
    "taskset",
    "time",
    "docker",
    "podman",
    "srun",
    "conda",
    "uv",
)
AT_ONCE = 3  # shards, so that the last answers of one shard do not leave the engine idle


class Server(Section):
    """An engine, such as vLLM or SGLang, that each of `replicas` actors starts for itself: `command`, with
    fields in braces: `{python}`, `{path}` (the model's directory or hub id), `{revision}` (of a hub's model),
    `{name}` (what calls call the model), and `{socket}` or `{port}`. `python` is the interpreter of the
    engine's own environment. `env` has further environment variables, whose values may hold `{key}`, a random
    secret for an engine that has a port.

    Stored answers are found again by the model's weights and by `engine`, a name that follows from the
    command (`vllm`). Give another name if the command changes what the model says, such as by quantisation.
    `concurrency` is how many answers one replica is asked for at once, at most three shards of them.
    `timeout_s` is the time of one call. A command with `--enable-lora` loads a trained adapter on the base;
    otherwise the engine loads the merged weights. Without `num_gpus` an engine sees no GPU.
    """

    command: str
    python: str = sys.executable
    env: dict[str, str] = Field(default_factory=dict)
    engine: str | None = None
    concurrency: int = Field(64, ge=1)
    start_timeout_s: float = Field(1800.0, gt=0)
    timeout_s: float = Field(3600.0, gt=0)
    replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    num_gpus: int = Field(0, ge=0)
    memory_gib: float = Field(0.0, ge=0)
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("command")
    @classmethod
    def _has_fields(cls, command: str) -> str:
        if "{path}" not in command:
            raise ValueError("it has no {path}, where the model's directory goes")
        if ("{socket}" in command) == ("{port}" in command):
            raise ValueError("it needs either {socket} or {port}, where the engine listens")
        try:
            shlex.split(command)
        except ValueError as error:
            raise ValueError(f"it is no command line: {error}") from error
        return command

    @model_validator(mode="after")
    def _has_a_name(self) -> "Server":
        if not self.name_of_engine:
            raise ValueError("the engine's name does not follow from its command: give engine: NAME")
        return self

    @property
    def name_of_engine(self) -> str:
        """By which answers are found again: `engine`, or the module, script or program that the command
        starts. Empty if the command starts another program first, such as `env`.
        """
        if self.engine is not None:
            return self.engine
        words = shlex.split(self.command)
        if "{python}" in words:
            words = words[words.index("{python}") + 1 :]
            words = words[1:] if words[:1] == ["-m"] else [PurePath(word).stem for word in words]
            return words[0].partition(".")[0] if words else ""
        name = PurePath(words[0]).name
        return "" if name in STARTERS or "=" in name else name

    @property
    def loads_adapters(self) -> bool:
        return "--enable-lora" in shlex.split(self.command)

    @property
    def how(self) -> EngineCommand:
        env = self.env if self.num_gpus else {"CUDA_VISIBLE_DEVICES": "", **self.env}
        return EngineCommand(self.command, self.python, env, self.start_timeout_s, self.timeout_s)

    def needs_for(self, path: str) -> Needs:
        """What one replica needs. Its actor keeps the engine for later work on the same weights.

        Args:
            path: the weights that the engine loads.
        """
        labels = tuple(sorted(self.labels.items()))
        amounts = (self.num_cpus, float(self.num_gpus), self.memory_gib)
        return Needs(*amounts, labels, AT_ONCE, self.how.identity(path))
