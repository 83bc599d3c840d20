"""The usual columns of question, reference, answer and id. Dotted paths reach into nested rows. `turns` reads
whole conversations.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from jobs.files.values import as_text, is_nothing

QUESTION_NAMES = ("question", "problem", "instruction", "prompt", "input", "query")
REFERENCE_NAMES = (
    "reference_answer",
    "reference",
    "ground_truth",
    "reward_model.ground_truth",
    "gold",
    "gold_answer",
    "correct_answer",
    "expected_answer",
    "target",
    "answer",
    "output",
)
# By rank: if a row has a column of one rank, its answer is there or it has none. Columns of later ranks may
# hold the reference, which must not be taken for the answer of a teacher that failed. A row with both
# `output` and `answer` has its reference in the second one.
ANSWER_RANKS = (
    ("teacher_output", "completion", "response", "generation", "generated_solution", "model_output"),
    ("solution",),
    ("output", "answer"),
)
IS_ANSWER = frozenset(ANSWER_RANKS[0])
ANSWER_NAMES = tuple(name for rank in ANSWER_RANKS for name in rank)
FIRST_ROWS = 200  # which tell the column that a file keeps answers in
ID_NAMES = ("question_id", "problem_id", "id")  # `id` may be that of a row
TEACHER_NAMES = ("teacher", "teacher_name")
NAMES_TEACHER = frozenset(TEACHER_NAMES)


def value_at(row: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted path. None if the path ends early."""
    if "." not in dotted:
        return row.get(dotted)
    value: Any = row
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def first_value(row: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> Any:
    """The value of the column that the user named, otherwise of the first usual column that is not empty.
    None if there is none.
    """
    names = usual if named is None else (named,)
    values = (value_at(row, name) for name in names)
    return next((value for value in values if not is_nothing(value)), None)


def id_of(row: Mapping[str, Any], named: str | None = None) -> str | None:
    """The id that a row gives its question. None if it gives none. 1, 1.0 and "1" are the same id.

    >>> id_of({"id": 1.0}), id_of({"id": float("nan"), "question_id": "q"}), id_of({"id": ""})
    ('1', 'q', None)
    """
    return name_in(row, named, ID_NAMES)


def teacher_of(row: Mapping[str, Any], named: str | None = None) -> str | None:
    """The teacher that a row names. None if it names none."""
    if named is None and NAMES_TEACHER.isdisjoint(row):  # true for most rows, of which there may be millions
        return None
    return name_in(row, named, TEACHER_NAMES)


def name_in(row: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> str | None:
    """A name as text. A name that is an object is written as text, always in the same way."""
    value = first_value(row, named, usual)
    return None if value is None else as_text(value) or str(value)


def with_one_rank(rows: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Rows without columns that hold the reference in their file. If rows with `response` have `answer`
    beside it, a row that lacks `response` has no answer: its `answer` is the reference too. The first rows
    tell.
    """
    first = list(islice(rows, FIRST_ROWS))
    later = frozenset(name for rank in ANSWER_RANKS[1:] for name in rank)
    answered = [row for _, row in first if isinstance(row, Mapping) and not IS_ANSWER.isdisjoint(row)]
    beside = frozenset(name for row in answered for name in later.intersection(row))
    for place, row in chain(first, rows):
        is_other = isinstance(row, Mapping) and IS_ANSWER.isdisjoint(row) and not beside.isdisjoint(row)
        yield place, {k: v for k, v in row.items() if k not in beside} if is_other else row
