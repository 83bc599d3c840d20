"""Columns that hold a part of a question, as in well-known data sets (SQuAD, BoolQ, ARC, AQuA, MMLU, SVAMP),
and that no layout puts into its text.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jobs.files.columns import QUESTION_NAMES
from jobs.files.refusals import NotUnderstood
from jobs.files.values import as_text, is_nothing

BESIDE = re.compile(
    r"(?:contexts?|passages?|paragraphs?|choices?|options?|documents?|instructions|body|story|background|"
    r"premise|hypothesis|sentence_?[12]|facts?|table|article|endings?|"
    r"(?:opt|option|op|choice|answer_?choice|ending|sol)[_ ]?[a-e1-5])$",
    re.IGNORECASE,
)
LETTERS = ("A", "B", "C", "D", "E")  # columns of a question's options


def refuse_beside(row: Mapping[str, Any]) -> None:
    """Refuse columns that belong to a question and that no layout puts into its text.

    Raises:
        NotUnderstood: one of them is not empty. Names the first.
    """
    names = names_beside(tuple(row))
    if not names:  # true for most rows, of which there may be millions
        return
    asked = " ".join(row[name] for name in QUESTION_NAMES if isinstance(row.get(name), str))
    for name in names:
        if not is_nothing(row[name]) and not _is_told(row[name], asked):
            raise NotUnderstood(f"a column {name} beside the question: put it into the question's text")


@lru_cache(maxsize=64)
def names_beside(names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of a row's columns may belong to its question.

    >>> names_beside(("question", "Body", "A", "source")), names_beside(("A", "B", "answer"))
    (('Body',), ('A', 'B'))
    """
    letters = tuple(name for name in LETTERS if name in names)
    own = tuple(name for name in names if isinstance(name, str) and BESIDE.match(name))
    return own + (letters if len(letters) > 1 else ())


def _is_told(given: Any, text: str) -> bool:
    """Whether all texts of a value are in a text already."""
    if isinstance(given, Mapping):
        return all(_is_told(own, text) for name, own in given.items() if name != "label")
    if isinstance(given, list):
        return all(_is_told(own, text) for own in given)
    said = (as_text(given) or "").strip()
    return bool(said) and re.search(rf"(?<!\w){re.escape(said)}(?!\w)", text) is not None
