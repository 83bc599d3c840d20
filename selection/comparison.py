"""Is a final answer the reference? One comparison per method: True, False, or None where the answer cannot be
read or where it is in doubt. A wrong answer is never called right: what is right by a doubtful reading alone
is None.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from selection import algebra
from selection.choices import chosen
from selection.notation import (
    HEDGED,
    Based,
    Expression,
    Infinite,
    Intervals,
    Named,
    Reading,
    Relation,
    Several,
    Time,
    Words,
    as_intervals,
    latex_of,
    read,
    without_lead,
)
from selection.numerals import DECIMAL_COMMA
from selection.quantities import Quantity, quantity
from selection.typography import plain
from selection.units import CURRENCIES, Unit

INTEGER = re.compile(r"-?[0-9]{1,300}")  # most answers: no reading is needed
DRESSED = re.compile(r"[^\w .,-]|_", re.ASCII)
GLUED_UNIT = re.compile(r"-?\d+\s*[mgshlLJNWVAKCF]")
SPACED_SIGN = re.compile(r"\s*([-+*/=^_<>(){}\[\]|])\s*")
BRACED_TOKEN = re.compile(r"([\^_])\{(\w)\}(?!\w)")
BEHIND_DENOMINATOR = re.compile(
    r"(/\s*(?:\d+|[A-Za-z]|\([^()]*\)|\{[^{}]*\}))\s*"
    r"(?=[A-Za-z(]|\\(?!cdot|times|div|pm|right|end)[A-Za-z])"
)
FLOAT_DIGITS = 12  # of a decimal that a program printed
ROUNDED_DIGITS = 6


class UnreadableReference(ValueError):
    """A reference that its method cannot read: no answer can be compared with it."""


def _same_exact(got: str, reference: str, tolerance: float) -> bool | None:
    a, b = " ".join(got.split()), " ".join(reference.split())
    if not (DRESSED.search(a) or DRESSED.search(b)):  # most answers
        return a.rstrip(".") == b.rstrip(".")
    return a == b or plain(a).rstrip(".") == plain(b).rstrip(".") != ""


def _same_choice(got: str, reference: str, tolerance: float) -> bool | None:
    b = chosen(plain(reference))
    if b is None:
        raise UnreadableReference("no letter of a choice")
    a = chosen(plain(got))
    if a is None or (len(a) > 1 and len(b) == 1):
        return None
    return a == b


def _same_number(got: str, reference: str, tolerance: float) -> bool | None:
    """Numbers with their units, within a tolerance relative to the reference."""
    if INTEGER.fullmatch(got) and INTEGER.fullmatch(reference) and not tolerance:
        return int(got) == int(reference)
    b = read_number(reference)
    if b is None:
        raise UnreadableReference("not one number")
    a = read_number(got)
    return None if a is None else same_quantity(a, b, tolerance)


@lru_cache(maxsize=4096)
def read_number(text: str) -> Quantity | None:
    """The one number of a final answer, None where there is none or where more is said than that.

    >>> read_number("$1,234.50").value, read_number("3 or 4"), read_number("H2O")
    (Fraction(2469, 2), None, None)
    """
    bare = without_lead(plain(text))
    if re.fullmatch(rf"-?(?:{DECIMAL_COMMA})(?:\s*\D*)", bare):
        found = quantity(re.sub(r"(?<=\d),(?=\d)", ".", bare))
        if found is not None and not quantity(bare):
            return Quantity(found.value, found.unit, found.is_percent)
    reading = read(text)
    while isinstance(reading, Named):
        reading = reading.value
    if isinstance(reading, Quantity):
        return reading
    if GLUED_UNIT.fullmatch(bare):
        return quantity(f"{bare[:-1]} {bare[-1]}")
    if (
        isinstance(reading, Several)
        and len(set(reading.items)) == 1
        and isinstance(reading.items[0], Quantity)
    ):
        return reading.items[0] if r"\pm" in bare else None
    return None


def _same_math(got: str, reference: str, tolerance: float) -> bool | None:
    """Quantities exactly, and what is more than a quantity by its form or by computer algebra."""
    if got == reference:
        return True
    if INTEGER.fullmatch(got) and INTEGER.fullmatch(reference) and not tolerance:
        return int(got) == int(reference)
    a, b = read(got), read(reference)
    if _spelling(got) == _spelling(reference):
        return True
    if b is None:
        raise UnreadableReference("no number, expression or word")
    if a is None:
        return None
    found = same(a, b, tolerance)
    if found is not True and isinstance(b, Quantity | Named) and (comma := _decimal_comma(got)) is not None:
        value = b.value if isinstance(b, Named) else b
        if not isinstance(a, Quantity):
            return True if same(comma, value, tolerance) else None
    if found is False and isinstance(a, Quantity) and (comma := _decimal_comma(reference)) is not None:
        return None if same(a, comma, tolerance) else False
    return found


def _decimal_comma(text: str) -> Quantity | None:
    """Text as a number with a decimal comma, where it could be one."""
    bare = without_lead(plain(text))
    found = re.match(rf"[^\d]*(?:{DECIMAL_COMMA})", bare)
    if found is None or bare.count(",") != 1 or re.search(r",000(?!\d)", bare):
        return None
    return quantity(bare.replace(",", "."))


def _spelling(text: str) -> str:
    """Text without typography and without spaces that say nothing. Braces stay, since they group, and so does
    the case of letters.
    """
    bare = SPACED_SIGN.sub(r"\1", without_lead(plain(text)))
    return BRACED_TOKEN.sub(r"\1\2", bare)


def same(a: Reading, b: Reading, tolerance: float = 0.0) -> bool | None:
    """Whether an answer (`a`) says what a reference (`b`) says."""
    if isinstance(a, Named) or isinstance(b, Named):
        return _same_named(a, b, tolerance)
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        return same_quantity(a, b, tolerance)
    if isinstance(a, Based) or isinstance(b, Based):
        return _same_based(a, b)
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Several) and one.kind == "approx":  # a value and its rounding: either is meant
            found = [same(item, other, tolerance) for item in one.items]
            return True if True in found else None if None in found else False
    if isinstance(a, Words) or isinstance(b, Words):
        return _same_words(a, b)
    if isinstance(a, Intervals) or isinstance(b, Intervals):
        one, other = (a, b) if isinstance(a, Intervals) else (b, a)
        return _same_intervals(one, other, tolerance)  # type: ignore[arg-type]
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Several):
            return _same_several(one, other, tolerance)
        if isinstance(one, Time):
            return _same_time(one, other)
        if isinstance(one, Infinite):
            return one == other if isinstance(other, Infinite | Quantity) else None
        if isinstance(one, Relation):
            return _same_relation(one, other)
    return _same_expression(a, b)


def _same_based(a: Reading, b: Reading) -> bool | None:
    """Numbers in a base; beside a number without one it is in doubt which base that has."""
    if isinstance(a, Based) and isinstance(b, Based):
        return a.base == b.base or None if a.value == b.value else False
    one, other = (a, b) if isinstance(a, Based) else (b, a)
    if isinstance(one, Based) and isinstance(other, Quantity):
        is_meant = other.value == one.value or str(other.value) == one.digits
        return None if is_meant else False
    return None


def same_quantity(a: Quantity, b: Quantity, tolerance: float = 0.0) -> bool | None:
    """Numbers and their units.

    A unit, a currency or a percent sign that one of both leaves out is not missed. Units of one dimension are
    converted, other dimensions differ, and nouns that differ leave it in doubt.
    """
    if a.is_percent != b.is_percent:
        if a.unit or b.unit:  # 20 cm is no share
            return None
        is_equal = _close(a, b, tolerance) or _close(_share(a), _share(b), tolerance)
        return True if is_equal else _or_doubt(_share(a), _share(b), tolerance)
    if a.unit is None or b.unit is None:
        found = _or_doubt(a, b, tolerance)
        is_converted = any(_close(_converted(a), one, tolerance) for one in (b, _converted(b)))
        return None if found is False and is_converted else found
    return _same_with_units(a, b, a.unit, b.unit, tolerance)


def _same_with_units(a: Quantity, b: Quantity, own: Unit, other: Unit, tolerance: float) -> bool | None:
    if own.dimensions == other.dimensions:
        return _or_doubt(_converted(a), _converted(b), tolerance)
    found = _or_doubt(a, b, tolerance)
    if found is not True:
        names = {name for name, _ in own.dimensions | other.dimensions}
        is_temperature = names <= {"Celsius", "Fahrenheit", "Kelvin", "angle"}
        is_money = "USD" in names and len(names & CURRENCIES) > 1
        return (
            None
            if is_temperature or (is_money and _close(_converted(a), _converted(b), tolerance))
            else found
        )
    if own.dimensions < other.dimensions or other.dimensions < own.dimensions:
        rest = {name for name, _ in own.dimensions ^ other.dimensions}
        shared = {name for name, _ in own.dimensions & other.dimensions}
        return True if all(n.startswith("#") for n in rest) or shared & CURRENCIES else None
    names_own, names_other = ({name for name, _ in unit.dimensions} for unit in (own, other))
    if "angle" in names_own | names_other and (names_own | names_other) & {"Celsius", "Fahrenheit"}:
        return True  # degrees of a temperature
    if own.counts_nouns or other.counts_nouns:
        return True if {n for n in names_own if n[0] == "#"} & names_other else None
    return False


def _share(a: Quantity) -> Quantity:
    return Quantity(a.value / 100, a.unit, False, digits=a.digits) if a.is_percent else a


def _converted(a: Quantity) -> Quantity:
    if a.unit is None:
        return a
    return Quantity(
        a.value * a.unit.factor, None, a.is_percent, tuple(d * a.unit.factor for d in a.doubtful), a.digits
    )


def _or_doubt(a: Quantity, b: Quantity, tolerance: float) -> bool | None:
    """Whether numbers are equal; None where they are by a reading in doubt, or by rounding."""
    if _close(a, b, tolerance):
        return True
    if b.value in a.doubtful or a.value in b.doubtful:
        return None
    return None if _rounded(a, b) or _rounded(b, a) else False


def _close(a: Quantity, b: Quantity, tolerance: float) -> bool:
    if a.value == b.value:
        return True
    if tolerance:
        return abs(a.value - b.value) <= Fraction(Decimal(str(tolerance))) * max(Fraction(1), abs(b.value))
    return any(one.digits >= FLOAT_DIGITS and _rounded(one, other) for one, other in ((a, b), (b, a)))


def _rounded(decimal: Quantity, exact: Quantity) -> bool:
    """Whether a decimal of many digits is a fraction that no decimal is, rounded or cut."""
    if decimal.digits < ROUNDED_DIGITS or exact.digits or exact.value.denominator == 1:
        return False
    return abs(decimal.value - exact.value) <= abs(exact.value) * Fraction(
        1, 10 ** (min(decimal.digits, 16) - 1)
    )


def _same_named(a: Reading, b: Reading, tolerance: float) -> bool | None:
    if isinstance(a, Named) and isinstance(b, Named):
        if a.name == b.name or _is_loose(a.name) or _is_loose(b.name):
            found = same(a.value, b.value, tolerance)
        else:
            found = None if _either_is_formula(a, b) else False
        if found is True or not (a.sides and b.sides) or _is_loose(a.name) or _is_loose(b.name):
            return found
        return _same_sides(a.sides, b.sides, found)
    named, other = (a, b) if isinstance(a, Named) else (b, a)
    assert isinstance(named, Named)
    if isinstance(other, Relation):
        return _same_sides(named.sides, other.sides, None) if named.sides and other.sign == "=" else None
    if isinstance(other, Intervals):
        return same(named.value, other, tolerance) if named is a else same(other, named.value, tolerance)
    return same(named.value, b, tolerance) if named is a else same(a, named.value, tolerance)


def _is_loose(name: str) -> bool:
    """Whether a name is one that others stand for as well: a word, or a function's."""
    return (len(name) > 2 and name.isalpha()) or "(" in name


