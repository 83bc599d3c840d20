"""Compares a final answer with the reference. Each method has one comparison, which gives True, False, or
None if the answer cannot be read or is in doubt. A wrong answer is never called right: an answer that is
right only by a doubtful reading gives None.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial

from selection.amounts import same_quantity
from selection.choices import chosen, numbered, several_letters
from selection.dates import day_of, same_day
from selection.formulas import GLUED_UNIT, same_expression, same_named, same_relation
from selection.multiples import same_intervals, same_several
from selection.notation import HEDGED, LONGEST, MODULO, read, vector, without_lead
from selection.numerals import DECIMAL_COMMA
from selection.quantities import Quantity, quantity
from selection.readings import (
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
)
from selection.typography import plain

INTEGER = re.compile(r"-?[0-9]{1,300}")  # true for most answers, which need no reading
NONE = frozenset(
    {"none", "no solution", "no solutions", "no real solution", "zero", "nothing", "nobody", "no one"}
)
GROUPED_OR_PAIR = re.compile(r"(\(?)\s*(-?\d{1,3}(?:,\d{3})+)\s*\)?")
DRESSED = re.compile(r"[^\w .,-]|_", re.ASCII)
SPACED_SIGN = re.compile(r"\s*([-+*/=^_<>(){}\[\]|])\s*")
BRACED_TOKEN = re.compile(r"([\^_])\{(\w)\}(?!\w)")


# units and currencies that no table has: 30 mpg and RM 12 are no products of letters
UNKNOWN_UNIT = re.compile(
    r"-?[\d.,]*\d(?:\s*(?:\\times|x)\s*10\s*\^\s*\{?-?\d+\}?)?\s+[A-Za-z]{2,5}|(?:[A-Z][A-Za-z]|[A-Z]{1,3}"
    r"|[A-Z]/)\s?\d[\d.,]*"
)
FOREVER = re.compile(
    r"[,;]?\s*(?:(?:where|for|with)\s+)?\(?\s*[kmn]\s*(?:\\in\s*(?:\\mathbb\s*\{?\s*[ZN]\s*\}?|[ZN])"
    r"|is an(?:y)? integer|any integer)\s*\)?\s*$"
)
COUNTING = re.compile(r"(?<![A-Za-z\\])[kmn](?![A-Za-z_(])")
CHANGE_WORDS = re.compile(
    r"\b(?:decreas|declin|drop|loss|lost|fell|fall|reduc|down|negative|deficit)\w*", re.IGNORECASE
)
INCHES = re.compile(r"(?<=\d)( )?in\.?(?=\s*\Z)")
SUM = re.compile(
    r"(-?\d+(?:\.\d+)?)(?:\s*([-+*/×·]|\\times|\\cdot)\s*(\d+(?:\.\d+)?))?\s*=\s*\$?(-?\d+(?:\.\d+)?)"
)
TWICE = re.compile(r"(.+?)\s+\(([^()]+)\)|(.+?),?\s+(?:i\.e\.,?|that is,?)\s+(?P<again>.+)")


class UnreadableReference(ValueError):
    """A reference cannot be read by its method, so no answer can be compared with it."""


def _why_unread(reference: str, otherwise: str) -> str:
    length = len(reference)
    return (
        f"too long to be read ({length:,} characters, {LONGEST:,} at most)" if length > LONGEST else otherwise
    )


def _same_exact(got: str, reference: str, tolerance: float) -> bool | None:
    a, b = " ".join(got.split()), " ".join(reference.split())
    if not (DRESSED.search(a) or DRESSED.search(b)):  # most answers
        return a.rstrip(".") == b.rstrip(".")
    return a == b or plain(a).rstrip(".") == plain(b).rstrip(".") != ""


def _same_choice(got: str, reference: str, tolerance: float) -> bool | None:
    b = chosen(plain(reference)) or several_letters(plain(reference))
    if b is None and (b := numbered(plain(reference))) is not None:
        own = numbered(plain(got))
        return None if own is None else own == b
    if b is None:
        raise UnreadableReference("no letter of a choice")
    a = chosen(plain(got)) or (several_letters(plain(got)) if len(b) > 1 else None)
    if a is None or (len(a) > 1 and len(b) == 1):
        return None
    return a == b


def _same_number(got: str, reference: str, tolerance: float) -> bool | None:
    """Compare numbers with their units, within a tolerance relative to the reference."""
    if INTEGER.fullmatch(got) and INTEGER.fullmatch(reference) and not tolerance:
        return int(got) == int(reference)
    got, reference = INCHES.sub(" inches", got), INCHES.sub(" inches", reference)
    if is_false_equation(got):
        return None
    b = read_number(reference)
    if b is None:
        raise UnreadableReference(_why_unread(reference, "not one number"))
    a = read_number(got)
    return None if a is None else same_quantity(a, b, tolerance)


@lru_cache(maxsize=4096)
def read_number(text: str) -> Quantity | None:
    """The number of a final answer. None if there is none, or if the answer says more than one number.

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
    """Compare quantities exactly, and anything else by its form or by computer algebra."""
    if got == reference:
        return True
    if INTEGER.fullmatch(got) and INTEGER.fullmatch(reference) and not tolerance:
        return int(got) == int(reference)
    got, reference = (FOREVER.sub("", INCHES.sub(" inches", text)) for text in (got, reference))
    if is_false_equation(got):
        return None
    one_day, other_day = day_of(got), day_of(reference)
    if one_day is not None and other_day is not None:
        return same_day(one_day, other_day)
    found = _same_form(got, reference, tolerance)
    if found is False and (twice := TWICE.fullmatch(got.strip("$ "))) is not None:
        parts = (twice[1], twice[2]) if twice[1] else (twice[3], twice["again"])
        one, other = (_same_form(part.strip("$ "), reference, tolerance) for part in parts)
        return True if one and other else None if one or other else False
    return found


