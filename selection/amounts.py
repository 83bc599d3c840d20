"""Tells whether two quantities are equal, by their numbers, units, currencies and percent signs."""

from decimal import Decimal
from fractions import Fraction

from selection.quantities import Quantity
from selection.units import CURRENCIES, KNOWN, LETTERS, Unit

FLOAT_DIGITS = 12  # significant digits of a decimal that a program printed
ROUNDED_DIGITS = 6
# dimensions that others are made of, and the others
DERIVED = {"volume", "area", "energy", "force", "power", "voltage", "resistance", "frequency", "pressure"}
DERIVED |= {"charge", "field", "electronvolt", "calorie", "US volume"}
PHYSICAL = DERIVED | {"length", "mass", "time", "current", "amount", "angle", "radian"}


def same_quantity(a: Quantity, b: Quantity, tolerance: float = 0.0) -> bool | None:
    """Whether two quantities are equal. None if it is in doubt.

    If only one of them has a unit, a currency or a percent sign, it is ignored. Units of one dimension are
    converted. Different dimensions are unequal. Different nouns are in doubt.
    """
    if a.is_percent != b.is_percent:
        if a.unit or b.unit:  # 20 cm is no share
            return None
        if _share_of_itself(a, b) and _close(a, b, tolerance):
            return None  # 0.6 % for 3/5
        is_equal = _close(a, b, tolerance) or _close(_share(a), _share(b), tolerance)
        return True if is_equal else _or_doubt(_share(a), _share(b), tolerance)
    if a.unit is None or b.unit is None:
        found = _or_doubt(a, b, tolerance)
        is_converted = any(_close(_converted(a), one, tolerance) for one in (b, _converted(b)))
        return None if found is False and (is_converted or _in_another_unit(a, b, tolerance)) else found
    return _same_with_units(a, b, a.unit, b.unit, tolerance)


def _share_of_itself(a: Quantity, b: Quantity) -> bool:
    """Whether the number without the percent sign is a share: then a percent sign beside the same digits is
    hardly one that the other side left out.
    """
    bare = b if a.is_percent else a
    return 0 < abs(bare.value) < 1


def _in_another_unit(a: Quantity, b: Quantity, tolerance: float) -> bool:
    """Whether two numbers of which one has a unit are equal if the other one is in another unit of the same
    dimension: 2 hours and 120.
    """
    with_unit, bare = (a, b) if a.unit is not None else (b, a)
    if with_unit.unit is None or len(with_unit.unit.dimensions) != 1:
        return False
    ((name, power),) = with_unit.unit.dimensions
    own = _converted(with_unit)
    names = {"time": ("time", "calendar"), "calendar": ("calendar", "time")}.get(name, (name,))
    sizes = {factor**power for factor, dimension in KNOWN.values() if dimension in names}
    return any(_close(Quantity(own.value / size), Quantity(bare.value), tolerance) for size in sizes)


def _same_with_units(a: Quantity, b: Quantity, own: Unit, other: Unit, tolerance: float) -> bool | None:
    own, other = _as_meant(own, other), _as_meant(other, own)
    if own.dimensions == other.dimensions:
        return _or_doubt(_converted(a), _converted(b), tolerance)
    found = _or_doubt(a, b, tolerance)
    derived = _may_be_derived(*({name for name, _ in unit.dimensions} for unit in (own, other)))
    if found is False and derived:
        return None
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
    return None if _may_be_derived(names_own, names_other) else False


def _as_meant(unit: Unit, other: Unit) -> Unit:
    """A unit whose letter stands for several, as the one of these that the other unit is."""
    for letter, meanings in LETTERS.items():
        found = {name for name, _ in other.dimensions} & meanings
        if (letter, 1) in unit.dimensions and found:
            return Unit(unit.factor, unit.dimensions - {(letter, 1)} | {(found.pop(), 1)})
    return unit


def _may_be_derived(own: set[str], other: set[str]) -> bool:
    """Whether units of different names may measure the same: 10 N and 10 kg m/s^2, 2 L and 2000 cm^3."""
    return (
        own != other and own <= PHYSICAL and other <= PHYSICAL and (_is_compound(own) or _is_compound(other))
    )


def _is_compound(names: set[str]) -> bool:
    return len(names) > 1 or bool(names & DERIVED)


def _share(a: Quantity) -> Quantity:
    return Quantity(a.value / 100, a.unit, False, digits=a.digits) if a.is_percent else a


def _converted(a: Quantity) -> Quantity:
    if a.unit is None:
        return a
    return Quantity(
        a.value * a.unit.factor, None, a.is_percent, tuple(d * a.unit.factor for d in a.doubtful), a.digits
    )


def _or_doubt(a: Quantity, b: Quantity, tolerance: float) -> bool | None:
    """Whether numbers are equal. None if they are equal only by a doubtful reading, or by rounding."""
    if _close(a, b, tolerance):
        return True
    if b.value in a.doubtful or a.value in b.doubtful:
        return None
    return None if _rounded(a, b) or _rounded(b, a) else False


def _close(a: Quantity, b: Quantity, tolerance: float) -> bool:
    if a.value == b.value:
        return True
    if tolerance:
        return abs(a.value - b.value) <= Fraction(Decimal(str(tolerance))) * abs(b.value)
    return any(one.digits >= FLOAT_DIGITS and _rounded(one, other) for one, other in ((a, b), (b, a)))


def _rounded(decimal: Quantity, exact: Quantity) -> bool:
    """Whether a decimal of many digits is the rounded or cut value of a fraction that no decimal equals."""
    if decimal.digits < ROUNDED_DIGITS or exact.digits or exact.value.denominator == 1:
        return False
    return abs(decimal.value - exact.value) <= abs(exact.value) * Fraction(
        1, 10 ** (min(decimal.digits, 16) - 1)
    )