def _either_is_formula(a: Named, b: Named) -> bool:
    return isinstance(a.value, Expression) or isinstance(b.value, Expression)


def _same_sides(a: tuple[str, str], b: tuple[str, str], otherwise: bool | None) -> bool | None:
    found = algebra.proportional(a, b)
    return otherwise if found is None else found[0]


def _same_words(a: Reading, b: Reading) -> bool | None:
    if isinstance(a, Words) and isinstance(b, Words):
        if a.text == b.text:
            return True
        listed = [sorted(re.split(r"\s*,\s*(?:and )?|\s+and\s+", words.text)) for words in (a, b)]
        if len(listed[0]) > 1 and listed[0] == listed[1]:
            return True
        one, other = set(a.text.split()), set(b.text.split())
        if one <= other or other <= one or len(one | other) > 6 or HEDGED.search(a.text):
            return None
        return False
    if isinstance(a, Words):
        if isinstance(b, Expression) and len(a.text) == 1:  # the letter of a choice
            return a.text == b.latex.casefold()
        return None  # words where a value is asked for
    if isinstance(b, Words) and len(b.text) == 1:
        return a.latex.casefold() == b.text if isinstance(a, Expression) else None
    return False


def _same_intervals(one: Intervals, other: Reading, tolerance: float) -> bool | None:
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
        lambda p, q: _same_interval(p, q, tolerance),  # type: ignore[arg-type]
    )


