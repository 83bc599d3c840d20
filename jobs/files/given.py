"""Answers that a program holds in memory, as the rows that a file of them would have.

Lists are joined by place: the answers at place `i` belong to the question at place `i`, whose id is `i`.
Frames, data sets and lists of dictionaries are rows in any layout that a file may have.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from cluster.errors import BadInput
from cluster.models.repair import repaired_text
from jobs.files.columns import with_one_rank
from jobs.files.layouts import Answers, Reading, read_teacher_files
from jobs.files.loaded import one_split, plain_columns, refuse_double, row_of_columns
from jobs.files.rows import numbered, read_rows
from jobs.files.trajectories import WhichTurns
from jobs.files.values import is_nan, shortest, whole

NAME = "answers"  # the teacher of answers that nobody names a teacher of
Turn: TypeAlias = Mapping[str, Any]  # role, content and what else a message has
Question: TypeAlias = str | Sequence[Turn]
Answer: TypeAlias = str | Turn | None


class Column(Protocol):
    """A list, a column of a frame or an array: what has a length and is gone through in order."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class DataSet(Protocol):
    """A data set of the library `datasets`, or several splits of which there is one."""

    @property
    def column_names(self) -> Any: ...
    def with_format(self, *arguments: Any, **options: Any) -> Any: ...


Lists: TypeAlias = Column | Mapping[str, Column]  # of answers, or of lists of answers; by teacher
Rows: TypeAlias = pd.DataFrame | DataSet | Sequence[Mapping[str, Any]] | str | Path
Row: TypeAlias = dict[str, Any]


def read_given(questions: Column | None, answers: Lists | Rows, which: WhichTurns = "last") -> Answers:
    """Answers with their questions, read like those of files.

    Args:
        questions: texts or lists of messages; None where rows hold them.
        answers: lists, rows, or a path of what `--answers` takes.
        which: the turns of the assistant that an answer in rows is made of.

    Raises:
        BadInput: lists of different lengths, questions beside rows, nothing that can be understood.
    """
    _refuse_beside(questions, answers, "questions")
    if isinstance(answers, str | Path):
        return read_teacher_files(str(answers), which=which)
    rows = rows_of(answers) if questions is None else listed(questions, answers)
    reading = Reading(Answers(), is_numbered=questions is not None, which=which)
    left_out, named = reading.take_all(NAME, NAME, with_one_rank(numbered(rows), NAME))
    if not named:
        raise BadInput("no answers", "an empty list", "one at least", "")
    reading.found.notes += left_out.first
    return reading.done()


def read_checked(answers: Lists | Rows, references: Column | None) -> list[tuple[str, Row]]:
    """Rows that each hold an answer and a reference, with their places.

    Raises:
        BadInput: lists of different lengths, references beside rows, no rows.
    """
    _refuse_beside(references, answers, "references")
    if isinstance(answers, str | Path):
        rows = list(read_rows(answers))
    elif references is None:
        rows = list(numbered(rows_of(answers)))
    else:
        rows = list(numbered(listed(references, answers, "reference_answer")))
    if not rows:
        raise BadInput("no answers", "an empty list", "one at least", "")
    return rows


def rows_of(given: Any) -> Iterator[Row]:
    """The rows of a frame, a data set or a list of dictionaries.

    Raises:
        BadInput: it is none of these.
    """
    if isinstance(given, pd.DataFrame):
        yield from rows_of_frame(given)
    elif _is_data_set(given):
        yield from one_split(given, "the data set")
    elif isinstance(given, Sequence) and given and all(isinstance(row, Mapping) for row in given):
        yield from ({str(name): plain(value) for name, value in row.items()} for row in given)
    else:
        raise BadInput(
            "answers without their questions or references",
            _kind(given),
            "rows that hold both: a DataFrame, a Dataset, a list of dictionaries, a path",
            "or give the questions or references as a list too",
        )


def rows_of_frame(frame: pd.DataFrame) -> Iterator[Row]:
    """The rows of a frame as those of a Parquet file with its columns."""
    refuse_double(map(str, frame.columns), "the frame")
    columns = {str(name): values_of(frame.iloc[:, at]) for at, name in enumerate(frame.columns)}
    for values in zip(*columns.values(), strict=True):
        yield row_of_columns(dict(zip(columns, values, strict=True)))


