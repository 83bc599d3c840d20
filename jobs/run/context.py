"""What every stage of one run shares: the experiment, the store, the user's terminal, and Ray once it is
needed.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from cluster.errors import BadInput
from cluster.placement import Needs
from cluster.storage import Place
from jobs.experiment.schema import Experiment
from jobs.run.host import Host, RayHost
from jobs.run.progress import Talker
from jobs.run.store import Stage, Store, read_fallbacks

# make does what is missing, read refuses it, plan says what it is. Nothing but make writes to the store.
Mode = Literal["make", "read", "plan"]


@dataclass
class Context:
    """Open for the length of a run."""

    experiment: Experiment
    run_directory: Place
    talker: Talker
    resume: str = "auto"
    mode: Mode = "make"
    retry_failed: bool = False
    stages: dict[str, Stage] = field(default_factory=dict)
    every: dict[str, Stage] = field(default_factory=dict)
    cached: int = 0
    _discarded: set[str] = field(default_factory=set)
    host: Host = None  # type: ignore[assignment]  # Ray as the experiment says, unless another is given

    def __post_init__(self) -> None:
        if self.host is None:
            e = self.experiment
            self.host = RayHost(e.ray, self.log_file, e.placement.shard_deadline_s, self.talker.say)

    def __enter__(self) -> "Context":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.host.close()

    @property
    def store(self) -> Store:
        return Store(self.experiment.store)

    @property
    def on_broken(self) -> Callable[[str], None] | None:
        """What happens to a broken line of a file: None stops the run, else it is said and left out."""
        return self.talker.say if self.experiment.questions.skip_broken_lines else None

    @property
    def log_file(self) -> Path:
        """Ray's own log; beside the run where that is local, else with this machine's temporary files."""
        if self.run_directory.is_local:
            return (self.run_directory / "logs" / "ray.log").path
        return Path(tempfile.gettempdir()) / "tutelage" / self.experiment.name / "ray.log"

    def note(self, label: str, stage: Stage) -> Stage:
        """Record a stage as part of this run, under a readable label."""
        known = label in self.stages
        self.stages[label] = stage
        self.every[stage.id] = stage
        if stage.is_finished:
            self.cached += not known
        elif self.mode == "read":
            raise BadInput(
                f"stage {label} is not finished",
                "",
                "a finished run",
                f"run `tutelage run {self.run_directory / 'experiment.yaml'}`",
            )
        return stage

    def say_fallbacks(self, label: str, stage: Stage) -> None:
        """Tell of shortcuts that a finished stage's model did not allow."""
        for line in read_fallbacks(stage.directory).values():
            self.talker.say(f"{label}: {line}")

    @contextmanager
    def claimed(self, stages: Iterable[Stage]) -> Iterator[None]:
        """Hold the unfinished stages against other runs on this store. Whoever waits holds no actors
        meanwhile.
        """

        def say(stage: Stage) -> None:
            self.host.release()
            self.talker.say(f"another run is making {stage.name} {stage.id[:8]}; waiting for it")

        if self.mode != "make":
            yield
            return
        claimed = list(stages)
        with self.store.claimed(claimed, say):
            for stage in claimed:
                self._look_again(stage)
            yield

    def _look_again(self, stage: Stage) -> None:
        """Reopen a claimed stage whose manifest is torn; forget half-done work, once,
        if the run was told to.
        """
        if stage.is_torn:
            self.talker.say(
                f"the manifest of {stage.name} {stage.id[:8]} is damaged: the stage is finished "
                "again from its parts"
            )
            stage.reopen()
        if self.resume == "never" and stage.id not in self._discarded:
            stage.discard_unfinished()
        self._discarded.add(stage.id)

    @property
    def needs(self) -> Needs:
        """What one actor with the student asks for."""
        return self.experiment.placement.needs