def _same_interval(
    a: tuple[Reading | None, ...], b: tuple[Reading | None, ...], tolerance: float
) -> bool | None:
    if a[2:] != b[2:]:
        return False
    found: list[bool | None] = []
    for x, y in zip(a[:2], b[:2], strict=True):
        found.append(x is y if x is None or y is None else same(x, y, tolerance))
    return False if False in found else None if None in found else True


def _same_several(one: Several, other: Reading, tolerance: float) -> bool | None:
    if not isinstance(other, Several):
        if one.kind == "to":
            return None
        if one.kind == "set" and all(same(item, other, tolerance) is True for item in one.items):
            return True  # one value, said in several ways
        if one.kind == "ratio" and isinstance(other, Quantity) and len(one.items) == 2:
            first, second = (item.value for item in one.items if isinstance(item, Quantity))
            if not second or not other.value.denominator > 1 or other.digits:
                return None
            return Fraction(first, second) == other.value
        return (
            None if one.is_braced and len(one.items) == 1 and same(one.items[0], other, tolerance) else False
        )
    kinds = {one.kind, other.kind}
    if "to" in kinds:
        return _same_ratio(one, other) if "ratio" in kinds or one == other else None
    if "ratio" in kinds:
        return _same_ratio(one, other) if kinds == {"ratio"} else False
    if len(one.items) != len(other.items):
        return _same_as_sets(one, other, tolerance) if kinds == {"set"} else False
    if kinds == {"set"}:
        return _matched(list(one.items), list(other.items), lambda a, b: same(a, b, tolerance))
    in_order = [same(a, b, tolerance) for a, b in zip(_in_order(one), _in_order(other), strict=True)]
    if kinds == {"tuple"}:
        return False if False in in_order else None if None in in_order else True
    named = all(isinstance(item, Named) for s in (one, other) if s.kind == "set" for item in s.items)
    if all(in_order):
        return True if named else None
    if named:
        return False if False in in_order else None
    matched = _matched(list(one.items), list(other.items), lambda a, b: same(a, b, tolerance))
    return False if matched is False else None


