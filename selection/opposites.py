"""Words that tell two answers of the same number apart: 10 N to the left and 10 N to the right."""

import re

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
