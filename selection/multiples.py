"""Tells whether several values or intervals are equal: lists, sets, tuples, ratios.

Their members are compared with the given function `same`.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from selection.quantities import Quantity
from selection.readings import Expression, Intervals, Named, Reading, Relation, Several, as_intervals

Same = Callable[[Reading, Reading], bool | None]


def same_intervals(one: Intervals, other: Reading, same: Same) -> bool | None:
    intervals = as_intervals(other)
    if intervals is None:
        if isinstance(other, Several) and len(one.parts) == 1 and len(other.items) == 2:  # [2, 3] as a list
            return None
        return None if isinstance(other, Relation | Expression) else False
    if one.variable and intervals.variable and one.variable != intervals.variable:
        return False
    if len(one.parts) != len(intervals.parts):
        return False
    return _matched(
        list(one.parts),
        list(intervals.parts),
        lambda p, q: _same_interval(p, q, same),  # type: ignore[arg-type]
    )


def _same_interval(a: tuple[Reading | None, ...], b: tuple[Reading | None, ...], same: Same) -> bool | None:
    if a[2:] != b[2:]:
        return False
    found: list[bool | None] = []
    for x, y in zip(a[:2], b[:2], strict=True):
        found.append(x is y if x is None or y is None else same(x, y))
    return False if False in found else None if None in found else True


def same_several(one: Several, other: Reading, same: Same) -> bool | None:
    if not isinstance(other, Several):
        if one.kind == "to":
            return None
        if one.kind == "set" and all(same(item, other) is True for item in one.items):
            return True  # one value, said in several ways
        if one.kind == "ratio" and isinstance(other, Quantity) and len(one.items) == 2:
            first, second = (item.value for item in one.items if isinstance(item, Quantity))
            if not second or not other.value.denominator > 1 or other.digits:
                return None
            return Fraction(first, second) == other.value
        return None if one.is_braced and len(one.items) == 1 and same(one.items[0], other) else False
    kinds = {one.kind, other.kind}
    if "to" in kinds:
        return _same_ratio(one, other) if "ratio" in kinds or one == other else None
    if "ratio" in kinds:
        return _same_ratio(one, other) if kinds == {"ratio"} else False
    if len(one.items) != len(other.items):
        return _same_as_sets(one, other, same) if kinds == {"set"} else False
    if kinds == {"set"}:
        return _matched(list(one.items), list(other.items), same)
    in_order = [same(a, b) for a, b in zip(_in_order(one), _in_order(other), strict=True)]
    if kinds == {"tuple"}:
        return False if False in in_order else None if None in in_order else True
    named = all(isinstance(item, Named) for s in (one, other) if s.kind == "set" for item in s.items)
    if all(in_order):
        return True if named else None
    if named:
        return False if False in in_order else None
    matched = _matched(list(one.items), list(other.items), same)
    return False if matched is False else None


def _in_order(several: Several) -> list[Reading]:
    """The items in order. Assignments are sorted by the names of their variables."""
    if all(isinstance(item, Named) for item in several.items):
        named = [item for item in several.items if isinstance(item, Named)]
        return [item.value for item in sorted(named, key=lambda item: item.name)]
    return list(several.items)


def _same_as_sets(one: Several, other: Several, same: Same) -> bool | None:
    """Compare sets of different length. They are equal if one repeats a value."""
    distinct = [list(dict.fromkeys(s.items)) for s in (one, other)]
    if len(distinct[0]) != len(distinct[1]):
        return False
    return _matched(distinct[0], distinct[1], same)


def _same_ratio(one: Several, other: Several) -> bool:
    if len(one.items) != len(other.items):
        return False
    a, b = ([item.value for item in s.items if isinstance(item, Quantity)] for s in (one, other))
    return all(x * b[0] == y * a[0] for x, y in zip(a, b, strict=True))


def _matched(left: list[Any], right: list[Any], is_same: Callable[[Any, Any], bool | None]) -> bool | None:
    """Whether each item has an equal one on the other side. None if it is in doubt."""
    in_doubt = False
    for item in left:
        found = [is_same(item, other) for other in right]
        if True in found:
            del right[found.index(True)]
        elif None in found:
            in_doubt = True
        else:
            return False
    return None if in_doubt else True
