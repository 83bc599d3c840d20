"""Digests of the weights in a directory that a training wrote: what is loaded is what was written.

A flipped or zeroed part of a weights file is read without an error, and the model is another one. So every
export has a file in the format of `sha256sum`, and whoever loads the export compares. A user's own models
have no such file, and are loaded as they are.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from cluster.errors import BadInput
from cluster.storage import local_copy

DIGESTS = "weights.sha256"


def write_digests(folder: Path) -> None:
    """Write the digests of a directory's weights beside them."""
    files = sorted(folder.glob("*.safetensors"))
    (folder / DIGESTS).write_text("".join(f"{_digest(file)}  {file.name}\n" for file in files))


def refuse_changed(path: str) -> None:
    """Compare weights with the digests beside them, if there are any.

    Raises:
        BadInput: a file is gone, or is not what was written.
    """
    folder = local_copy(path)
    try:
        lines = (folder / DIGESTS).read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in lines:
        written, _, name = line.partition("  ")
        file = folder / name
        if not file.is_file() or _digest(file) != written:
            raise BadInput(
                f"the weights in {path} are not those that a training wrote",
                f"{name} {'differs' if file.is_file() else 'is gone'}",
                f"the digest in {DIGESTS}",
                "remove this directory and run again: the training is done again if its weights are needed. "
                f"If the change is yours, remove {DIGESTS}",
            )


def _digest(file: Path) -> str:
    about = file.stat()
    return _digest_of(str(file), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=256)
def _digest_of(path: str, _written: int, _size: int) -> str:
    """A file's digest. Each process computes it once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