def _in_order(several: Several) -> list[Reading]:
    """The items; assignments by the names of their variables."""
    if all(isinstance(item, Named) for item in several.items):
        named = [item for item in several.items if isinstance(item, Named)]
        return [item.value for item in sorted(named, key=lambda item: item.name)]
    return list(several.items)


def _same_as_sets(one: Several, other: Several, tolerance: float) -> bool | None:
    """Of sets of different length: equal where one repeats a value."""
    distinct = [list(dict.fromkeys(s.items)) for s in (one, other)]
    if len(distinct[0]) != len(distinct[1]):
        return False
    return _matched(distinct[0], distinct[1], lambda a, b: same(a, b, tolerance))


def _same_ratio(one: Several, other: Several) -> bool:
    if len(one.items) != len(other.items):
        return False
    a, b = ([item.value for item in s.items if isinstance(item, Quantity)] for s in (one, other))
    return all(x * b[0] == y * a[0] for x, y in zip(a, b, strict=True))


def _matched(left: list[Any], right: list[Any], is_same: Callable[[Any, Any], bool | None]) -> bool | None:
    """Whether each has its equal among the others; None where one may have."""
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


def _same_time(one: Time, other: Reading) -> bool | None:
    if isinstance(other, Time):
        if one.minutes == other.minutes:
            return True
        if one.half and other.half:
            return False
        is_half_left_out = bool(one.half) != bool(other.half) and (one.minutes - other.minutes) % 720 == 0
        if is_half_left_out:
            without = other if one.half else one
            return without.minutes < 720 + 60
        return None if one.ratio and one.ratio == other.ratio else False
    if isinstance(other, Several) and other.kind == "ratio" and one.ratio is not None:
        a, b = (item.value for item in other.items[:2] if isinstance(item, Quantity))
        return len(other.items) == 2 and a == b * one.ratio
    return None


