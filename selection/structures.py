"""Reads several values in one final answer: between commas, in brackets, as intervals and unions, with
plus-minus.

The members are read with the given function `read`.
"""

import re

from selection.quantities import in_a_phrase, quantity
from selection.readings import (
    Infinite,
    Intervals,
    Named,
    Reader,
    Reading,
    Several,
    Words,
    as_intervals,
    end_of,
)

Structured = tuple[bool, Reading | None]
CUP = re.compile(r"\\cup(?![A-Za-z])")
SEPARATOR = re.compile(r"\s*[,;]\s*(?:and\s|or\s)?\s*|\s+(?:and|or)\s+")
COMMA = re.compile(r"\s*[,;]\s*")
TOGETHER = re.compile(r"(?<![\w.,'])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")  # the digits of one number
PLUS_MINUS, MINUS_PLUS = re.compile(r"\\pm(?![A-Za-z])"), re.compile(r"\\mp(?![A-Za-z])")
NAME = re.compile(
    r"(?:\\(?:vec|bar|hat|overline|mathbf)\s*\{?\s*[A-Za-z]\s*\}?|\\[A-Za-z]+|[A-Za-z])"
    r"(?:'{1,2})?(?:_\{?[\w]+\}?)?(?:\s*\(\s*[\w,\s]+\s*\))?|"
    r"\|?[A-Z]{2,3}\|?|\\angle\s*[A-Z]+|"
    r"\(\s*[a-z](?:_\{?\w\}?)?(?:\s*,\s*[a-z](?:_\{?\w\}?)?)+\s*\)"
)


PART_NAME = re.compile(r"(?<![\w\\])\(?([a-h]|iii|iv|ii|i|v)\)[:.]?\s+")
ROMAN_NAMES = ["i", "ii", "iii", "iv", "v"]


def closes_at(text: str, at: int) -> int:
    """The place where the bracket at this place closes. -1 if it does not. Brackets of intervals may
    differ.
    """
    depth = 0
    for place in range(at, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place
    return -1


def split_top(text: str, separator: re.Pattern[str], groups: bool = False) -> list[str]:
    """Split at separators outside all brackets.

    Args:
        groups: whether the digits of a grouped number, such as 1,234, stay together.
    """
    kept = {found.start(): found.end() for found in TOGETHER.finditer(text)} if groups else {}
    parts, depth, begin, place = [], 0, 0, 0
    while place < len(text):
        if place in kept:
            place = kept[place]
            continue
        depth += (text[place] in "([{") - (text[place] in ")]}")
        found = separator.match(text, place) if depth <= 0 else None
        if found and found.end() > place:
            parts.append(text[begin:place])
            begin = place = found.end()
        else:
            place += 1
    return [part.strip() for part in (*parts, text[begin:])]


def union(text: str, read: Reader) -> Structured:
    parts = split_top(re.sub(r"^[a-z]\s*\\in(?![A-Za-z])\s*", "", text), CUP)
    if len(parts) < 2:
        return False, None
    found = [as_intervals(read(part)) for part in parts]
    return True, None if None in found else Intervals(tuple(p for one in found if one for p in one.parts))


def bracketed(text: str, read: Reader) -> Structured:
    r"""`(a, b)`, `[a, b)`, `{a, b}`, `\{a, b\}`, `\langle a, b \rangle`."""
    text = text.replace(r"\langle", "(").replace(r"\rangle", ")")
    opened = text.replace(r"\{", "{").replace(r"\}", "}")
    if opened[:1] not in "([{]" or opened[-1:] not in ")]}[" or len(opened) < 2:
        return False, None
    inside = opened[1:-1]
    if opened[0] in "([{" and closes_at(opened, 0) != len(opened) - 1:
        return False, None
    parts = split_top(inside, COMMA, groups=True)
    if len(parts) < 2:  # of (100,200) the comma divides
        parts = split_top(inside, COMMA)
    if len(parts) < 2:
        if opened[0] == "{" and text.startswith("\\{"):
            one = read(inside.strip())
            return True, Several("set", (one,), True) if one is not None else None
        return False, None
    items = tuple(read(part) for part in parts)
    if any(item is None for item in items):
        return True, None
    known = tuple(item for item in items if item is not None)
    ends = (opened[0], opened[-1])
    if ends == ("{", "}"):
        return True, Several("set", flat(known), True)
    if ends != ("(", ")") and len(known) == 2:
        return True, Intervals(((end_of(known[0]), end_of(known[1]), ends[0] == "[", ends[1] == "]"),))
    if any(isinstance(item, Infinite) for item in known) and len(known) == 2:
        return True, Intervals(((end_of(known[0]), end_of(known[1]), False, False),))
    return True, Several("tuple", known)


def listed(text: str, read: Reader) -> Structured:
    """Values between commas, `and`, `or`."""
    parts = split_top(text, SEPARATOR, groups=True)
    if len(parts) < 2:
        return False, None
    if re.fullmatch(r"[1-9]\d{0,2}(?:, \d{3})+", text) and any(part[0] == "0" for part in parts[1:]):
        return True, quantity(text.replace(" ", ""))
    if sum(bool(re.search(r"[\d\\]", part)) for part in parts) == 1 and (told := in_a_phrase(text)):
        return True, told
    first = re.match(rf"({NAME.pattern})\s*=\s*", parts[0])
    if first and not any("=" in part for part in parts[1:]):
        parts[0] = parts[0][first.end() :]
    items = [read(part) for part in parts if part]
    if len(items) < 2 or any(item is None or isinstance(item, Words) for item in items):
        return True, None
    known = tuple(item for item in items if item is not None)
    names = [item.name for item in known if isinstance(item, Named)]
    if len(names) == len(known) and len(set(names)) == 1:
        known = tuple(item.value for item in known if isinstance(item, Named))
    if all(isinstance(item, Intervals) for item in known):
        joined = tuple(part for item in known if isinstance(item, Intervals) for part in item.parts)
        return True, Intervals(joined) if re.search(r"\bor\b", text) else None
    return True, Several("set", flat(known))


def flat(items: tuple[Reading, ...]) -> tuple[Reading, ...]:
    """The items, with both values of a plus-minus in its place."""
    return tuple(
        one
        for item in items
        for one in (
            item.items if isinstance(item, Several) and item.kind == "set" and not item.is_braced else (item,)
        )
    )


def parts_told(text: str, read: Reader) -> Structured:
    """Answers to several parts of a question, in their order: (a) 3, (b) 4."""
    names = [found[1].casefold() for found in PART_NAME.finditer(text)]
    is_begun = PART_NAME.match(text) is not None
    if (
        not is_begun
        or len(names) < 2
        or names not in (list("abcdefgh")[: len(names)], ROMAN_NAMES[: len(names)])
    ):
        return False, None
    values = [part.strip(" ,;") for part in PART_NAME.split(text)[2::2]]
    items = tuple(read(value) for value in values)
    known = tuple(item for item in items if item is not None)
    return True, Several("tuple", known) if len(known) == len(items) else None


def plus_minus(text: str, read: Reader) -> Structured:
    if not PLUS_MINUS.search(text) or MINUS_PLUS.search(text):
        return MINUS_PLUS.search(text) is not None, None
    both = [read(re.sub(r"^\+\s*", "", PLUS_MINUS.sub(sign, text).strip())) for sign in "+-"]
    if both[0] is None or both[1] is None:
        return True, None
    return True, Several("set", (both[0], both[1]))
