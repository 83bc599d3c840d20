"""Tells whether expressions, equations and inequalities are equal, by computer algebra."""

import re

from selection import algebra
from selection.amounts import same_quantity
from selection.multiples import Same
from selection.quantities import Quantity, quantity
from selection.readings import Expression, Intervals, Named, Reading, Relation, latex_of

COMMAND, LETTER = re.compile(r"\\[A-Za-z]+"), re.compile(r"[A-Za-z]")
CONSTANT = re.compile(r"\+\s*[cCkK](?:_\{?[0-9]\}?)?\s*$")  # of integration
ROMAN = re.compile(r"[IVXLCDM]{2,}")
GLUED_UNIT = re.compile(r"-?\d+\s*[mgshlLJNWVAKCF]")
BEHIND_DENOMINATOR = re.compile(
    r"(/\s*(?:\d+|[A-Za-z]|\([^()]*\)|\{[^{}]*\}))\s*"
    r"(?=[A-Za-z(]|\\(?!cdot|times|div|pm|right|end)[A-Za-z])"
)


def same_named(a: Reading, b: Reading, same: Same) -> bool | None:
    if isinstance(a, Named) and isinstance(b, Named):
        if "(" in a.name and "(" in b.name and a.name != b.name:
            return _same_functions(a, b, same)
        if a.name == b.name or _is_loose(a.name) or _is_loose(b.name):
            found = same(a.value, b.value)
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
        return same(named.value, other) if named is a else same(other, named.value)
    return same(named.value, b) if named is a else same(a, named.value)


def _same_functions(a: Named, b: Named, same: Same) -> bool | None:
    """Whether functions are the same whose names or arguments differ. f(x) and g(x) may be one function, and
    so may f(x) and f(t); f'(x) and f(x) are not, nor are f(2) and f(3).
    """
    (own, argument), (other, another) = ((n.partition("(")[0], n.partition("(")[2]) for n in (a.name, b.name))
    if own.count("'") != other.count("'"):
        return None
    if argument != another:
        names = [one.strip(") ") for one in (argument, another)]
        if not all(re.fullmatch("[a-z]", name) for name in names) or not isinstance(a.value, Expression):
            return None
        renamed = re.sub(rf"(?<![A-Za-z\\]){names[0]}(?![A-Za-z])", names[1], a.value.latex)
        return True if same(Expression(renamed, a.value.unit), b.value) else None
    return same(a.value, b.value)


def _is_loose(name: str) -> bool:
    """Whether a name may be replaced by others: it is a word, or the name of a function."""
    return (len(name) > 2 and name.isalpha()) or "(" in name


def _either_is_formula(a: Named, b: Named) -> bool:
    return isinstance(a.value, Expression) or isinstance(b.value, Expression)


def _same_sides(a: tuple[str, str], b: tuple[str, str], otherwise: bool | None) -> bool | None:
    found = algebra.proportional(a, b)
    return otherwise if found is None else found[0]


def same_relation(one: Relation, other: Reading) -> bool | None:
    if not isinstance(other, Relation):
        if one.sign != "=":
            return None if isinstance(other, Intervals | Expression) else False
        return _same_value(one, other)
    if "=" in (one.sign, other.sign) and one.sign != other.sign:
        return False
    found = algebra.proportional(one.sides, other.sides)
    if found is None or not found[0]:
        return None if found is None else False
    if one.sign in ("=", "!="):
        return one.sign == other.sign
    turned = other.sign.translate(str.maketrans("<>", "><")) if found[1] < 0 else other.sign
    return one.sign == turned


def _same_value(one: Relation, other: Reading) -> bool | None:
    """Whether an equation says a value: `m + n = 113` says 113. An equation of one name alone, such as
    `2x = 12`, may stand for its solution, so it says nothing surely.
    """
    value = None if isinstance(other, Intervals) else latex_of(other)
    if value is None:
        return None
    left, right = one.sides
    names = set(LETTER.findall(COMMAND.sub(" ", left)))
    found = algebra.equal(right, value, False)
    is_sum_of_names = len(names) > 1 or "(" in left or "|" in left
    if found is None or not is_sum_of_names:
        return None
    return found


def same_expression(a: Reading, b: Reading) -> bool | None:
    left, right = latex_of(a), latex_of(b)
    if left is None or right is None:
        return None
    if left != right and ROMAN.fullmatch(left) and ROMAN.fullmatch(right):
        return None  # IV and VI
    if (glued := glued_unit(a, b)) is not None:
        return same_quantity(glued, b, 0.0) if isinstance(b, Quantity) else None
    if isinstance(a, Quantity) and glued_unit(b, a) is not None:
        return None
    if (turned := _in_radians(a, b)) is not None:
        return turned
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
    if found is False and (constants := [CONSTANT.search(one) for one in (left, right)]) and all(constants):
        found = _in_every_reading(CONSTANT.sub("", left), CONSTANT.sub("", right), is_decimal)
    return None if found is False and left.casefold() == right.casefold() else found


def _in_radians(a: Reading, b: Reading) -> bool | None:
    r"""Whether angles are equal of which one is in degrees and the other in radians or in parts of pi. None
    if they are no such angles, or it cannot be told.
    """
    for one, other in ((a, b), (b, a)):
        if (
            not isinstance(one, Quantity)
            or one.unit is None
            or {n for n, _ in one.unit.dimensions} != {"angle"}
        ):
            continue
        if isinstance(other, Expression) and r"\pi" in other.latex:
            degrees = rf"\frac{{{one.value.numerator}\cdot\pi}}{{{180 * one.value.denominator}}}"
            return algebra.equal(degrees, other.latex, False)
    return None


def glued_unit(a: Reading, b: Reading) -> Quantity | None:
    """Read `3m` as three metres if the other side is a number. Computer algebra would read a product."""
    if not isinstance(a, Expression) or a.unit or not isinstance(b, Quantity):
        return None
    return (
        quantity(re.sub(r"(?<=\d)\s*(?=[A-Za-z])", " ", a.latex)) if GLUED_UNIT.fullmatch(a.latex) else None
    )


def _in_every_reading(left: str, right: str, is_decimal: bool) -> bool | None:
    """Whether expressions are equal. None if they are equal in one reading and not in another."""
    pairs = [(one, other) for one in line_readings(left) for other in line_readings(right)]
    found = {algebra.equal(one, other, is_decimal) for one, other in pairs}
    return found.pop() if len(found) == 1 else None


def line_readings(latex: str) -> tuple[str, ...]:
    r"""The possible meanings of a fraction on one line: the text after its denominator may be below the line
    or after it.

    >>> line_readings(r"1/2x"), line_readings(r"1/2+x")
    (('1/2x', '1/2\\cdot x'), ('1/2+x',))
    """
    other = BEHIND_DENOMINATOR.sub(r"\1\\cdot ", latex)
    return (latex,) if other == latex else (latex, other)