def _same_relation(one: Relation, other: Reading) -> bool | None:
    if not isinstance(other, Relation):
        return None if isinstance(other, Intervals | Expression) else False
    if "=" in (one.sign, other.sign) and one.sign != other.sign:
        return False
    found = algebra.proportional(one.sides, other.sides)
    if found is None or not found[0]:
        return None if found is None else False
    if one.sign in ("=", "!="):
        return one.sign == other.sign
    turned = other.sign.translate(str.maketrans("<>", "><")) if found[1] < 0 else other.sign
    return one.sign == turned


def _same_expression(a: Reading, b: Reading) -> bool | None:
    left, right = latex_of(a), latex_of(b)
    if left is None or right is None:
        return None
    if (glued := _glued_unit(a, b)) is not None:
        return same_quantity(glued, b, 0.0) if isinstance(b, Quantity) else None
    if isinstance(a, Quantity) and _glued_unit(b, a) is not None:
        return None
    units = [one.unit for one in (a, b) if isinstance(one, Quantity | Expression)]
    if None not in units and units[0] is not None and units[1] is not None:
        if units[0].dimensions != units[1].dimensions:
            return None if units[0].counts_nouns or units[1].counts_nouns else False
        left, right = (
            text
            if unit is None or unit.factor == 1
            else rf"({text})\cdot\frac{{{unit.factor.numerator}}}{{{unit.factor.denominator}}}"
            for text, unit in zip((left, right), units, strict=True)
        )
    is_decimal = any(isinstance(one, Quantity) and one.digits for one in (a, b))
    found = _in_every_reading(left, right, is_decimal)
    return None if found is False and left.casefold() == right.casefold() else found


def _glued_unit(a: Reading, b: Reading) -> Quantity | None:
    """`3m` beside a number as three metres: with a letter of computer algebra it would be a product."""
    if not isinstance(a, Expression) or a.unit or not isinstance(b, Quantity):
        return None
    return (
        quantity(re.sub(r"(?<=\d)\s*(?=[A-Za-z])", " ", a.latex)) if GLUED_UNIT.fullmatch(a.latex) else None
    )


def _in_every_reading(left: str, right: str, is_decimal: bool) -> bool | None:
    """Whether expressions are equal; None where they are by one reading and not by another."""
    pairs = [(one, other) for one in readings(left) for other in readings(right)]
    found = {algebra.equal(one, other, is_decimal) for one, other in pairs}
    return found.pop() if len(found) == 1 else None


def readings(latex: str) -> tuple[str, ...]:
    r"""What a fraction on one line could mean: what follows its denominator is below the line or behind it.

    >>> readings(r"1/2x"), readings(r"1/2+x")
    (('1/2x', '1/2\\cdot x'), ('1/2+x',))
    """
    other = BEHIND_DENOMINATOR.sub(r"\1\\cdot ", latex)
    return (latex,) if other == latex else (latex, other)


Comparison = Callable[[str, str, float], bool | None]
COMPARISONS: dict[str, Comparison] = {
    "math": _same_math,
    "exact": _same_exact,
    "numeric": _same_number,
    "choice": _same_choice,
}
