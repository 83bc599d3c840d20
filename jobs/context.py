"""What every stage of one run shares: the experiment, the store, the user's terminal, and Ray once it is needed."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from cluster.errors import BadInput
from cluster.hosts import RayHosts
from cluster.placement import Needs
from cluster.pool import Pool
from cluster.session import Cluster, connect, count_gpus
from cluster.storage import Place
from jobs.experiment import Experiment
from jobs.isolation import SHARD_DEATHS
from jobs.progress import Talker
from jobs.store import Stage, Store, read_fallbacks


@dataclass
class Context:
    """Open for the length of a run. Ray starts at the first stage with work to do, so a run with nothing to do starts none."""

    experiment: Experiment
    run_directory: Place
    talker: Talker
    resume: str = "auto"
    only_read: bool = False
    retry_failed: bool = False
    stages: dict[str, Stage] = field(default_factory=dict)
    every: dict[str, Stage] = field(default_factory=dict)
    cached: int = 0
    _discarded: set[str] = field(default_factory=set)
    _exits: ExitStack = field(default_factory=ExitStack)
    _cluster: Cluster | None = None
    _pool: Pool | None = None

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exits.close()

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
        elif self.only_read:
            raise BadInput(
                f"stage {label} is not finished", "", "a finished run", f"run `tutelage run {self.run_directory / 'experiment.yaml'}`"
            )
        return stage

    def say_fallbacks(self, label: str, stage: Stage) -> None:
        """Tell of shortcuts that a finished stage's model did not allow."""
        for line in read_fallbacks(stage.directory).values():
            self.talker.say(f"{label}: {line}")

    @contextmanager
    def claimed(self, stages: Iterable[Stage]) -> Iterator[None]:
        """Hold the unfinished stages against other runs on this store. Whoever waits holds no actors meanwhile."""

        def say(stage: Stage) -> None:
            self.free_the_cluster()
            self.talker.say(f"another run is making {stage.name} {stage.id[:8]}; waiting for it")

        claimed = list(stages)
        with self.store.claimed(claimed, say):
            for stage in claimed:
                self._look_again(stage)
            yield

    def _look_again(self, stage: Stage) -> None:
        """Reopen a claimed stage whose manifest is torn; forget half-done work, once, if the run was told to."""
        if stage.is_torn:
            self.talker.say(f"the manifest of {stage.name} {stage.id[:8]} is damaged: the stage is finished again from its parts")
            stage.reopen()
        if self.resume == "never" and stage.id not in self._discarded:
            stage.discard_unfinished()
        self._discarded.add(stage.id)

    @property
    def room(self) -> dict[str, float] | None:
        """Resources of a local run, known before Ray starts; None when they are a cluster's."""
        settings = self.experiment.ray
        if settings.address is not None or os.environ.get("RAY_ADDRESS"):
            return None
        return {"CPU": float(settings.num_cpus or os.cpu_count() or 1), "GPU": float(count_gpus(settings))}

    @property
    def cluster(self) -> Cluster:
        """The Ray cluster, connected on first use."""
        if self._cluster is None:
            settings = self.experiment.ray
            self.talker.say(f"starting Ray{'' if settings.address is None else ' at ' + settings.address} …")
            self._cluster = self._exits.enter_context(connect(settings, self.log_file))
            size = ", ".join(f"{v:g} {k}" for k, v in self._cluster.resources.items() if k in ("CPU", "GPU"))
            self.talker.say(f"Ray is up with {size}; its log: {self.log_file}; workers' logs: {self._cluster.log_directory}")
        return self._cluster

    @property
    def pool(self) -> Pool:
        """The pool of hosting actors."""
        if self._pool is None:
            grows, deadline_s = self.cluster.grows, self.experiment.placement.shard_deadline_s
            pool = Pool(RayHosts(), retries=SHARD_DEATHS, grows=grows, deadline_s=deadline_s, on_wait=self.talker.say)
            self._pool = self._exits.enter_context(pool)
        return self._pool

    def free_the_cluster(self) -> None:
        """End the hosting actors, so that training has the machine."""
        if self._pool is not None:
            self._pool.release()

    @property
    def needs(self) -> Needs:
        """What one actor with the student asks for."""
        return self.experiment.placement.needs
