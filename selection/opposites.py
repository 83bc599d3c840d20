"""Words that tell two answers of the same numbers apart: 10 N to the left and 10 N to the right, and which
number is whose.
"""

import re

from selection.vocabulary import EMPTY, words

PAIRS = (
    ("left", "right"), ("north", "south"), ("east", "west"), ("up", "down"), ("upward", "downward"),
    ("upwards", "downwards"), ("above", "below"), ("older", "younger"), ("before", "after"),
    ("earlier", "later"), ("more", "less"), ("more", "fewer"), ("gain", "loss"), ("profit", "loss"),
    ("increase", "decrease"), ("increased", "decreased"), ("clockwise", "counterclockwise"),
    ("clockwise", "anticlockwise"), ("inward", "outward"), ("attractive", "repulsive"),
    ("higher", "lower"), ("taller", "shorter"), ("longer", "shorter"), ("forward", "backward"),
    ("forwards", "backwards"), ("faster", "slower"), ("heavier", "lighter"), ("red", "blue"),
)  # fmt: skip
OPPOSITES: dict[str, set[str]] = {}
for _one, _other in PAIRS:
    OPPOSITES.setdefault(_one, set()).add(_other)
    OPPOSITES.setdefault(_other, set()).add(_one)


def opposed(answer: str, reference: str) -> bool:
    """Whether an answer has a word whose opposite stands in the reference in its place.

    >>> opposed("10 N to the right", "10 N to the left"), opposed("10 N", "10 N to the left")
    (True, False)
    """
    one, other = ({*re.findall(r"[a-z]+", text.casefold())} for text in (answer, reference))
    return any(OPPOSITES.get(word, set()) & (other - one) for word in one - other)


SEGMENTS = re.compile(r"\s*(?:[,;&\n]|\band\b|(?<=[\d)}$%])\s+(?=\(?(?:[b-h]|i{1,3}|iv|v)\)))\s*")
LATEX = re.compile(r"\\(?:text|mathrm|textbf|frac|dfrac)(?![A-Za-z])|\\(?=[A-Za-z])")
# of these, some tell two things apart, and "a" may be a part's name
WITHOUT_NAME = EMPTY - words("a first second last next old older new tall long wide deep high he she his her")
VALUE = re.compile(r"-?\d+(?:[.,/]\d+)*")


def swapped(answer: str, reference: str) -> bool:
    """Whether an answer gives the numbers of a reference to other names than the reference does.

    >>> swapped("boys: 15, girls: 12", "boys: 12, girls: 15"), swapped("15 and 12", "12 and 15")
    (True, False)
    """
    own, other = _by_label(answer), _by_label(reference)
    if own is None or other is None or own.keys() != other.keys():
        return False
    return own != other and sorted(own.values()) == sorted(other.values())


def _by_label(text: str) -> dict[frozenset[str], str] | None:
    """The number of each part of a text, by the words beside it. None unless there are several parts, each
    with one number and words of its own.
    """
    found = dict[frozenset[str], str]()
    for part in SEGMENTS.split(LATEX.sub(" ", text)):
        values = VALUE.findall(part)
        labels = frozenset(re.findall(r"[^\W\d_]+", part.casefold())) - WITHOUT_NAME
        if not values and not labels:
            continue
        if len(values) != 1 or not labels or labels in found:
            return None
        found[labels] = values[0]
    return found if len(found) > 1 else None
