"""Rows of a source: a file of any name and packing, a folder of shards, a directory that `datasets` saved, or
a data set on the hub. Every defect is named with its position.

Every text is repaired here (`cluster.models.repair`), and NaN becomes None. So all readers get repaired
rows.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import BadInput
from cluster.storage import local_copy
from jobs.files.folders import Listing, listing, shards_of
from jobs.files.json_rows import OnBroken, Row, rows_of_json
from jobs.files.loaded import (
    BATCH,
    HUB,
    datasets_library,
    is_saved,
    load_hub,
    one_split,
    options_of,
    plain_rows,
    row_of_columns,
    rows_of_saved,
)
from jobs.files.packing import DAMAGED, PACKED, opened

BYTES_OF_ROW = 400  # about how many bytes a row of a text file has
UNPACKED = 5  # about how many times larger a packed text file becomes
ARROW_FILE, ARROW_STREAM, PARQUET = b"ARROW1", b"\xff\xff\xff\xff", b"PAR1"


def read_rows(where: str | Path, on_broken: OnBroken = None) -> Iterator[tuple[str, Row]]:
    """Yield (position, row). The position is the line or row number, with the file's name if it is in a
    folder.

    Args:
        where: a JSONL, JSON, Parquet or Arrow file or its URI; a folder that holds one such file, or shards
            of one; a directory that `datasets` saved, with `?split=NAME` behind it where that holds several;
            or `hub:OWNER/NAME?name=CONFIG&split=SPLIT&revision=REVISION`.

    Raises:
        BadInput: there is no such file; or a line is broken, named with its number. If `on_broken` is given,
            it is called for each broken line, which is left out.
    """
    text = str(where)
    if text.startswith(HUB):
        yield from numbered(one_split(load_hub(text.removeprefix(HUB)), text))
        return
    plain, _, options = text.partition("?")
    has_options = bool(options) and not Path(text).exists()
    path = local_copy(plain if has_options else text)
    if is_saved(path):
        chosen = options_of(options, {"split"}, text) if has_options else {}
        yield from numbered(rows_of_saved(path, chosen))
    elif has_options:
        _refuse_options(path, options)
    elif not path.is_dir():
        yield from _rows_of_file(path, on_broken)
    else:
        found = listing(path)
        for file in shards_of(found):
            each = numbered(rows_of_saved(file, {})) if file.is_dir() else _rows_of_file(file, on_broken)
            yield from ((f"{found.name_of(file)} {place}", row) for place, row in each)


def _refuse_options(path: Path, options: str) -> None:
    """Refuse options of a source that has no splits: what they ask for would not be done.

    Raises:
        BadInput: always.
    """
    if not path.exists():
        raise BadInput("no such file", path, "a .jsonl, .json or .parquet file", "check the path")
    what = f"{path} has no splits to choose from"
    raise BadInput(what, f"?{options}", "options of a directory that datasets saved", "leave them out")


def numbered(rows: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    """Rows with their numbers."""
    return ((f"line {number}", row) for number, row in enumerate(rows, 1))


def _rows_of_file(path: Path, on_broken: OnBroken) -> Iterator[tuple[str, Row]]:
    if not path.is_file():
        raise BadInput("no such file", path, "a .jsonl, .json or .parquet file", "check the path")
    try:
        with opened(path) as file:
            head = file.peek(8)[:8]
            if head.startswith((PARQUET, ARROW_FILE, ARROW_STREAM)):
                tables = _tables(file, head)
                yield from numbered(map(row_of_columns, chain.from_iterable(tables)))
            else:
                yield from rows_of_json(file, path, on_broken)
    except DAMAGED as error:
        why = " ".join(str(error).split())[:120]
        raise BadInput(f"{path} cannot be read", why, "a whole file", "fetch it again") from error


def _tables(file: Any, head: bytes) -> Iterator[Iterable[dict[str, Any]]]:
    """A columnar file's rows, in batches. A packed file is read into memory."""
    is_plain = isinstance(file.raw, io.FileIO)
    source = pa.OSFile(str(file.raw.name)) if is_plain else pa.BufferReader(file.read())
    if head.startswith(PARQUET):
        batches: Iterable[pa.RecordBatch] = pq.ParquetFile(source).iter_batches(BATCH)
    elif head.startswith(ARROW_FILE):
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        batches = pa.ipc.open_stream(source)
    return (plain_rows(batch) for batch in batches)


