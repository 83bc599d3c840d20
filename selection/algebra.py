r"""Tells whether two expressions are equal, by their values. Rational values are compared exactly, others to
many digits. Expressions with variables are compared at several points.

An identity of the usual functions that holds at random points holds everywhere (Schwartz and Zippel). One
that only holds at positive points, such as the root of a square, is in doubt. Expressions are not simplified,
because that may hang or give up. Expressions that would be too large to compute (`7^{7^{7^{7}}}`, a sum
without known ends) are not read.
"""

from functools import lru_cache
from typing import Any

DIGITS = 40
LONGEST = 400  # the most characters for the parser
LARGEST_SIZE = 400  # the most parts of an expression, and terms of a sum
LARGEST_POWER = 5000  # the largest exponent, and the largest number of a factorial
TOLERANCE = 1e-25  # relative, between exact expressions
DECIMAL_TOLERANCE = 1e-6  # relative, between a decimal and a number that no decimal equals
POSITIVE = ("37/53", "71/29", "19/31", "113/47")
NEGATIVE = ("-41/59", "-83/37", "-17/43", "-97/61")


@lru_cache(maxsize=2048)
def parsed(latex: str) -> Any:
    """Parse LaTeX into an expression that is not evaluated. None if it is not understood or would be too
    large.
    """
    return with_constants(as_it_stands(latex))


@lru_cache(maxsize=2048)
def as_it_stands(latex: str) -> Any:
    """Parse LaTeX, whatever its size. None if it cannot be parsed."""
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    if len(latex) > LONGEST:
        return None
    as_written = ConversionConfig(lowercase_symbols=False)  # A and a are two variables
    try:
        return latex2sympy(
            latex,
            is_real=True,
            convert_degrees=False,
            normalization_config=None,
            conversion_config=as_written,
        )
    except Exception:  # the parser may raise anything; it always means that it cannot read this
        return None


def with_constants(expression: Any) -> Any:
    """The expression with e and i as numbers. None if it is no single expression."""
    import sympy

    if not isinstance(expression, sympy.Basic | sympy.MatrixBase):
        return None
    known = {"i": sympy.I, "e": sympy.E, "pi": sympy.pi}
    if not is_small(expression):
        return None
    symbols = {s: known[str(s)] for s in getattr(expression, "free_symbols", ()) if str(s) in known}
    return expression.subs(symbols) if symbols else expression


def is_small(expression: Any) -> bool:
    """Whether an expression is quick to compute: no endless or symbolic sum, no tower of powers."""
    import sympy

    for count, node in enumerate(sympy.postorder_traversal(expression)):
        if count > LARGEST_SIZE or isinstance(node, sympy.Integral | sympy.Limit | sympy.Derivative):
            return False
        if isinstance(node, sympy.Sum | sympy.Product):
            return all(_is_short(limits) for limits in node.limits)
        if isinstance(node, sympy.Pow) and node.is_number and not _is_small_power(*node.args):
            return False
        grows = isinstance(node, sympy.exp | sympy.factorial | sympy.binomial) and node.args[0].is_number
        if grows and not abs(sympy.N(node.args[0])) <= LARGEST_POWER:
            return False
    return True


def _is_short(limits: Any) -> bool:
    """Whether a sum runs over few, known whole numbers."""
    if len(limits) != 3:
        return False
    _, low, high = limits
    return bool(low.is_Integer and high.is_Integer and high - low <= LARGEST_SIZE)


def _is_small_power(base: Any, exponent: Any) -> bool:
    import sympy

    size, power = abs(sympy.N(base)), abs(sympy.N(exponent))
    if not size.is_number or not power.is_number or not power <= LARGEST_POWER:
        return False
    return bool(not size or power * abs(sympy.log(size)) <= 10 * LARGEST_POWER)


def is_huge(expression: Any) -> bool:
    """Whether a tower of powers of whole numbers is larger than any number written in digits."""
    import sympy

    if not isinstance(expression, sympy.Pow):
        return False
    base, exponent = expression.args
    if not (base.is_Integer and base >= 2):
        return False
    if is_huge(exponent):
        return True
    return bool(exponent.is_number and is_small(exponent) and exponent.is_real and exponent > LARGEST_POWER)