def is_false_equation(text: str) -> bool:
    """Whether a text says that two numbers are equal that are not: 8 = 7, or 3 x 2 = 7.

    >>> is_false_equation("3 * 2 = 7"), is_false_equation("3 * 2 = 6"), is_false_equation("x = 7")
    (True, False, False)
    """
    found = SUM.fullmatch(text.strip().strip("$ "))
    if found is None:
        return False
    a, c = float(found[1]), float(found[4])
    if found[2]:
        b = float(found[3])
        if found[2] == "/" and not b:
            return True
        a = {"+": a + b, "-": a - b, "/": a / b if b else 0.0}.get(found[2], a * b)
    return abs(a - c) > 0.01 * max(abs(a), abs(c))


def _same_form(got: str, reference: str, tolerance: float) -> bool | None:
    told = [MODULO.fullmatch(without_lead(plain(text))) for text in (got, reference)]
    if told[0] and told[1]:
        (x, m), (y, n) = ((int(one[1]), int(one[2] or one[3])) for one in told if one)
        return (x - y) % n == 0 if m == n else None
    if told[0] or told[1]:
        got, reference = (one[1] if one else text for one, text in zip(told, (got, reference), strict=True))
        return True if _same_form(got, reference, tolerance) else None
    a, b = read(got), read(reference)
    if _spelling(got) == _spelling(reference):
        return True
    if b is None:
        raise UnreadableReference(_why_unread(reference, "no number, expression or word"))
    if a is None:
        return None
    found = same(a, b, tolerance)
    if found is not True and isinstance(b, Quantity | Named) and (comma := _decimal_comma(got)) is not None:
        value = b.value if isinstance(b, Named) else b
        if not isinstance(a, Quantity):
            return True if same(comma, value, tolerance) else None
    for text, one in ((got, b), (reference, a)):
        if found is not True and isinstance(one, Several) and (as_tuple := vector(text)) is not None:
            return same(as_tuple, one, tolerance)
    if found is False and _other_grouping_fits(got, reference, a, b):
        return None
    if found is False and isinstance(a, Quantity) and (comma := _decimal_comma(reference)) is not None:
        return None if same(a, comma, tolerance) else False
    return None if found is False and _is_doubtful(got, reference, a, b) else found


def _is_doubtful(got: str, reference: str, a: Reading, b: Reading) -> bool:
    """Whether two answers that read differently may still mean the same: one has a unit that is not known, a
    form that is not compared, another name for any whole number, or a word in place of a sign.
    """
    own, other = without_lead(plain(got)), without_lead(plain(reference))
    for text, own_reading, reading in ((own, a, b), (other, b, a)):
        is_number = isinstance(reading, Quantity) and not isinstance(own_reading, Quantity)
        if is_number and UNKNOWN_UNIT.fullmatch(text):
            return True
    if ("\\begin{" in own) != ("\\begin{" in other) or ("\\begin{" in own and own.startswith("\\frac")):
        return True
    if re.search(r"\\mathbf\s*\{?\s*[ijk]|\\hat\s*\{?\s*\\?[ijk]", got + reference) and isinstance(
        a, Several
    ) != isinstance(b, Several):
        return True
    if "mod" in own + other or any(
        isinstance(one, Several) and any(isinstance(item, Relation) for item in one.items) for one in (a, b)
    ):
        return True
    if "|" in own + other and (isinstance(a, Intervals | Several) or isinstance(b, Intervals | Several)):
        return True
    if isinstance(a, Quantity) and isinstance(b, Quantity) and a.value == -b.value:
        return bool(CHANGE_WORDS.search(own if a.value > 0 else other))
    counts = [set(COUNTING.findall(text)) for text in (own, other)]
    if len(counts[0]) == len(counts[1]) == 1 and counts[0] != counts[1] and r"\pi" in own:
        return True
    if (
        isinstance(a, Words)
        and isinstance(b, Words)
        and {a.text, b.text} in ({"yes", "true"}, {"no", "false"})
    ):
        return True
    return isinstance(a, Several) and bool(re.search(r"[a-z]{3,}(?:\s+[a-z]+){2,}", own))