def check_source(where: str, what: str) -> None:
    """Refuse a missing file before anything is read. A data set on the hub is only checked when it is
    read.

    Raises:
        BadInput: nothing is there, or a folder without rows.
    """
    if where.startswith(HUB):
        datasets_library()
        return
    path, options = _path_of(where), where.partition("?")[2]
    if options and path.exists() and not Path(where).exists() and not is_saved(path):
        _refuse_options(path, options)
    if not (path.is_file() or path.is_dir()):  # a pipe is neither, and reading it could wait for ever
        expected = "a .jsonl, .json or .parquet file, or a directory that datasets saved"
        raise BadInput(f"no {what} there", where, expected, "check the path")
    if path.is_dir() and not is_saved(path):
        shards_of(listing(path))


def unread_in(where: str) -> str:
    """One line about the files of a source's folder that are not read. Empty if there are none."""
    found = _folder(where)
    return "" if found is None else found.unread


def content_of(where: str) -> str:
    """A digest of a source's content: of a file's bytes, of the files in a folder, of a saved data set's
    files, or of what `datasets` reports about a loaded one.
    """
    if where.startswith(HUB):
        loaded = load_hub(where.removeprefix(HUB))
        every = loaded.values() if isinstance(loaded, dict) else [loaded]
        return digest_of(str(one._fingerprint) for one in every)
    path = _path_of(where)
    digests = []
    for file in _files_of(path):
        with open(file, "rb") as read:
            digests.append(hashlib.file_digest(read, "sha256").hexdigest())
    return digest_of([where.partition("?")[2] if path.is_dir() else "", *digests])


def guess_rows(where: str) -> int:
    """Estimate how many rows of the usual length a source holds, from its size."""
    if where.startswith(HUB):
        loaded = load_hub(where.removeprefix(HUB))
        return max(len(one) for one in (loaded.values() if isinstance(loaded, dict) else [loaded]))
    return sum(map(_guess_of_file, _files_of(_path_of(where))))


def _guess_of_file(file: Path) -> int:
    with open(file, "rb") as read:
        is_parquet = read.read(len(PARQUET)) == PARQUET
    if is_parquet:
        told = pq.read_metadata(file)
        size = sum(told.row_group(k).total_byte_size for k in range(told.num_row_groups))
        return max(int(told.num_rows), size // BYTES_OF_ROW)
    is_packed = file.suffix.lower().lstrip(".") in PACKED
    return file.stat().st_size * (UNPACKED if is_packed else 1) // BYTES_OF_ROW


def _path_of(where: str) -> Path:
    return local_copy(where if Path(where).exists() else where.partition("?")[0])


def _folder(where: str) -> Listing | None:
    """The listing of a source, if it is a folder of files."""
    if where.startswith(HUB):
        return None
    path = _path_of(where)
    return listing(path) if path.is_dir() and not is_saved(path) else None


def _files_of(path: Path) -> list[Path]:
    """The files that hold a source's rows."""
    if not path.is_dir():
        return [path]
    if is_saved(path):
        return sorted(p for p in path.rglob("*") if p.is_file())
    return [
        file
        for own in shards_of(listing(path))
        for file in ([own] if own.is_file() else sorted(p for p in own.rglob("*") if p.is_file()))
    ]


def digest_of(texts: Iterable[str]) -> str:
    """One digest of several."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:24]
