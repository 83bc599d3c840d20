"""Is a final answer the reference? One comparison per method: True, False, or None where the answer cannot be
read.

A reference that its method cannot read is refused: it would make every answer wrong.
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from cluster.errors import BadInput

WORDS = re.compile(r"[^\W\d_]{2,}(?:[\s-]+[^\W\d_]+)*")
CHOICE = re.compile(r"^\(?([A-Za-z])\)?[.:)]?(?:\s|$)")
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def parse_number(text: str) -> Decimal | None:
    """Read text that is one number, with thousands separators, a currency sign, a percent sign or a unit
    around it.

    >>> parse_number("$1,234.50"), parse_number("3 or 4")
    (Decimal('1234.50'), None)
    """
    found = NUMBER.findall(text)
    if len(found) != 1:
        return None
    try:
        return Decimal(found[0].replace(",", ""))
    except InvalidOperation:
        return None


def _same_exact(got: str, reference: str, tolerance: float) -> bool | None:
    return " ".join(got.split()) == " ".join(reference.split())


def _same_number(got: str, reference: str, tolerance: float) -> bool | None:
    a, b = parse_number(got), parse_number(reference)
    if b is None:
        raise BadInput(
            "the reference is not one number",
            repr(reference[:60]),
            "a number",
            "use verify.method exact or math",
        )
    if a is None:
        return None
    return abs(a - b) <= Decimal(str(tolerance)) * max(Decimal(1), abs(b))


def _same_choice(got: str, reference: str, tolerance: float) -> bool | None:
    a, b = CHOICE.match(got.strip()), CHOICE.match(reference.strip())
    if b is None:
        raise BadInput(
            "the reference is not a choice letter",
            repr(reference[:60]),
            "A, (B) or c.",
            "use verify.method exact",
        )
    return None if a is None else a.group(1).upper() == b.group(1).upper()


def _same_math(got: str, reference: str, tolerance: float) -> bool | None:
    """math-verify's symbolic comparison, its own alarms off: the child process is the limit."""
    from math_verify import parse, verify

    # as mathematics, a word is a product of its letters: "seat" would equal "east"
    if WORDS.fullmatch(reference):
        return got.casefold().strip(".") == reference.casefold()
    gold = parse(f"${reference}$", parsing_timeout=None)
    if not gold:
        raise BadInput(
            "the reference is no mathematics",
            repr(reference[:60]),
            "a number, an expression or a word",
            "use verify.method exact",
        )
    mine = parse(f"${got}$", parsing_timeout=None)
    if not mine:
        return None
    return bool(verify(gold, mine, timeout_seconds=None))


Comparison = Callable[[str, str, float], bool | None]
COMPARISONS: dict[str, Comparison] = {
    "math": _same_math,
    "exact": _same_exact,
    "numeric": _same_number,
    "choice": _same_choice,
}