def values_of(column: pd.Series) -> list[Any]:
    """A frame's column as plain values. One of objects is read value by value: Arrow would give all of them
    one type.
    """
    if column.dtype == object:
        return [plain(value) for value in column]
    try:
        return plain_columns(pa.table({"": pa.Array.from_pandas(column)}))[""]
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return column.tolist()


def listed(beside: Column, answers: Any, name: str = "prompt") -> Iterator[Row]:
    """Rows of answers in lists, by question, then in the order of their teachers and samples.

    Args:
        beside: what stands beside the answers to each question: the question, or its references.
        name: of its column.

    Raises:
        BadInput: lists of different lengths, or columns of a frame in another order.
    """
    _refuse_text(beside, f"the {name}s")
    teachers = dict(answers) if isinstance(answers, Mapping) else {NAME: answers}
    for teacher, own in teachers.items():
        _check_beside(beside, own, str(teacher))
    every = zip(beside, zip(*teachers.values(), strict=True), strict=True)
    for place, (given, cells) in enumerate(every):
        for teacher, cell in zip(teachers, cells, strict=True):
            for sample, answer in enumerate(_samples(cell)):
                row = {"id": str(place), "teacher": str(teacher), "sample": sample}
                yield {**row, name: plain(given), **_answer_columns(answer, name)}


def _answer_columns(answer: Any, beside: str) -> Row:
    """An answer as the columns of a row: a text, or an assistant's message."""
    if not isinstance(answer, Mapping):
        return {"completion": plain(answer)}
    turns: Row = {} if beside == "prompt" else {"prompt": []}
    return {**turns, "completion": [whole(dict(answer))]}


def _samples(cell: Any) -> Iterable[Any]:
    """The answers to one question: one, or a list of several."""
    return (list(cell) or [None]) if isinstance(cell, list | tuple | np.ndarray) else [cell]


def plain(value: Any) -> Any:
    """A value of a list as a file would hold it: numbers of numpy are Python's, what is no number is nothing.

    >>> plain(np.float32(0.5)), plain(np.array(["a"])), plain(float("nan")), plain(({"role": "user"},))
    (0.5, ['a'], None, [{'role': 'user'}])
    """
    if isinstance(value, np.generic | np.ndarray):
        value = shortest(value) if value.dtype in (np.float16, np.float32) else value.tolist()
    if value is pd.NA or value is pd.NaT or is_nan(value):
        return None
    if isinstance(value, Mapping):
        return {repaired_text(str(name)): plain(inner) for name, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(one) for one in value), key=str)
    return [plain(one) for one in value] if isinstance(value, list | tuple) else whole(value)


def _refuse_text(given: Any, what: str) -> None:
    if isinstance(given, str | bytes | Mapping | set | frozenset) or not (
        hasattr(given, "__len__") and hasattr(given, "__iter__")
    ):
        raise BadInput(f"{what} are no list", _kind(given), "a list with one entry a question", "")


def _check_beside(beside: Column, own: Any, teacher: str) -> None:
    """Refuse lists that cannot be joined by place."""
    _refuse_text(own, f"the answers of {teacher}")
    if len(own) != len(beside):
        raise BadInput(
            f"the answers of {teacher} are not as many as the questions",
            f"{len(own):,} and {len(beside):,}",
            "one entry a question; None where there is no answer",
            "",
        )
    both = isinstance(beside, pd.Series) and isinstance(own, pd.Series)
    if both and not beside.index.equals(own.index):  # type: ignore[attr-defined]
        raise BadInput(
            f"the answers of {teacher} have another index than what stands beside them",
            "",
            "columns of one frame",
            "align them, or pass lists",
        )


def _is_data_set(given: Any) -> bool:
    """Whether this is a data set, or several splits of one, of the library `datasets`."""
    return hasattr(given, "with_format") and hasattr(given, "column_names")


def _refuse_beside(given: Column | None, answers: Any, what: str) -> None:
    if given is not None and (isinstance(answers, str | Path | pd.DataFrame) or _is_data_set(answers)):
        raise BadInput(
            f"{what} in a list, beside rows that have columns",
            _kind(answers),
            f"lists of answers, or rows that hold their {what}",
            f"leave out {what}, or pass the column of answers",
        )


def _kind(given: Any) -> str:
    return f"{type(given).__name__} {str(given)[:40]!r}"
