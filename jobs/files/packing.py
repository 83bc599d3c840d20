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
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
CONVERT = "write it as JSONL or Parquet (pandas.read_csv(path, dtype=str).to_parquet(...), for instance)"

UNPACK: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: pa.CompressedInputStream(pa.PythonFile(file), "zstd"),
    b"\x04\x22\x4d\x18": lambda file: pa.CompressedInputStream(pa.PythonFile(file), "lz4"),
}
PACKED = ("gz", "gzip", "bz2", "xz", "zst", "zstd", "lz4")
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
