"""Reads equations and inequalities: a name with its value, intervals of a name, or two sides.

The sides are read with the given function `read`.
"""

import re

from selection.expressions import expression, has_variables
from selection.quantities import quantity
from selection.readings import (
    Expression,
    Intervals,
    Named,
    Reader,
    Reading,
    Relation,
    Several,
    end_of,
    latex_of,
)
from selection.structures import NAME, Structured, split_top
from selection.vocabulary import FUNCTIONS, TELLING

RELATIONS = re.compile(r"\\(?:le|ge|ne|in|approx|equiv)(?![A-Za-z])|<=|>=|!=|:=|==|[=<>]")
SIGN_OF = {r"\le": "<=", r"\ge": ">=", r"\ne": "!=", "==": "=", ":=": "=", r"\approx": "=", r"\in": "in"}
WORD_NAME = re.compile(r"[A-Za-z][A-Za-z'-]+(?:\s+[A-Za-z'-]+){0,6}")


def related(text: str, read: Reader) -> Structured:
    """Equations and inequalities."""
    signs = [SIGN_OF.get(s[0], s[0]) for s in _found_at_top(text)]
    if not signs:
        return False, None
    parts = split_top(text, re.compile(rf"\s*(?:{RELATIONS.pattern})\s*"))
    if signs == ["in"] or signs[0] == "\\equiv":
        return True, read(parts[1]) if signs == ["in"] and NAME.fullmatch(parts[0]) else None
    if signs.count("=") == len(signs) and r"\approx" in text and not NAME.fullmatch(parts[0]):
        claims = [read(part) for part in parts[-2:]]
        known = tuple(claim for claim in claims if claim is not None)
        return True, Several("approx", known) if len(known) == 2 and not has_variables(parts[0]) else None
    if set(signs) == {"="}:
        return True, _equation(parts, read)
    return True, _inequality(parts, signs, read)


def _found_at_top(text: str) -> list[re.Match[str]]:
    found, depth, place = [], 0, 0
    while place < len(text):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        match = RELATIONS.match(text, place) if depth <= 0 else None
        if match:
            found.append(match)
        place = match.end() if match else place + 1
    return found


def _equation(parts: list[str], read: Reader) -> Reading | None:
    first, last = parts[0], parts[-1]
    if not all(parts):
        return read(last) if last and len(parts) == 2 else None
    if NAME.fullmatch(first) or (WORD_NAME.fullmatch(first) and first.casefold() not in FUNCTIONS):
        if any(word in TELLING for word in first.casefold().split()):
            return None
        value = read(last)
        sides = _sides(first, last, read) if NAME.fullmatch(first) else None
        return None if value is None else Named(first.replace(" ", ""), value, sides)
    if NAME.fullmatch(last) and len(parts) == 2 and quantity(first) is not None:
        return _equation([last, first], read)
    if not has_variables(first):
        return read(last)
    if len(parts) > 2 and any(has_variables(part) for part in parts[1:]):
        return None
    sides = _sides(first, last, read)
    return None if sides is None else Relation("=", sides)


def _sides(left: str, right: str, read: Reader) -> tuple[str, str] | None:
    one, other = expression(left), read(right)
    if isinstance(one, Expression) and other is not None and (latex := latex_of(other)):
        return one.latex, latex
    return None


def _inequality(parts: list[str], signs: list[str], read: Reader) -> Reading | None:
    """Intervals if one name is between constants, otherwise a relation."""
    if len(parts) == 2 and signs[0] == "!=":
        sides = _sides(parts[0], parts[1], read)
        return Relation("!=", sides) if sides else None
    if "!=" in signs or "=" in signs:
        return None
    if len(parts) == 3 and NAME.fullmatch(parts[1]) and signs[0][0] == signs[1][0]:
        low, high = (read(parts[0]), read(parts[2]))
        if signs[0][0] == ">":
            low, high, signs = high, low, signs[::-1]
        if low is None or high is None:
            return None
        return Intervals(((end_of(low), end_of(high), signs[0][1:] == "=", signs[1][1:] == "="),), parts[1])
    if len(parts) != 2:
        return None
    for name, other, sign in (
        (*parts, signs[0]),
        (*parts[::-1], signs[0].translate(str.maketrans("<>", "><"))),
    ):
        bound = read(other) if NAME.fullmatch(name) and not has_variables(other) else None
        if bound is not None:
            closed = sign[1:] == "="
            end = end_of(bound)
            part = (None, end, False, closed) if sign[0] == "<" else (end, None, closed, False)
            return Intervals((part,), name)
    sides = _sides(parts[0], parts[1], read)
    return Relation(signs[0], sides) if sides else None
