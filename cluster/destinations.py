"""Checks on where results will be written, before the work that makes them. An hour of scoring that ends in
`File name too long` is lost, and a file that is read must not be overwritten.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from cluster.errors import BadInput
from cluster.storage import is_uri

TEMPORARY = 24  # how many characters longer a file's name is while it is being written


def check_out_file(out: Path, read: Iterable[str | Path] = (), option: str = "--out") -> None:
    """Refuse a file that cannot be written, or that the same command reads, also under another name.

    Args:
        read: files and folders that are read.

    Raises:
        BadInput: with what is there.
    """
    if str(out) == "-":
        raise BadInput(
            f"{option} is no file", out, "a file to write", "nothing is written to standard output"
        )
    _refuse_unwritable(out, option)
    if out.is_dir():
        raise BadInput(f"{option} is a directory", out, "a file to write", "add a file's name")
    if out.exists() and not out.is_file():
        raise BadInput(f"{option} is no file", out, "a file to write", "give another name")
    for source in map(str, read):
        if _is_same(out, source) or _is_same(out.parent, source):
            raise BadInput(f"{option} would change what is read", out, "another place", f"{source} is read")


def check_out_folder(out: Path, read: Iterable[str | Path] = (), option: str = "--out") -> None:
    """Refuse a folder that cannot be written into, or that the same command reads.

    Raises:
        BadInput: with what is there.
    """
    _refuse_unwritable(out, option)
    if out.exists() and not out.is_dir():
        raise BadInput(f"{option} is a file", out, "a folder", "give another name")
    if out.is_dir() and not os.access(out, os.W_OK | os.X_OK):
        raise BadInput(f"{option} cannot be written into", out, "a folder of yours", "mend its permissions")
    for source in map(str, read):
        if _is_same(out, source):
            raise BadInput(f"{option} is the folder that is read", out, "another one", "give another name")


def _refuse_unwritable(out: Path, option: str) -> None:
    """Refuse a name that is too long, that is below a file, or that is below a folder without write
    permission.
    """
    limit = 255 - TEMPORARY
    try:
        if max((len(os.fsencode(part)) for part in out.parts), default=0) > limit:
            raise BadInput(
                f"{option} has a name that is too long", str(out)[:60], f"{limit} bytes", "shorten it"
            )
        above = next(place for place in (out.absolute(), *out.absolute().parents) if os.path.lexists(place))
        out.exists()
    except OSError as error:
        raise BadInput(f"{option} cannot be written", str(out)[:60], "a path", str(error.strerror)) from error
    if above != out.absolute():
        if not above.is_dir():
            raise BadInput(f"{option} lies below a file", out, f"{above} to be a folder", "give another name")
        if not os.access(above, os.W_OK | os.X_OK):
            raise BadInput(f"{option} cannot be made", out, f"{above} to be yours", "mend its permissions")


def _is_same(out: Path, source: str) -> bool:
    """Whether two names mean the same file or folder, also through symbolic or hard links."""
    if is_uri(source):
        return False
    try:
        return out.samefile(source)
    except OSError:
        return False
