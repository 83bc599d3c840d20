"""Rows that the library `datasets` loads: a directory that it saved, or a data set on the hub."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pyarrow as pa

from cluster.errors import BadInput
from jobs.files.values import from_column, shortest

HUB = "hub:"
BATCH = 1000  # how many rows of a columnar file are in memory at once


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved this directory."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def datasets_library() -> Any:
    """Import the library `datasets`, which is optional.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise BadInput(
            "the library datasets is not installed",
            "",
            "datasets, which reads the hub and saved data sets",
            "pip install 'tutelage[datasets]'",
        ) from error
    return datasets


def options_of(text: str, known: set[str], where: str) -> dict[str, str]:
    """The options after the question mark of a source.

    Raises:
        BadInput: an option is unknown.
    """
    found = dict(parse_qsl(text, keep_blank_values=True))
    if odd := set(found) - known:
        raise BadInput(f"{where} has an unknown option", ", ".join(sorted(odd)), ", ".join(sorted(known)), "")
    return found


def load_hub(text: str) -> Any:
    """A data set on the hub, or in any directory that `datasets.load_dataset` takes.

    Raises:
        BadInput: it cannot be loaded.
    """
    name, _, options = text.partition("?")
    chosen = options_of(options, {"name", "split", "revision"}, HUB + text)
    try:
        return datasets_library().load_dataset(
            name, chosen.get("name"), split=chosen.get("split"), revision=chosen.get("revision")
        )
    except Exception as error:  # a data set on the hub may raise anything
        first = (str(error).splitlines() or [""])[0][:200]
        raise BadInput(
            f"cannot load {HUB}{text}", first, "a data set, its config and its split", ""
        ) from error


def rows_of_saved(path: Path, options: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The rows of a directory that `save_to_disk` wrote."""
    try:
        loaded = datasets_library().load_from_disk(str(path))
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise BadInput(
            f"{path} is a directory that datasets did not save", first, "a file, or such a directory", ""
        ) from error
    wanted, splits = options.get("split"), loaded
    if wanted is not None:
        if not isinstance(loaded, dict):
            splits = {str(loaded.split): loaded}
        if wanted not in splits:
            raise BadInput(f"{path} has no split {wanted}", ", ".join(sorted(splits)), "one of these", "")
        loaded = splits[wanted]
    yield from one_split(loaded, str(path))


def one_split(loaded: Any, where: str) -> Iterator[dict[str, Any]]:
    """The rows of one split. The features' own types are not used, so a list stays a list.

    Raises:
        BadInput: there are several splits, and none is named.
    """
    if isinstance(loaded, dict):
        if len(loaded) != 1:
            names = ", ".join(sorted(loaded))
            raise BadInput(f"{where} has several splits", names, "one", "add ?split=NAME, or &split=NAME")
        loaded = next(iter(loaded.values()))
    for batch in loaded.with_format("arrow").iter(BATCH):
        yield from map(row_of_columns, plain_rows(batch))


def refuse_double(names: Iterable[str], where: str) -> None:
    """Refuse two columns of one name: nobody could say which one is meant.

    Raises:
        BadInput: names the first.
    """
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        raise BadInput(f"{where} has two columns of one name", double[0], "one", "rename or drop one of them")


def plain_rows(table: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table as plain values."""
    refuse_double(table.schema.names, "the file")
    columns = plain_columns(table)
    for k in range(table.num_rows):
        yield {name: values[k] for name, values in columns.items()}


def plain_columns(table: pa.RecordBatch | pa.Table) -> dict[str, list[Any]]:
    """The columns of a table as plain values. Narrow floats have their shortest decimals. Times that Python
    cannot hold (a year beyond 9999, an unknown zone) are texts.
    """
    return {name: _plain_column(table.column(k)) for k, name in enumerate(table.schema.names)}


def _plain_column(column: Any) -> list[Any]:
    kind = column.type
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError, LookupError):  # ValueError: Arrow's own errors too
        if not pa.types.is_temporal(column.type):
            raise
        bare = pa.timestamp(column.type.unit) if pa.types.is_timestamp(column.type) else pa.int64()
        values = [None if v is None else str(v) for v in column.cast(bare).cast(pa.int64()).to_pylist()]
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        narrow = np.float32 if pa.types.is_float32(kind) else np.float16
        return [_narrowed(value, narrow) for value in values]
    return values


def _narrowed(value: Any, narrow: type) -> Any:
    if isinstance(value, list):
        return [_narrowed(inner, narrow) for inner in value]
    return None if value is None else shortest(narrow(value))


def row_of_columns(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a columnar file. It keeps empty columns too, because the names of its columns decide where its
    answer should be.
    """
    return {str(name).lstrip("\ufeff"): from_column(value) for name, value in row.items()}
