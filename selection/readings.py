"""The kinds of readings of a final answer, which are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from selection.quantities import Quantity
from selection.units import Unit


@dataclass(frozen=True, slots=True)
class Words:
    """Plain words without case, articles and a trailing point."""

    text: str


@dataclass(frozen=True, slots=True)
class Expression:
    """LaTeX for computer algebra, and a unit after it."""

    latex: str
    unit: Unit | None = None


@dataclass(frozen=True, slots=True)
class Several:
    """More than one value.

    Attributes:
        kind: `set` if the order has no meaning, `tuple` if it has, or `ratio`.
        is_braced: whether it is written in braces, so that it is surely a set.
    """

    kind: str
    items: tuple["Reading", ...]
    is_braced: bool = False


@dataclass(frozen=True, slots=True)
class Intervals:
    """A union of intervals. Each has a low and a high end, and whether they belong to it. None as an end is
    infinite.
    """

    parts: tuple[tuple["Reading | None", "Reading | None", bool, bool], ...]
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """`x = 5`: a name, its value, and the equation as LaTeX of its two sides."""

    name: str
    value: "Reading"
    sides: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation or inequality without a single name: its sign and its two sides as LaTeX."""

    sign: str
    sides: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Based:
    """A whole number in a given base: its value and the base."""

    value: int
    base: int
    digits: str


@dataclass(frozen=True, slots=True)
class Time:
    """A time of day or a duration: its minutes, and the half of the day if it is given."""

    minutes: Fraction
    half: str
    ratio: Fraction | None


@dataclass(frozen=True, slots=True)
class Infinite:
    """Plus or minus infinity."""

    sign: int


Reading = Quantity | Words | Expression | Several | Intervals | Named | Relation | Time | Infinite | Based
Reader = Callable[[str], "Reading | None"]


def as_intervals(reading: Reading | None) -> Intervals | None:
    """The intervals that a reading may mean. A pair in parentheses may be an open interval."""
    if isinstance(reading, Intervals):
        return reading
    if isinstance(reading, Several) and reading.kind == "tuple" and len(reading.items) == 2:
        low, high = reading.items
        return Intervals(((end_of(low), end_of(high), False, False),))
    return None


def end_of(reading: Reading) -> Reading | None:
    return None if isinstance(reading, Infinite) else reading


def latex_of(reading: Reading) -> str | None:
    """A value as LaTeX for computer algebra."""
    if isinstance(reading, Expression):
        return reading.latex
    if isinstance(reading, Quantity):
        value = reading.value / 100 if reading.is_percent else reading.value
        over, under = value.numerator, value.denominator
        return (
            str(over)
            if under == 1
            else rf"({over})/({under})"
            if over < 0
            else rf"\frac{{{over}}}{{{under}}}"
        )
    return None
