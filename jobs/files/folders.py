"""The content of a user's folder: files of rows, which may be shards of one file, and files that are not
read.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import BadInput
from cluster.models.repair import repaired_text
from jobs.files.loaded import is_saved
from jobs.files.packing import PACKED

ROWS = ("jsonl", "ndjson", "jsonlines", "json", "parquet", "pq", "arrow", "feather", "traj")
# files that hold one trajectory each, as agents' programs write them: all in a folder are one teacher's
ONE_TRAJECTORY = re.compile(r"(?:.*\.traj|(?:.*[-_.])?trajectory\.json)(?:\.\w+)?$", re.IGNORECASE)
SCORES_SUFFIX = "_scas_scores.jsonl"
# files that other programs write beside the rows
BESIDE = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
# train-00000-of-00002, large.part-0, large_shard_3: a shard's number behind its name
SHARD = re.compile(
    r"(?:^|[-_.])(?:(?:part|shard|chunk|split)[-_.]?)?\d+[-_.]of[-_.]\d+$|"
    r"(?:^|[-_.])(?:part|shard|chunk|rank|worker|process|gpu|node|batch)[-_.]?\d+$|[-_.]0\d{3,}$|^\d+$",
    re.IGNORECASE,
)
OF_TEACHER = re.compile(r"^(?:teacher|teacher_name|model)=")  # a folder of a partitioned data set
SHOWN = 8  # how many names of unread files are shown


@dataclass
class Listing:
    """A folder's content.

    Attributes:
        files: files of rows, and directories that `datasets` saved, sorted.
        others: files that are not read, by their names in the folder.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def name_of(self, file: Path) -> str:
        """A file's name in the folder."""
        return file.relative_to(self.root).as_posix()

    @property
    def unread(self) -> str:
        """One line about files that are not read. Empty if there are none."""
        if not self.others:
            return ""
        more = f" and {len(self.others) - SHOWN:,} more" if len(self.others) > SHOWN else ""
        visible_first = sorted(self.others, key=lambda name: Path(name).name.startswith((".", "_")))
        return f"not read in {self.root}: {', '.join(visible_first[:SHOWN])}{more}"


def listing(root: Path) -> Listing:
    """List a folder and the folders in it. Hidden folders are skipped, and those that begin with an
    underscore, which programs write beside their data.

    Raises:
        BadInput: two files have the same name without ending, so one is probably a copy.
    """
    found = Listing(root)
    names: dict[tuple[Path, str], Path] = {}
    seen = {os.path.realpath(root)}
    for place, folders, files in os.walk(root, followlinks=True):
        here = Path(place)
        own = sorted(folders)
        left = [f"{name}/" for name in own if name.startswith((".", "_")) or is_ranking(here / name)]
        # a link may lead back to where it stands
        real = {name: os.path.realpath(here / name) for name in own if (here / name).is_symlink()}
        left += [f"{name}/" for name, path in real.items() if path in seen or root_within(path, here)]
        found.files += [here / name for name in own if is_saved(here / name)]
        folders[:] = [n for n in own if f"{n}/" not in left and not is_saved(here / n)]
        seen |= {os.path.realpath(here / name) for name in folders}
        for name in sorted(files):
            stem = stem_of(name) if (here / name).is_file() else None
            if stem is None:
                left.append(name)
                continue
            found.files.append(here / name)
            other = names.setdefault((here, stem), here / name)
            if other != here / name:
                raise BadInput(
                    f"{root} holds two files of one name", f"{other.name}, {name}", "one", "remove the copy"
                )
        found.others += [found.name_of(here / name) + "/" * name.endswith("/") for name in left]
    found.files.sort()
    return found


def is_ranking(folder: Path) -> bool:
    """Whether `tutelage rank` wrote this folder: its tables are no answers."""
    return (folder / "ranking.json").is_file()


def root_within(path: str, here: Path) -> bool:
    """Whether a folder is the one that a link to it stands in, or holds that one."""
    return Path(os.path.realpath(here)).is_relative_to(path)


def stem_of(name: str) -> str | None:
    """A file's name without the ending of its format. None if the file holds no rows.

    >>> stem_of("Large.v2.JSONL.gz"), stem_of("part-0.parquet"), stem_of("README.md"), stem_of("._a.json")
    ('Large.v2', 'part-0', None, None)
    """
    if name.startswith((".", "_")) or name.endswith(SCORES_SUFFIX) or name in BESIDE:
        return None
    stem, _, suffix = name.rpartition(".")
    if suffix.lower() in PACKED:
        stem, _, suffix = stem.rpartition(".")
    return stem if stem and suffix.lower() in ROWS else None


def shard_of(name: str) -> str:
    """The name of the file that a shard is a part of. A file without a shard number keeps its name. Empty if
    the name is only a shard number.

    >>> [shard_of(n) for n in ("train-00000-of-00002.parquet", "large.part-1.jsonl", "part-0.json")]
    ['train', 'large', '']
    >>> [shard_of(n) for n in ("qwen-2.5.jsonl", "gpt-4.jsonl", "000.parquet", "a_rank_0.pq", "b_00001.pq")]
    ['qwen-2.5', 'gpt-4', '', 'a', 'b']
    """
    return SHARD.sub("", stem_of(name) or Path(name).name)


def teachers_of(found: Listing) -> list[tuple[str, str]]:
    """The files of a pool, each with its teacher's name. It is the file's name, or the folder's if the file
    is a shard or the only file there.
    """
    alone: dict[Path, set[str]] = {}
    for file in found.files:
        alone.setdefault(file.parent, set()).add(shard_of(file.name))
    return [(str(file), _teacher_of(file, found.root, len(alone[file.parent]) == 1)) for file in found.files]


def _teacher_of(file: Path, root: Path, is_alone: bool) -> str:
    parts = [OF_TEACHER.sub("", repaired_text(part)) for part in file.parent.relative_to(root).parts]
    if ONE_TRAJECTORY.match(file.name):
        return parts[0] if parts else root.resolve().name
    own = repaired_text(shard_of(file.name))
    if own and not (is_alone and parts):
        parts.append(own)
    return "/".join(parts) or root.resolve().name


def shards_of(found: Listing) -> list[Path]:
    """The files of a folder that is one source: shards of one file, or one file.

    Raises:
        BadInput: the folder has no file of rows, or its files are not shards of one file.
    """
    kinds = sorted({(file.parent, shard_of(file.name)) for file in found.files})
    if not kinds:
        raise BadInput(
            f"{found.root} is a directory that datasets did not save, and holds no files of rows",
            ", ".join(found.others[:SHOWN]) or "an empty folder",
            "JSONL, JSON or Parquet",
            "check the path",
        )
    if len(kinds) > 1:
        names = ", ".join(found.name_of(file) for file in found.files[:SHOWN])
        what = f"{found.root} is a directory that datasets did not save, and no shards of one file"
        raise BadInput(what, names, "shards of one file, such as train-00000-of-00002", "name one file")
    return found.files
