"""Checkpoints that are known to be whole.

A checkpoint counts only if it holds a COMPLETE marker and every file the marker lists, at its size. Ray
merges the directories of all workers into one; the marker is written last, by rank 0, after every rank has
saved. Checkpoints are found by what lies in the run's directory, not by Ray's own list of them: that list can
be torn, or end before the last one.
"""

import json
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pyarrow import fs

from cluster.storage import Place

COMPLETE = "COMPLETE.json"
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's list of a run's checkpoints, overwritten in place


@dataclass(frozen=True)
class Marker:
    """What a whole checkpoint says of itself: the job it belongs to, its step, the worker count, its files
    with sizes.
    """

    job_id: str
    step: int
    workers: int
    files: dict[str, int]


def write_marker(directory: Path, marker: Marker) -> None:
    (directory / COMPLETE).write_text(json.dumps(asdict(marker)), encoding="utf-8")


def read_marker(directory: Place) -> Marker | None:
    """The marker of a whole checkpoint; None if it is missing, unreadable or a listed file is missing or
    short.
    """
    try:
        marker = Marker(**json.loads((directory / COMPLETE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    present = directory.files()
    return marker if all(present.get(name) == size for name, size in marker.files.items()) else None


def whole_checkpoints(run: Place, job_id: str) -> list[tuple[int, Place, int]]:
    """A job's whole checkpoints in a Ray Train run's directory: (step, place, number of workers), the newest
    first.
    """
    found = [(place, read_marker(place)) for place in run.glob("checkpoint_*") if not place.is_file()]
    return sorted(
        ((m.step, p, m.workers) for p, m in found if m is not None and m.job_id == job_id), reverse=True
    )


def keep_newest(run: Place, job_ids: Sequence[str]) -> None:
    """Remove all checkpoints of a run but the newest whole one of each job.

    Ray keeps the last few of a run. Jobs that pause in turn need the last of each, so Ray is told to keep
    all.
    """
    kept = {place for job_id in job_ids for _, place, _ in whole_checkpoints(run, job_id)[:1]}
    for place in run.glob("checkpoint_*"):
        if place not in kept and not place.is_file():
            place.remove()


@contextmanager
def on_this_node(checkpoint: Place, is_first_here: bool) -> Iterator[Path]:
    """A checkpoint as a directory of this machine for the length of a block, fetched once for all workers of
    it.

    Every worker enters and leaves together. A local checkpoint is seen through links, so that what is written
    beside its files does not land in it.

    Args:
        is_first_here: whether this worker is the first of its machine.
    """
    import torch.distributed as dist

    folder = Path(tempfile.mkdtemp(prefix="tutelage-checkpoint-")) if is_first_here else None
    found: list[tuple[str, str | None]] = [("", None)] * dist.get_world_size()
    dist.all_gather_object(found, (_machine(), None if folder is None else str(folder)))
    here = Path(next(path for machine, path in found if machine == _machine() and path is not None))
    try:
        if is_first_here and checkpoint.is_local:
            for entry in checkpoint.path.iterdir():
                (here / entry.name).symlink_to(entry)
        elif is_first_here:
            system, path = checkpoint.opened()
            fs.copy_files(
                path, str(here), source_filesystem=system, destination_filesystem=fs.LocalFileSystem()
            )
        dist.barrier()
        yield here
        dist.barrier()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def copy_folder(folder: Path, place: Place) -> None:
    """Copy a local folder's files to a place, beside what others have copied there."""
    system, path = place.opened()
    for name in Place(str(folder)).files():
        target = f"{path}/{name}"
        system.create_dir(target.rpartition("/")[0], recursive=True)
        fs.copy_files(
            str(folder / name),
            target,
            source_filesystem=fs.LocalFileSystem(),
            destination_filesystem=system,
        )


def _machine() -> str:
    """The machine that this process runs on; several Ray nodes of one machine share its files."""
    return platform.node()


def mend_snapshot(run: Place) -> bool:
    """Remove Ray's list of checkpoints if it is torn or names one that is gone; returns whether it was.

    Ray Train refuses to start a run under such a list, and starts it as new without one; what to resume from
    is found by `whole_checkpoints` either way.
    """
    place = run / SNAPSHOT
    try:
        listed = json.loads(place.read_text())
        names = [c["checkpoint_dir_name"] for c in listed["checkpoint_results"]]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        place.unlink()
        return True
    if all((run / name).exists() for name in names):
        return False
    place.unlink()
    return True
