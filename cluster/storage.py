"""Places of files: a local path, or a URI such as `s3://bucket/folder`, through pyarrow's file systems.

A file appears whole or not at all. Locally it is written under a temporary name, flushed and renamed. An
object store shows an upload when it has ended. Directories have no such guarantee there, so a directory that
must be whole has a marker file, which is written last.
"""

import fnmatch
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pyarrow import fs

from cluster.errors import BadInput
from cluster.file_systems import file_system_of, local_file_system
from cluster.locks import held


def is_uri(text: str) -> bool:
    """Whether a text is a URI with a scheme. `C:/` and hub ids are not."""
    return "://" in text


@dataclass(frozen=True, order=True)
class Place:
    """A file or directory by absolute path or URI. Plain and picklable: workers on other nodes open it
    themselves.
    """

    text: str

    def __post_init__(self) -> None:
        text = os.fspath(self.text)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if is_uri(text):
            place, _, options = unquote(text).partition("://")[2].partition("?")
            if "@" in place.partition("/")[0] or "@" in options:
                raise BadInput(
                    "a URI with a key in it",
                    text.partition("://")[0] + "://***",
                    "a URI without a key",
                    "set AWS_ACCESS_KEY_ID instead",
                )
        else:
            text = str(Path(os.path.expandvars(text)).expanduser().resolve())
        object.__setattr__(self, "text", text)

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, below: str) -> "Place":
        """The place below this one. A name that leads out of it is refused."""
        if (
            not below
            or below.startswith("/")
            or "\0" in below
            or ".." in below.split("/")
            or (is_uri(self.text) and "?" in below)
        ):
            raise BadInput("a name leads out of its directory", repr(below), f"a name below {self}", "")
        found = object.__new__(Place)  # this place is resolved already; again would look at the disk
        if is_uri(self.text):
            base, mark, query = self.text.partition("?")
            text = f"{base.rstrip('/')}/{below}{mark}{query}"
        else:
            text = os.path.normpath(f"{self.text.rstrip('/')}/{below}")
        object.__setattr__(found, "text", text)
        return found

    @property
    def name(self) -> str:
        return (
            (self.text.partition("?")[0] if is_uri(self.text) else self.text).rstrip("/").rpartition("/")[2]
        )

    @property
    def is_local(self) -> bool:
        return not is_uri(self.text)

    @property
    def path(self) -> Path:
        """The local path.

        Raises:
            ValueError: it is on another file system.
        """
        if not self.is_local:
            raise ValueError(f"{self} is not on this machine")
        return Path(self.text)

    def opened(self) -> tuple[fs.FileSystem, str]:
        """The file system, and this place's path in it."""
        if self.is_local:
            return local_file_system(), self.text
        base, _, query = self.text.partition("?")
        scheme, _, rest = base.partition("://")
        return file_system_of(scheme, rest.partition("/")[0], query), rest.rstrip("/")

    def _info(self) -> fs.FileInfo:
        system, path = self.opened()
        return system.get_file_info(path)

    def is_file(self) -> bool:
        return Path(self.text).is_file() if self.is_local else self._info().type == fs.FileType.File

    def exists(self) -> bool:
        return bool(self._info().type != fs.FileType.NotFound)

    def read_bytes(self) -> bytes:
        """The whole content.

        Raises:
            FileNotFoundError: nothing there.
        """
        system, path = self.opened()
        with system.open_input_stream(path) as file:
            return bytes(file.read())

    def sha256(self) -> str:
        """A digest of the content. The content is not read into memory at once."""
        system, path = self.opened()
        total = hashlib.sha256()
        with system.open_input_stream(path) as file:
            while block := file.read(2**22):
                total.update(block)
        return total.hexdigest()

    def sha256_once(self) -> str:
        """The same digest, computed once per process while the file's size and time stay the same.

        Raises:
            FileNotFoundError: nothing there.
        """
        info = self._info()
        if info.type != fs.FileType.File:
            raise FileNotFoundError(self.text)
        return _sha256_of(self, info.size, info.mtime_ns)

    def read_text(self) -> str:
        return self.read_bytes().decode("utf-8")

    def write_bytes(self, content: bytes) -> None:
        """Write the whole content. It appears at once or not at all. A second writer does no harm."""
        if not isinstance(content, bytes):
            raise TypeError(f"bytes are written, not {type(content).__name__}")
        self.write_with(lambda file: file.write(content))

    def write_with(self, write: Callable[[Any], object]) -> None:
        """Let `write` write into an open binary file. The file appears when `write` has ended, or not at
        all.
        """
        if not self.is_local:
            system, path = self.opened()
            try:
                with system.open_output_stream(path) as file:
                    write(file)
            except BaseException:
                self.unlink()  # closing the file has uploaded an incomplete content
                raise
            return
        target = self.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with open(partial, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def unlink(self) -> None:
        """Remove a file, if there is one."""
        system, path = self.opened()
        try:
            system.delete_file(path)
        except FileNotFoundError:
            return

    def remove(self) -> None:
        """Remove a directory with its content, if there is one."""
        if self.is_local:
            shutil.rmtree(self.path, ignore_errors=True)
        elif self.exists():
            system, path = self.opened()
            system.delete_dir(path)

    def glob(self, pattern: str) -> list["Place"]:
        """The sorted places directly in this directory whose names match the pattern."""
        system, path = self.opened()
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(self / f.base_name for f in found if fnmatch.fnmatchcase(f.base_name, pattern))

    def files(self) -> dict[str, int]:
        """Relative names and sizes in bytes of all files below."""
        system, path = self.opened()
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
        return {
            f.path[len(path) + 1 :]: f.size
            for f in sorted(found, key=lambda f: f.path)
            if f.type == fs.FileType.File
        }

    def usage(self) -> tuple[int, float]:
        """The bytes of this file, or of all files below this directory, and when the newest was written, in
        seconds since 1970. Zeros if there is none.
        """
        system, path = self.opened()
        found = [self._info()]
        if found[0].type == fs.FileType.Directory:
            found = system.get_file_info(fs.FileSelector(path, recursive=True))
        files = [f for f in found if f.type == fs.FileType.File]
        return sum(f.size for f in files), max((f.mtime_ns / 1e9 for f in files), default=0.0)

    def take(self, folder: Path) -> None:
        """Move a local directory here, in place of what was here.

        On a local file system it appears at once. On an object store it appears file by file, so a reader
        needs a marker.
        """
        if self.is_local:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.remove()
            shutil.move(folder, self.path)
            return
        self.remove()
        system, path = self.opened()
        fs.copy_files(str(folder), path, source_filesystem=local_file_system(), destination_filesystem=system)
        shutil.rmtree(folder)

    def scratch(self) -> Path:
        """An empty local directory in which to prepare this place's content. For a local place it is beside
        it, so that `take` is a rename.
        """
        if self.is_local:
            folder = self.path.with_name(self.path.name + ".partial")
        else:
            folder = (
                cache_directory()
                / f"{hashlib.sha256(self.text.encode()).hexdigest()[:16]}.{os.getpid()}.partial"
            )
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


@lru_cache(maxsize=2**16)
def _sha256_of(place: Place, size: int, mtime_ns: int) -> str:
    return place.sha256()


def cache_directory() -> Path:
    """The folder of this machine's fetched files: TUTELAGE_CACHE, or `~/.cache/tutelage`."""
    return Path(os.environ.get("TUTELAGE_CACHE", "~/.cache/tutelage")).expanduser()


def refuse_special(path: Path) -> None:
    """Refuse a path that is neither a file nor a directory. Reading a pipe may wait for ever, and a device
    never ends.

    Raises:
        BadInput: with what it is.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # missing or not visible: the later reading reports it
        return
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
    for is_kind, name in (*kinds, (stat.S_ISBLK, "a device")):
        if is_kind(mode):
            raise BadInput(f"{path} is {name}", "", "a file", "write its content into a file first")


def local_copy(text: str) -> Path:
    """A file or directory as a local path. A URI is fetched once into this machine's cache.

    The cache is keyed by the URI and by the names, sizes and times of what is there, so a changed file is
    fetched again.

    Raises:
        BadInput: nothing there, the file system does not answer, or a pipe or device is there.
    """
    if not is_uri(text):
        here = Path(text).expanduser() if text.startswith("~") and not Path(text).exists() else Path(text)
        refuse_special(here)
        return here
    place = Place(text)
    try:
        system, path = place.opened()
        info = system.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise BadInput("nothing there", text, "a file or directory", "check the URI")
        one = info.type == fs.FileType.File
        found = [info] if one else system.get_file_info(fs.FileSelector(path, recursive=True))
        content = sorted((f.path, f.size, f.mtime_ns) for f in found if f.type == fs.FileType.File)
        key = hashlib.sha256(repr((text, content)).encode()).hexdigest()[:24]
        folder = cache_directory() / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held(folder.with_suffix(".lock")):
            if not folder.exists():
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                target = partial / place.name
                if not one:
                    target.mkdir()
                fs.copy_files(
                    path, str(target), source_filesystem=system, destination_filesystem=local_file_system()
                )
                partial.rename(folder)
    except OSError as error:
        raise BadInput(
            "cannot fetch", text, "a place that answers", " ".join(str(error).split())[:300]
        ) from error
    return folder / place.name
