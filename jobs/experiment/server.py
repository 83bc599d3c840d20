"""An inference engine that the cluster starts, behind which a teacher or a student is asked."""

import shlex
import sys
from pathlib import PurePath

from pydantic import Field, field_validator

from cluster.engine.process import EngineCommand
from cluster.placement import Needs
from jobs.experiment.section import Section

AT_ONCE = 3  # shards, so that the last answers of one shard do not leave the engine idle


class Server(Section):
    """An engine, such as vLLM or SGLang, that each of `replicas` actors starts for itself: `command`, with
    fields in braces: `{python}`, `{path}` (the model's directory or hub id), `{revision}` (of a hub's model),
    `{name}` (what calls call the model), and `{socket}` or `{port}`. `python` is the interpreter of the
    engine's own environment. `env` has further environment variables, whose values may hold `{key}`, a random
    secret for an engine that has a port.

    Answers are known by the model's weights and by `engine`, a name that follows from the command (`vllm`).
    Give another name if the command changes what the model says, such as by quantisation. `concurrency` is
    how many answers one replica is asked for at once. A command with `--enable-lora` loads a trained adapter
    while it runs; otherwise the engine starts again with the merged weights.
    """

    command: str
    python: str = sys.executable
    env: dict[str, str] = Field(default_factory=dict)
    engine: str | None = None
    concurrency: int = Field(64, ge=1)
    start_timeout_s: float = Field(1800.0, gt=0)
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

    @property
    def name_of_engine(self) -> str:
        """By which answers are known: `engine`, or the module or program that the command starts."""
        if self.engine is not None:
            return self.engine
        words = shlex.split(self.command)
        if "-m" in words[:-1]:
            return words[words.index("-m") + 1].partition(".")[0]
        return PurePath(words[0]).name

    @property
    def loads_adapters(self) -> bool:
        return "--enable-lora" in shlex.split(self.command)

    @property
    def how(self) -> EngineCommand:
        return EngineCommand(self.command, self.python, self.env, self.start_timeout_s)

    def needs_for(self, path: str) -> Needs:
        """What one replica needs. Its actor keeps the engine for later work on the same weights.

        Args:
            path: the weights that the engine loads.
        """
        labels = tuple(sorted(self.labels.items()))
        amounts = (self.num_cpus, float(self.num_gpus), self.memory_gib)
        return Needs(*amounts, labels, AT_ONCE, self.how.identity(path))
