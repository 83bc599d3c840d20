"""Numbers as users of Python write them: numpy's, whole ones as floats, and what is none."""

import math
import numbers
from typing import Any

from cluster.errors import BadInput


def whole(name: str, value: Any, least: int | None = None) -> int:
    """A whole number. 3.0 and numpy's 3 are 3, so they draw alike as seeds.

    Raises:
        BadInput: it is no whole number, or too small.

    >>> whole("k", 3.0)
    3
    """
    is_whole = _is_number(value) and math.isfinite(value) and value == int(value)
    if not is_whole or (least is not None and value < least):
        bound = "" if least is None else f", {least} or more"
        what = name if is_whole else f"{name} is no whole number"
        raise BadInput(what, _shown(value), f"a whole number{bound}", "")
    return int(value)


def number(name: str, value: Any) -> float:
    """A number.

    Raises:
        BadInput: it is none, or NaN.

    >>> number("cap", 1)
    1.0
    """
    if not _is_number(value) or math.isnan(value):
        raise BadInput(f"{name} is no number", _shown(value), "a number", "")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and type(value).__name__ != "bool"


def _shown(value: Any) -> str:
    return str(value) if _is_number(value) else f"{type(value).__name__} {str(value)[:40]!r}"
