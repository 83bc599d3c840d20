"""Tells what a training waits for before it begins, as far as Ray shows it: room, or workers that have a
place and make no progress.

Ray Train asks for a place again and again silently, and a worker that is stopped while it starts blocks the
others. So the driver checks which place the group has, which actors hold resources, and whether rank 0 has
written that the group is at work. A group that was lost and restarted is watched from the beginning.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.errors import TutelageError
from cluster.placement import Needs
from cluster.storage import Place

BEGUN = "BEGUN"  # the file in which rank 0 writes the id of the place where its group is at work
FIRST_NOTICE_S, LONGEST_SILENCE_S = 60.0, 300.0  # three starts at once on two slow cores take 40 s
LOOK_EVERY_S = 2.0
START_DEADLINE_S = 1800.0
KINDS = ("CPU", "GPU")


class NotBegun(TutelageError):
    """A training did not begin in time."""


@dataclass
class Start:
    """Watches one training's worker group until it is at work, and again after every restart.

    Attributes:
        begun: the file in which rank 0 writes that the group is at work.
        deadline_s: how long a group may take to begin, waiting for room included.
        say: told what is waited for, at first after ten seconds, then ever more seldom.
    """

    workers: int
    needs: Needs
    begun: Place
    deadline_s: float
    say: Callable[[str], None] | None = None
    now: Callable[[], float] = time.monotonic
    _since: float | None = None
    _silence: float = FIRST_NOTICE_S
    _told: float = field(default=0.0)
    _looked: float | None = None

    def look(self, controller: Any) -> None:
        """Check the group's state. Called now and then.

        Args:
            controller: Ray Train's actor of this training. None before it exists.

        Raises:
            NotBegun: the deadline is over.
        """
        now = self.now()
        if self._looked is not None and now - self._looked < LOOK_EVERY_S:
            return
        from ray.exceptions import RayError

        self._looked = now
        try:
            place = place_of(controller)
        except (
            RayError,
            RuntimeError,
        ):  # Ray did not answer: the training continues and is checked again later
            return
        if place is not None and self._is_at_work(place):
            self._since = None
            return
        if self._since is None:
            self._since, self._told, self._silence = now, now, FIRST_NOTICE_S
        waited = now - self._since
        if waited >= self.deadline_s:
            raise NotBegun(
                f"training did not begin within {self.deadline_s:g} s",
                self._what(controller, place),
                "",
                f"{self._remedy(place)}, or wait longer (placement.train_start_deadline_s)",
            )
        if self.say is not None and now - self._told >= self._silence:
            self._told, self._silence = now, min(2 * self._silence, LONGEST_SILENCE_S)
            self.say(
                f"training waits, {waited:.0f} s of at most {self.deadline_s:g} s: "
                f"{self._what(controller, place)}; {self._remedy(place)}"
            )

    def _is_at_work(self, place: "GroupPlace") -> bool:
        try:
            return self.begun.read_text() == place.id
        except FileNotFoundError:
            return False

    def _what(self, controller: Any, place: "GroupPlace | None") -> str:
        """What is waited for, with the needed and the available resources."""
        wanted = f"{self.workers} worker{'s' * (self.workers > 1)} with {self.needs} each"
        if place is None:
            return f"Ray Train has not asked for room for {wanted} yet; {describe_cluster()}"
        if not place.is_there:
            return f"no room for {wanted}; {describe_cluster()}"
        states = "; ".join(describe_process(*process) for process in workers_of(controller))
        return f"{wanted} have a place and have not begun: {states or 'their processes are starting'}"

    def _remedy(self, place: "GroupPlace | None") -> str:
        if place is None or not place.is_there:
            return "end what holds the room, or ask for less (placement.train_workers, placement.train)"
        return "let a stopped process go on (kill -CONT) or kill it; see the worker logs"


@dataclass(frozen=True)
class GroupPlace:
    """The place that Ray Train asked for: its id, and whether the cluster has given it."""

    id: str
    is_there: bool


def place_of(controller: Any) -> GroupPlace | None:
    """The newest place that a training's controller asked for and has not given back."""
    rows = _places_of(controller)
    return GroupPlace(rows[-1].placement_group_id.hex(), rows[-1].state == rows[-1].CREATED) if rows else None


