"""One run: its store, terminal, host and mode, and the stages that it went through. It knows no
experiment.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal

from cluster.destinations import check_out_folder
from cluster.errors import BadInput, TutelageError
from cluster.extras import need_for_run
from cluster.storage import Place
from jobs.experiment.schema import Experiment
from jobs.run.host import Host, RayHost
from jobs.run.progress import Terminal
from jobs.run.registry import Registration
from jobs.run.store import Stage, Store, read_fallbacks
from jobs.run.tables import ANY_ROW, Owner, Request, SlicedRequest, Table, Wanted
from jobs.run.views import View

# `make` makes what is missing, `read` refuses to, `plan` lists it. Only `make` writes to the store.
Mode = Literal["make", "read", "plan"]


class Unmade(TutelageError):
    """The next step of a plan needs something that does not exist yet."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is still to be made", "", "", "")


@dataclass(frozen=True)
class Planned:
    """One line of a plan: what is left to make of a stage, and where that would run.

    Attributes:
        remaining: what is left, as text or as numbers that can be added up. None if the stage is finished.
        unfit: rows of this kind that exist and cannot be used, and why.
    """

    kind: str
    label: str
    remaining: object | None
    place: str
    unfit: str = ""


@dataclass
class Run:
    """A run, a sweep or a reader of either, open as a context manager.

    Attributes:
        stages: every stage that the run went through, with its kind and the label shown to users.
        cached: how many of them were already finished.
        planned: in a plan, one entry for each stage.
        part: a name for this run, if several runs share a directory, such as the trials of a sweep.
        owns_host: whether closing this run closes the host. Otherwise only the host's actors are ended.
        writers: of a stage by its path, what writes its part again if it was removed.
    """

    store: Store
    directory: Place
    terminal: Terminal
    host: Host
    mode: Mode = "make"
    resume: str = "auto"
    retry_failed: bool = False
    stages: dict[tuple[str, str], Stage | View] = field(default_factory=dict)
    cached: int = 0
    planned: list[Planned] = field(default_factory=list)
    part: str = ""
    owns_host: bool = True
    writers: dict[str, Callable[[], object]] = field(default_factory=dict)
    _discarded: set[str] = field(default_factory=set)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.owns_host:
            self.host.close()
        else:
            self.host.release()
        if self.mode == "make" and kind is None:
            self.registration.settle()

    @cached_property
    def registration(self) -> Registration:
        """The registration of this run, which keeps `gc` from removing what the run uses."""
        return Registration(self.store.root, self.directory, self.part)

    def view(self, owner: Owner, request: Request | SlicedRequest, wanted: Wanted = ANY_ROW) -> View:
        """The view of an owner's table for a request."""
        return View(Table(self.store.root, owner), request, wanted)

    def note(self, kind: str, label: str, stage: Stage | View) -> None:
        """Record a stage, or the view of a table, as part of this run.

        Raises:
            BadInput: it is not finished, and this run only reads.
        """
        known = (kind, label) in self.stages
        self.stages[kind, label] = stage
        self.registration.name(stage.path)
        if isinstance(stage, View):
            self.registration.name(stage.table.path)
        if stage.is_finished:
            self.cached += not known
        elif self.mode == "read":
            raise BadInput(
                f"{kind} {label} is not finished",
                "",
                "a finished run",
                f"run `tutelage run {self.directory / 'experiment.yaml'}`",
            )

    def need(self, what: str, stages: Iterable[Stage | View]) -> None:
        """Continue only if these stages are finished. Only in a plan can they be unfinished.

        Raises:
            Unmade: one of them is not finished.
        """
        if self.mode == "plan" and not all(stage.is_finished for stage in stages):
            raise Unmade(what)

    @contextmanager
    def claimed(self, stages: Iterable[Stage | View]) -> Iterator[None]:
        """Lock the unfinished stages, and the tables of unfinished views, against other runs on this store. A
        run that waits for a lock ends its actors first.
        """

        def say(stage: Stage | View) -> None:
            self.host.release()
            self.terminal.say(f"another run is making {stage.name} {stage.id[:8]}; waiting for it")

        if self.mode != "make":
            yield
            return
        self.registration.save()
        claimed = list(stages)
        with self.store.claimed(claimed, say):
            for stage in claimed:
                self._look_again(stage)
            yield

    def _look_again(self, stage: Stage | View) -> None:
        """Reopen a claimed stage whose manifest is damaged. With `--resume never` discard half-done work,
        once.
        """
        if stage.is_torn:
            self.terminal.say(
                f"the manifest of {stage.name} {stage.id[:8]} is damaged: the stage is finished "
                "again from its parts"
            )
            stage.reopen()
        if self.resume == "never" and stage.id not in self._discarded:
            stage.discard_unfinished()
        self._discarded.add(stage.id)

    def say_fallbacks(self, label: str, directory: Place) -> None:
        """Print the shortcuts that the model of a finished stage or table did not allow."""
        for line in read_fallbacks(directory).values():
            self.terminal.say(f"{label}: {line}")


def open_run(
    experiment: Experiment,
    directory: Place,
    terminal: Terminal,
    mode: Mode = "make",
    resume: str = "auto",
    retry_failed: bool = False,
    part: str = "",
    host: Host | None = None,
) -> Run:
    """Open a run of this experiment. Ray starts at the first stage that has work to do.

    Args:
        host: a host that several runs share. The caller that opened it closes it.

    Raises:
        BadInput: the store cannot be reached, is a file, or cannot be written into; a package that a run
            needs is not installed.
    """
    e = experiment
    own = host is None
    if mode == "make":
        need_for_run(e.ray.address)
    host = host or open_host(e, directory, terminal)
    store = Store(e.store)
    if mode == "make" and store.root.is_local:
        check_out_folder(store.root.path, option="store")
    return Run(store, directory, terminal, host, mode, resume, retry_failed, part=part, owns_host=own)


def open_host(experiment: Experiment, directory: Place, terminal: Terminal) -> Host:
    """Ray for this experiment's runs. It starts at the first work to do. The caller closes it."""
    e = experiment
    return RayHost(e.ray, log_file(directory, e.name), e.placement.shard_deadline_s, terminal.say)


def log_file(directory: Place, name: str) -> Path:
    """The file of Ray's own log: beside the run if that is a local directory, otherwise among this machine's
    temporary files.
    """
    if directory.is_local:
        return (directory / "logs" / "ray.log").path
    return Path(tempfile.gettempdir()) / "tutelage" / name / "ray.log"
