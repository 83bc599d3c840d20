"""Checkpoints, and how to tell which of them are whole.

A checkpoint counts only if it has a COMPLETE marker and every file that the marker lists, with its size. Ray
merges the directories of all workers into one. Rank 0 writes the marker last, after every rank has saved.
Checkpoints are found in the run's directory and not in Ray's own list, because that list can be damaged or
incomplete.
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
    """The marker of a whole checkpoint: its job, its step, the number of workers, and its files with their
    sizes.
    """

    job_id: str
    step: int
    workers: int
    files: dict[str, int]


def write_marker(directory: Path, marker: Marker) -> None:
    (directory / COMPLETE).write_text(json.dumps(asdict(marker)), encoding="utf-8")


def read_marker(directory: Place) -> Marker | None:
    """Read the marker of a whole checkpoint. None if it is missing or unreadable, or if a listed file is
    missing or short.
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
    """Remove all checkpoints of a run except the newest whole one of each job.

    Ray would keep the last few of a run. Jobs that pause in turn need the last one of each, so Ray keeps all
    and this function removes the others.
    """
    kept = {place for job_id in job_ids for _, place, _ in whole_checkpoints(run, job_id)[:1]}
    for place in run.glob("checkpoint_*"):
        if place not in kept and not place.is_file():
            place.remove()


@contextmanager
def on_this_node(checkpoint: Place, is_first_here: bool) -> Iterator[Path]:
    """A checkpoint as a local directory during the block. It is fetched once for all workers of the
    machine.

    All workers enter and leave together. A local checkpoint is accessed through links, so that files written
    beside its files do not become part of it.

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
    """Copy a local folder's files to a place, beside the files of other workers."""
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
    """The machine of this process. Several Ray nodes of one machine share its files."""
    return platform.node()


def mend_snapshot(run: Place) -> bool:
    """Remove Ray's list of checkpoints if it is damaged or names a missing one. Returns whether it was
    removed.

    Ray Train does not start a run with such a list. Without a list it starts the run as new. In both cases
    `whole_checkpoints` finds what to resume from.
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