def give_back(controller: Any) -> None:
    """Release the places of a controller that was ended. Ray would keep them while the driver lives,
    including those that it has not given yet.
    """
    import ray
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup

    for row in _places_of(controller):
        ray.util.remove_placement_group(PlacementGroup(PlacementGroupID(row.placement_group_id)))


def _places_of(controller: Any) -> list[Any]:
    if controller is None:
        return []
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Row

    rows = [Row.FromString(text) for text in _tables().get_placement_group_table()]
    owner = controller._actor_id.binary()
    return [row for row in rows if row.creator_actor_id == owner and row.state != Row.REMOVED]


def workers_of(controller: Any) -> list[tuple[str, int, str]]:
    """The processes of a training's workers: address of the node, pid, Ray's word for their state."""
    owner = controller._actor_id.binary()
    rows = _actors()
    own = next((row.address.worker_id for row in rows if row.actor_id == owner), None)
    return [
        (row.address.ip_address, row.pid, row.ActorState.Name(row.state))
        for row in rows
        if row.class_name == "RayTrainWorker" and own and row.owner_address.worker_id == own
    ]


def describe_process(address: str, pid: int, state: str) -> str:
    """One worker as text. A process of this machine that is stopped is described as stopped."""
    if not pid:
        return "a process that is starting"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        stat = []
    stopped = ", STOPPED" if stat and stat[0] in "Tt" else ""
    return f"process {pid} on {address} ({state.lower()}{stopped})"


def describe_cluster() -> str:
    """The cluster's resources, the free ones, and how much each actor holds, as text."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    kinds = [kind for kind in KINDS if total.get(kind)]
    has = ", ".join(f"{total[kind]:g} {kind} ({free.get(kind, 0.0):g} free)" for kind in kinds)
    return f"the cluster has {has or 'no CPU'}; held by: {', '.join(holders()) or 'no actor that Ray lists'}"


def holders() -> list[str]:
    """The actors that hold CPUs or GPUs, and the placement groups, as text, the largest first. Ray lists no
    tasks.
    """
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Row

    found = []
    for row in _actors():
        if row.state == row.ALIVE and not row.placement_group_id:
            name = f"{row.class_name} {row.name}".strip()
            found.append((row.required_resources, f"{name}, process {row.pid} on {row.address.ip_address}"))
    for text in _tables().get_placement_group_table():
        row = Row.FromString(text)
        if row.state == Row.CREATED:
            total: dict[str, float] = {}
            for bundle in row.bundles:
                for kind, amount in bundle.unit_resources.items():
                    total[kind] = total.get(kind, 0.0) + amount
            found.append((total, f"placement group {row.name or row.placement_group_id.hex()[:8]}"))
    told = [(_amounts(held), about) for held, about in found]
    return [f"{about} ({amounts})" for amounts, about in sorted(told, reverse=True) if amounts]


def _amounts(held: Mapping[str, float]) -> str:
    return " and ".join(f"{held[kind]:g} {kind}" for kind in KINDS if held.get(kind))


def _actors() -> list[Any]:
    from ray.core.generated.gcs_pb2 import ActorTableData

    rows = [ActorTableData.FromString(text) for text in _tables().get_actor_table(None, None)]
    return [row for row in rows if row.state != ActorTableData.DEAD]


def _tables() -> Any:
    """Ray's own tables, which need no dashboard."""
    from ray._private.state import state

    return state._connect_and_get_accessor()


def say_begun(place: Place) -> None:
    """Runs in the train worker of rank 0. Writes that the group is at work."""
    import ray

    group = ray.util.get_current_placement_group()
    place.write_bytes((group.id.hex() if group is not None else "").encode())
