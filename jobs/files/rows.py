"""Rows of a JSONL, JSON or Parquet file, with every defect named by its line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluster.errors import BadInput

OnBroken = Callable[[str], None] | None


def read_rows(path: Path, on_broken: OnBroken = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based line or row number, row) of a JSONL, JSON or Parquet file.

    Raises:
        BadInput: no such file; a broken line, with its number, unless `on_broken` is given: it is told of
            each one left out.
    """
    if not path.is_file():
        raise BadInput("no such file", path, "a .jsonl, .json or .parquet file", "check the path")
    if path.suffix == ".parquet":
        yield from enumerate(pq.read_table(path).to_pylist(), 1)
    elif path.suffix == ".json":
        yield from _rows_of_json(path)
    else:
        yield from _rows_of_jsonl(path, on_broken)


def _rows_of_json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON", error, "a list of rows", "") from error
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
