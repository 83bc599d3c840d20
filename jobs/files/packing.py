"""Unpacking files. Their first bytes decide how they are packed, not their names."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.errors import BadInput

HEAD = 512  # the bytes that decide what a file is
AT_ONCE = 2**16  # packed bytes that are read at once
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, UnicodeError)
CONVERT = (
    "write it as JSONL or Parquet (pandas.read_csv(path, dtype=str, keep_default_na=False).to_parquet(...), "
    "for instance)"
)


class Streams(io.RawIOBase):
    """Unpacks packed streams that follow one another, and zeros between and behind them. Python's own readers
    take whatever else follows for the end of the file.

    Raises:
        OSError, EOFError, lzma.LZMAError: on reading: what follows is no such stream, or the last is cut off.
    """

    def __init__(self, file: Any, make: Callable[[], Any]) -> None:
        self.file, self.make, self.unpacker = file, make, make()

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while True:
            given = b""
            if self.unpacker.eof:
                given = self.unpacker.unused_data.lstrip(b"\0")
                while not given:
                    more = self.file.read(AT_ONCE)
                    if not more:
                        return 0
                    given = more.lstrip(b"\0")
                self.unpacker = self.make()
            elif self.unpacker.needs_input:
                given = self.file.read(AT_ONCE)
                if not given:
                    raise EOFError("it ends before the end of its packed data")
            found = self.unpacker.decompress(given, len(into))
            if found:
                into[: len(found)] = found
                return len(found)


def _zstd(file: Any) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(file), "zstd")


UNPACK: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    b"BZh": lambda file: Streams(file, bz2.BZ2Decompressor),
    b"\xfd7zXZ\x00": lambda file: Streams(file, lzma.LZMADecompressor),
    b"\x5d\x00\x00": lambda file: Streams(file, lzma.LZMADecompressor),  # .lzma
    b"\x28\xb5\x2f\xfd": _zstd,
    # frames that are skipped, which some programs begin with
    **{bytes([0x50 + k]) + b"\x2a\x4d\x18": _zstd for k in range(16)},
    b"\x04\x22\x4d\x18": lambda file: pa.CompressedInputStream(pa.PythonFile(file), "lz4"),
}
PACKED = ("gz", "gzip", "bz2", "xz", "lzma", "zst", "zstd", "lz4")
# Files that are not read, by their first bytes or their names, with what to do.
OTHERS: Mapping[bytes, tuple[str, str]] = {
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or " + CONVERT),
    b"ORC": ("an ORC file", CONVERT),
    b"Obj\x01": ("an Avro file", CONVERT),
    b"SQLite format 3": ("a database", CONVERT),
    b"\x93NUMPY": ("an array", CONVERT),
    b"\x80": ("a pickle, which could run code", CONVERT),
    b"version https://git-lfs": ("a pointer of Git LFS, not the data", "run git lfs pull"),
    b"<": ("a web page or XML, not the data", "download the file itself"),
}
UNREAD = (
    "csv",
    "tsv",
    "xlsx",
    "xls",
    "ods",
    "pkl",
    "pickle",
    "npy",
    "npz",
    "orc",
    "avro",
    "zip",
    "tar",
    "db",
)


def opened(path: Path) -> Any:
    """A file's bytes as a stream with `peek`. It is unpacked as often as it was packed.

    Raises:
        BadInput: it is a kind of file that is not read.
    """
    suffix = path.suffix.lower().lstrip(".")
    if suffix in UNREAD:
        raise BadInput(f"{path} is a .{suffix} file", "", "JSONL, JSON or Parquet", CONVERT)
    file: Any = open(path, "rb")  # noqa: SIM115 (its reader closes it)
    while True:
        head = file.peek(HEAD)[:HEAD]
        unpack = next((own for magic, own in UNPACK.items() if head.startswith(magic)), None)
        if unpack is None:
            break
        file = io.BufferedReader(unpack(file))
    other = next((own for magic, own in OTHERS.items() if head.startswith(magic)), None)
    if head[257:262] == b"ustar":
        other = ("a tar archive", "unpack it")
    if other is not None:
        raise BadInput(f"{path} is {other[0]}", "", "JSONL, JSON or Parquet", other[1])
    return file
