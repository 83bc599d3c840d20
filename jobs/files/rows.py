"""Rows of a JSONL, JSON or Parquet file, with every defect named by its line; of a directory that `datasets`
saved; or of a data set on the hub.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pyarrow.parquet as pq

from cluster.errors import BadInput
from cluster.storage import local_copy

OnBroken = Callable[[str], None] | None
HUB = "hub:"
BYTES_OF_ROW = 400  # of a text file, about
BATCH = 1000  # rows of a Parquet file that are in memory at once


def read_rows(where: str | Path, on_broken: OnBroken = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based line or row number, row).

    Args:
        where: a JSONL, JSON or Parquet file or its URI; a directory that `datasets` saved, with
            `?split=NAME` behind it where that holds several; or
            `hub:OWNER/NAME?name=CONFIG&split=SPLIT&revision=REVISION`.

    Raises:
        BadInput: nothing there; a broken line, with its number, unless `on_broken` is given: it is told of
            each one left out.
    """
    text = str(where)
    if text.startswith(HUB):
        yield from enumerate(_one_split(_load_hub(text.removeprefix(HUB)), text), 1)
        return
    plain, _, options = text.partition("?")
    path = local_copy(plain if options and not Path(text).exists() else text)
    if path.is_dir():
        yield from enumerate(_rows_of_saved(path, _options(options, {"split"}, text)), 1)
        return
    if not path.is_file():
        raise BadInput("no such file", path, "a .jsonl, .json or .parquet file", "check the path")
    if path.suffix == ".parquet":
        batches = (batch.to_pylist() for batch in pq.ParquetFile(path).iter_batches(BATCH))
        yield from enumerate(map(without_nones, chain.from_iterable(batches)), 1)
    elif path.suffix == ".json":
        yield from _rows_of_json(path)
    else:
        yield from _rows_of_jsonl(path, on_broken)


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved this directory."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def check_source(where: str, what: str) -> None:
    """Refuse a file that is not there, before anything is read; what lies on the hub is asked when it is
    read.

    Raises:
        BadInput: nothing there.
    """
    if where.startswith(HUB):
        _datasets()
        return
    path = local_copy(where if Path(where).exists() else where.partition("?")[0])
    if not path.exists():
        expected = "a .jsonl, .json or .parquet file, or a directory that datasets saved"
        raise BadInput(f"no {what} there", where, expected, "check the path")


def content_of(where: str) -> str:
    """A digest of what a source holds: of a file's bytes, of a saved data set's files, of what `datasets`
    says that it loaded.
    """
    if where.startswith(HUB):
        loaded = _load_hub(where.removeprefix(HUB))
        every = loaded.values() if isinstance(loaded, dict) else [loaded]
        return digest_of(str(one._fingerprint) for one in every)
    path = local_copy(where if Path(where).exists() else where.partition("?")[0])
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digests = []
    for file in files:
        with open(file, "rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return digest_of([where.partition("?")[2] if path.is_dir() else "", *digests])


def guess_rows(where: str) -> int:
    """About how many rows of the usual length a source holds, by its size."""
    if where.startswith(HUB):
        loaded = _load_hub(where.removeprefix(HUB))
        return max(len(one) for one in (loaded.values() if isinstance(loaded, dict) else [loaded]))
    path = local_copy(where if Path(where).exists() else where.partition("?")[0])
    if path.suffix == ".parquet" and path.is_file():
        told = pq.read_metadata(path)
        size = sum(told.row_group(k).total_byte_size for k in range(told.num_row_groups))
        return max(int(told.num_rows), size // BYTES_OF_ROW)
    files = path.rglob("*.arrow") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) // BYTES_OF_ROW


def digest_of(texts: Iterable[str]) -> str:
    """One digest of several."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:24]


def _datasets() -> Any:
    """The library `datasets`, which is an optional one.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise BadInput(
            "the library datasets is not installed",
            "",
            "it, for the hub and saved data sets",
            "pip install 'tutelage[datasets]'",
        ) from error
    return datasets


def _options(text: str, known: set[str], where: str) -> dict[str, str]:
    """What stands behind the question mark of a source.

    Raises:
        BadInput: an option that is not known.
    """
    found = dict(parse_qsl(text, keep_blank_values=True))
    if odd := set(found) - known:
        raise BadInput(f"an unknown option in {where}", ", ".join(sorted(odd)), ", ".join(sorted(known)), "")
    return found


def _load_hub(text: str) -> Any:
    """A data set on the hub, or in any directory that `datasets.load_dataset` takes.

    Raises:
        BadInput: it cannot be loaded.
    """
    name, _, options = text.partition("?")
    chosen = _options(options, {"name", "split", "revision"}, HUB + text)
    try:
        return _datasets().load_dataset(
            name, chosen.get("name"), split=chosen.get("split"), revision=chosen.get("revision")
        )
    except Exception as error:  # whatever a data set on the hub may raise
        first = (str(error).splitlines() or [""])[0][:200]
        raise BadInput(
            f"cannot load {HUB}{text}", first, "a data set, its config and its split", ""
        ) from error


def _rows_of_saved(path: Path, options: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of what `save_to_disk` wrote."""
    try:
        loaded = _datasets().load_from_disk(str(path))
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise BadInput(
            f"{path} is a directory that datasets did not save", first, "a file, or such a directory", ""
        ) from error
    if isinstance(loaded, dict) and options.get("split") in loaded:
        loaded = loaded[options["split"]]
    yield from _one_split(loaded, str(path))


def _one_split(loaded: Any, where: str) -> Iterator[dict[str, Any]]:
    """The rows, without the features' own types: a list stays a list.

    Raises:
        BadInput: several splits, and none of them is named.
    """
    if isinstance(loaded, dict):
        if len(loaded) != 1:
            names = ", ".join(sorted(loaded))
            raise BadInput(f"{where} has several splits", names, "one", "add ?split=NAME, or &split=NAME")
        loaded = next(iter(loaded.values()))
    for batch in loaded.with_format("arrow").iter(BATCH):
        yield from map(without_nones, batch.to_pylist())


def without_nones(value: Any) -> Any:
    """A row of a columnar file without the empty fields that such a file gives every object in a column."""
    if isinstance(value, dict):
        return {name: without_nones(inner) for name, inner in value.items() if inner is not None}
    return [without_nones(inner) for inner in value] if isinstance(value, list) else value


def _rows_of_json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON", error, "a list of rows", "") from error
    if isinstance(content, dict) and len(content) == 1:  # {"data": [...]}
        content = next(iter(content.values()))
    if not isinstance(content, list):
        raise BadInput(f"{path} holds no list", type(content).__name__, "a list of rows", "")
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            what = f"{path} row {number} is not an object"
            raise BadInput(what, type(row).__name__, "an object with named fields", "")
        yield number, row


def _rows_of_jsonl(path: Path, on_broken: OnBroken) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            row = _row_of_line(line, f"{path} line {number}", on_broken) if line.strip() else None
            if row is not None:
                yield number, row


def _row_of_line(line: bytes, where: str, on_broken: OnBroken) -> dict[str, Any] | None:
    """One row; None for a broken line of which `on_broken` was told."""
    try:
        row = json.loads(line.decode("utf-8"))
        if not isinstance(row, dict):
            raise ValueError(f"a {type(row).__name__}, not an object")
    except ValueError as error:
        if on_broken is None:
            raise BadInput(
                f"{where} is broken",
                str(error)[:120],
                "one JSON object a line, in UTF-8",
                "mend the line, or set skip_broken_lines to keep the rest",
            ) from error
        on_broken(f"left out {where}: {str(error)[:120]}")
        return None
    return row