def equal(left: str, right: str, is_decimal: bool = False) -> bool | None:
    r"""Whether two expressions in LaTeX are equal. None if one cannot be read, or if it is in doubt.

    Args:
        is_decimal: whether one of them is a decimal, which may be a rounded value.

    >>> equal(r"x^2+2x+1", r"(x+1)^2"), equal(r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"), equal("x", "|x|")
    (True, False, None)
    >>> equal("7^{7^{7^{7}}}", "7"), equal("7^{7^{7^{7}}}", "7^{7^{7^{6}}}")
    (False, None)
    """
    import sympy

    a, b = parsed(left), parsed(right)
    for one, huge in ((a, right), (b, left)):
        if isinstance(one, sympy.Rational) and abs(one) < 10**LONGEST and is_huge(as_it_stands(huge)):
            return False
    if a is None or b is None:
        return None
    matrices = [isinstance(one, sympy.MatrixBase) for one in (a, b)]
    if any(matrices):
        return _same_matrices(a, b) if all(matrices) else False
    if not all(isinstance(one, sympy.Expr) for one in (a, b)):
        return None
    return _equal(a, b, DECIMAL_TOLERANCE if is_decimal else TOLERANCE)


def _same_matrices(a: Any, b: Any) -> bool | None:
    if a.shape != b.shape:
        return False
    cells = [_equal(one, other, TOLERANCE) for one, other in zip(a, b, strict=True)]
    return None if None in cells else all(cells)


def _equal(a: Any, b: Any, tolerance: float) -> bool | None:
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols:
        return _same_number(a, b, tolerance)
    positive = _agree(a, b, symbols, POSITIVE)
    if positive is not True:
        return positive
    return True if _agree(a, b, symbols, NEGATIVE) is True else None


def _agree(a: Any, b: Any, symbols: list[Any], points: tuple[str, ...]) -> bool | None:
    """Whether two expressions have the same values at these points. Each variable takes the points in another
    order.
    """
    import sympy

    checked = 0
    for turn in range(3):
        at = {
            s: sympy.Rational(points[(i + turn) % len(points)]) + i // len(points)
            for i, s in enumerate(symbols)
        }
        same = _same_number(a.subs(at), b.subs(at), TOLERANCE * 1e5)
        if same is False:
            return False
        checked += same is True
    return True if checked else None


def _same_number(a: Any, b: Any, tolerance: float) -> bool | None:
    import sympy

    a, b = a.doit(), b.doit()
    if a.is_Rational and b.is_Rational:
        return bool(a == b)
    x, y = sympy.N(a, DIGITS), sympy.N(b, DIGITS)
    if not (x.is_number and y.is_number) or x.has(sympy.nan, sympy.zoo) or y.has(sympy.nan, sympy.zoo):
        return None
    if x.has(sympy.oo) or y.has(sympy.oo):
        return bool(x == y)
    try:
        x, y = complex_digits(x), complex_digits(y)
    except (TypeError, ValueError):  # part of it remained a formula, so it has no value here
        return None
    size = max(abs(x), abs(y))
    return bool(abs(x - y) <= size * tolerance)


def complex_digits(number: Any) -> Any:
    """A number of many digits that subtracts without loss."""
    import mpmath

    real, imaginary = number.as_real_imag()
    with mpmath.workdps(DIGITS):
        return mpmath.mpc(mpmath.mpf(str(real)), mpmath.mpf(str(imaginary)))


def proportional(left: tuple[str, str], right: tuple[str, str]) -> tuple[bool, int] | None:
    """Whether two equations, each given by its two sides, are equivalent: the differences of their sides have
    a constant ratio.

    Returns:
        Whether they are, and the sign of the ratio. None if one cannot be read.
    """
    import sympy

    sides = [parsed(side) for side in (*left, *right)]
    if any(not isinstance(side, sympy.Expr) for side in sides):
        return None
    one, other = sides[0] - sides[1], sides[2] - sides[3]
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    if not symbols:
        return None
    ratios = []
    for turn, points in ((0, POSITIVE), (1, POSITIVE), (0, NEGATIVE), (2, NEGATIVE)):
        at = {s: sympy.Rational(points[(i + turn) % 4]) + i // 4 for i, s in enumerate(symbols)}
        values = [sympy.N(side.subs(at).doit(), DIGITS) for side in (one, other)]
        if not all(value.is_real and value.is_finite for value in values) or not values[1]:
            return None if all(value.is_zero for value in values) else (False, 0)
        ratios.append(values[0] / values[1])
    if not ratios[0] or any(abs(ratio - ratios[0]) > abs(ratios[0]) * 1e-20 for ratio in ratios):
        return False, 0
    return True, 1 if ratios[0] > 0 else -1
