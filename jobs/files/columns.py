"""The usual columns of question, reference, answer and id. Dotted paths reach into nested rows. `turns` reads
whole conversations.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from cluster.errors import BadInput
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
FEW_WORDS = 4  # what has fewer is a label, a name or an id
# columns that are read as something else
KNOWN_TEXTS = frozenset(
    (*QUESTION_NAMES, *REFERENCE_NAMES, "system", "system_prompt", "teacher", "teacher_name", "question_id")
)
# names of columns that tell what they are: about the question or where the row is from
ABOUT = re.compile(
    r"question|problem|prompt|instruct|query|^inputs?$|source|title|topic|subject|categor|^tags?$|url|link|"
    r"meta|reason|think|thought|^cot|hint|descri|comment|note|licen|author|dataset|^lang|date|time|name$|"
    r"_id$|^id|system",
    re.IGNORECASE,
)
FIRST_ROWS = 200  # which tell the column that a file keeps answers in
ID_NAMES = ("question_id", "problem_id", "id")  # `id` may be that of a row
TEACHER_NAMES = ("teacher", "teacher_name")
MAYBE_TEACHERS = ("model", "model_name", "generator", "model_id", "teacher_model")
IS_MAYBE = frozenset(MAYBE_TEACHERS)
MOST_NAMES = 20
NAMES_TEACHER = frozenset(TEACHER_NAMES)


def value_at(row: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted path, in which numbers count the elements of lists from 0. A column whose own
    name holds dots is taken first. None if the path ends early.

    >>> value_at({"choices": [{"text": "7"}]}, "choices.0.text"), value_at({"qwen2.5": "7"}, "qwen2.5")
    ('7', '7')
    """
    if dotted in row or "." not in dotted:
        return row.get(dotted)
    value: Any = row
    for part in dotted.split("."):
        if isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return None
    return value


def first_value(row: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> Any:
    """The value of the column that the user named, otherwise of the first usual column that is not empty.
    None if there is none.
    """
    names = usual if named is None else (named,)
    values = (value_at(row, name) for name in names)
    return next((value for value in values if not is_nothing(value)), None)


class Ambiguous(dict[str, Any]):
    """A row beside whose answer there are texts that nothing reads.

    Attributes:
        unread: their columns, in words.
    """

    def __init__(self, row: Mapping[str, Any], unread: str) -> None:
        super().__init__(row)
        self.unread = unread


class Named:
    """Which of the columns that a user named some row has. A name that no row has is a mistake.

    Args:
        names: by setting, such as `fields.system`, the column.
    """

    def __init__(self, names: Mapping[str, str | None]) -> None:
        self.left = {setting: name for setting, name in names.items() if name is not None}

    def see(self, row: Any) -> None:
        """Look at one row."""
        if self.left and isinstance(row, Mapping):
            self.left = {s: name for s, name in self.left.items() if value_at(row, name) is None}

    def refuse_absent(self, path: str) -> None:
        """Refuse a name that none of the rows has.

        Raises:
            BadInput: with the first such name.
        """
        for setting, name in self.left.items():
            raise BadInput(
                f"no row of {path} has the column that {setting} names",
                name,
                "a column of the file",
                "correct it",
            )


class UnreadNames:
    """Columns that name who answered, in words that are not read as a teacher's name."""

    def __init__(self) -> None:
        self.found: dict[str, set[str]] = {name: set() for name in MAYBE_TEACHERS}

    def see(self, row: Any) -> None:
        """Look at one row that names no teacher."""
        if not isinstance(row, Mapping) or IS_MAYBE.isdisjoint(row):
            return
        for name in MAYBE_TEACHERS:
            value = row.get(name)
            if isinstance(value, str) and len(self.found[name]) < MOST_NAMES:
                self.found[name].add(value)

    def lines(self, where: str) -> list[str]:
        """What is said if a column has several values."""
        return [
            f"{where}: the column {name} has {len(own)} values, such as {', '.join(sorted(own)[:2])}, and "
            "all rows count as one teacher's; if these are teachers, call the column teacher (or name it by "
            "fields.teacher)"
            for name, own in self.found.items()
            if len(own) > 1
        ]


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


def with_one_rank(rows: Iterator[tuple[str, Any]], source: str) -> Iterator[tuple[str, Any]]:
    """Rows without columns that hold the reference in their file. If rows with `response` have `answer`
    beside it, a row that lacks `response` has no answer: its `answer` is the reference too. The first rows
    tell. Rows whose answer may stand in a column that nothing reads are `Ambiguous`.

    Args:
        source: the file, for errors.

    Raises:
        BadInput: later rows have their answers in another column.
    """
    first = list(islice(rows, FIRST_ROWS))
    later = frozenset(name for rank in ANSWER_RANKS[1:] for name in rank)
    unread = unread_texts([row for _, row in first if isinstance(row, Mapping)])
    answered = [row for _, row in first if isinstance(row, Mapping) and not IS_ANSWER.isdisjoint(row)]
    beside = frozenset(name for row in answered for name in later.intersection(row))
    for place, row in chain(first, rows):
        if not isinstance(row, Mapping):
            yield place, row
        elif not IS_ANSWER.isdisjoint(row):
            if not answered and not later.isdisjoint(row):
                name = next(name for name in ANSWER_RANKS[0] if name in row)
                raise BadInput(
                    f"{source} has answers in another column than in its first {FIRST_ROWS} rows",
                    f"{name} at {place}",
                    "one column with the answers",
                    "name the column of the answers (fields.answer, --answer-field)",
                )
            yield place, row
        elif not beside.isdisjoint(row):
            yield place, {k: v for k, v in row.items() if k not in beside}
        elif unread:
            yield place, Ambiguous(row, ", ".join(unread))
        else:
            yield place, row


def unread_texts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns with a text of its own in most of some rows, which nothing reads, where the answer would be
    taken from a column that may hold the reference. One of them may hold what the model really said.
    """
    asked = [row for row in rows if IS_ANSWER.isdisjoint(row) and any(n in row for n in ANSWER_NAMES)]
    texts: dict[str, list[str]] = {}
    for row in asked:
        known = [str(row[n]) for n in (*ANSWER_NAMES, *QUESTION_NAMES) if isinstance(row.get(n), str)]
        for name, text in row.items():
            if isinstance(text, str) and len(text.split()) >= FEW_WORDS and not _is_known(name, text, known):
                texts.setdefault(name, []).append(text.strip())
    return [
        name for name, own in texts.items() if 2 * len(own) > len(asked) and len(set(own)) > 0.6 * len(own)
    ]


def _differ(texts: Sequence[str]) -> bool:
    """Whether most texts are different, as answers are and categories are not."""
    return len(set(texts)) > 0.6 * len(texts)


def _is_known(name: str, text: str, known: Sequence[str]) -> bool:
    """Whether a column is read, says what it is by its name, or repeats the question or the answer."""
    if name in KNOWN_TEXTS or ABOUT.search(name):
        return True
    said = text.strip()
    return any(own.strip() and (own.strip() in said or said in own) for own in known)