def _other_grouping_fits(got: str, reference: str, a: Reading, b: Reading) -> bool:
    """Whether an answer is right if a comma before three digits means the other thing: 100,200 is a number or
    a pair.
    """
    for text, other in ((got, b), (reference, a)):
        grouped = GROUPED_OR_PAIR.fullmatch(without_lead(plain(text)))
        if grouped is None:
            continue
        parts = [Fraction(part) for part in grouped[2].split(",")]
        one: Reading = Quantity(Fraction(grouped[2].replace(",", "")))
        if not grouped[1]:
            one = Several("set", tuple(Quantity(part) for part in parts))
        if same(one, other) or parts == _values(other):
            return True
    return False


def _values(other: Reading) -> list[Fraction]:
    """The numbers among several values, in order."""
    items = other.items if isinstance(other, Several) else ()
    return [item.value for item in items if isinstance(item, Quantity)]


def _decimal_comma(text: str) -> Quantity | None:
    """The text as a number with a decimal comma, if it could be one."""
    bare = without_lead(plain(text))
    found = re.match(rf"[^\d]*(?:{DECIMAL_COMMA})", bare)
    if found is None or bare.count(",") != 1 or re.search(r",000(?!\d)", bare):
        return None
    return quantity(bare.replace(",", "."))


def _spelling(text: str) -> str:
    """The text without typography and without meaningless spaces. Braces stay, because they group, and so
    does the case of letters.
    """
    bare = SPACED_SIGN.sub(r"\1", without_lead(plain(text)))
    return BRACED_TOKEN.sub(r"\1\2", bare)


def same(a: Reading, b: Reading, tolerance: float = 0.0) -> bool | None:
    """Whether an answer (`a`) means the same as a reference (`b`). None if it is in doubt."""
    within = partial(same, tolerance=tolerance)
    if isinstance(a, Named) or isinstance(b, Named):
        return same_named(a, b, within)
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        return same_quantity(a, b, tolerance)
    if isinstance(a, Based) or isinstance(b, Based):
        return _same_based(a, b)
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Several) and one.kind == "approx":  # a value and its rounding: either may be meant
            found = [same(item, other, tolerance) for item in one.items]
            return True if True in found else None if None in found else False
    if isinstance(a, Words) or isinstance(b, Words):
        return _same_words(a, b)
    if isinstance(a, Intervals) or isinstance(b, Intervals):
        one, other = (a, b) if isinstance(a, Intervals) else (b, a)
        return same_intervals(one, other, within)  # type: ignore[arg-type]
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Several):
            return same_several(one, other, within)
        if isinstance(one, Time):
            return _same_time(one, other)
        if isinstance(one, Infinite):
            return one == other if isinstance(other, Infinite | Quantity) else None
        if isinstance(one, Relation):
            return same_relation(one, other)
    return same_expression(a, b)


def _same_based(a: Reading, b: Reading) -> bool | None:
    """Compare numbers in a base. If one of them names no base, it is in doubt."""
    if isinstance(a, Based) and isinstance(b, Based):
        return a.base == b.base or None if a.value == b.value else False
    one, other = (a, b) if isinstance(a, Based) else (b, a)
    if isinstance(one, Based) and isinstance(other, Quantity):
        is_meant = other.value == one.value or str(other.value) == one.digits
        return None if is_meant else False
    return None


def _same_words(a: Reading, b: Reading) -> bool | None:
    if isinstance(a, Words) and isinstance(b, Words):
        if a.text == b.text:
            return True
        listed = [sorted(re.split(r"\s*,\s*(?:and )?|\s+and\s+", words.text)) for words in (a, b)]
        if len(listed[0]) > 1 and listed[0] == listed[1]:
            return True
        if a.text in NONE and b.text in NONE:
            return None
        one, other = set(a.text.split()), set(b.text.split())
        if one <= other or other <= one or len(one | other) > 6 or HEDGED.search(a.text):
            return None
        return False
    if isinstance(a, Words):
        if isinstance(b, Expression) and len(a.text) == 1:  # the letter of a choice
            return a.text == b.latex.casefold()
        return None  # words, but the reference is a value
    if isinstance(b, Words) and len(b.text) == 1:
        return a.latex.casefold() == b.text if isinstance(a, Expression) else None
    is_zero = isinstance(a, Quantity) and a.value == 0 and isinstance(b, Words) and b.text in NONE
    return None if is_zero or isinstance(a, Infinite) else False


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


Comparison = Callable[[str, str, float], bool | None]
COMPARISONS: dict[str, Comparison] = {
    "math": _same_math,
    "exact": _same_exact,
    "numeric": _same_number,
    "choice": _same_choice,
}
