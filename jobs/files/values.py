"""Values in rows of files: repairing them, and telling which mean nothing and which mean no."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.models.repair import repaired_text

NO = frozenset({"false", "0", "0.0"})
MOST_EXACT = 2**53  # up to here a float holds a whole number exactly


def whole(value: Any) -> Any:
    """A value with all its texts and names repaired, at any depth. NaN and infinity become None."""
    if isinstance(value, str):
        return repaired_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {repaired_text(str(name)): whole(inner) for name, inner in value.items()}
    return [whole(inner) for inner in value] if isinstance(value, list) else value


def from_column(value: Any) -> Any:
    """A repaired value of a columnar file. Bytes become text. Empty fields are removed, because such a file
    gives every object in a column all fields.
    """
    if isinstance(value, dict):
        return {repaired_text(k): from_column(v) for k, v in value.items() if not is_nan(v)}
    if isinstance(value, list):
        return [from_column(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            return repaired_text(value.decode())
        except UnicodeDecodeError:  # for example a picture
            return value
    return whole(value)


def shortest(value: Any) -> Any:
    """A float32 or float16 as the float of its shortest decimal, at any depth of lists.

    >>> import numpy as np
    >>> shortest(np.float32(0.1)), float(np.float32(0.1)), shortest([np.float16(0.1), None])
    (0.1, 0.10000000149011612, [0.1, None])
    """
    if isinstance(value, list | tuple | np.ndarray):
        return [shortest(inner) for inner in value]
    return float(str(value)) if isinstance(value, np.float32 | np.float16) else value


def is_nan(value: Any) -> bool:
    """Whether a value is None or not a finite number. pandas writes None as NaN."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def is_nothing(value: Any) -> bool:
    """Whether a value says nothing, in any spelling.

    >>> [is_nothing(v) for v in (None, float("nan"), "", " ", [], {}, 0, "nan", False)]
    [True, True, True, True, True, True, False, False, False]
    """
    return is_nan(value) or (isinstance(value, str | list | dict | tuple) and not _stripped(value))


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def is_no(value: Any) -> bool:
    """Whether a value means no, in any spelling.

    >>> [is_no(v) for v in (False, 0, 0.0, "0", "False", [0, 0], None, 1, "", [])]
    [True, True, True, True, True, True, False, False, False, False]
    """
    if isinstance(value, str):
        return value.strip().casefold() in NO
    if isinstance(value, list):
        return bool(value) and all(map(is_no, value))
    return isinstance(value, bool | int | float) and value == 0


def as_text(value: Any) -> str | None:
    """A plain value as text. None for empty values, and for nested ones, which hold turns. A whole number
    gives the same text as int and as float, because pandas makes floats of whole numbers if one is missing.

    >>> as_text(5), as_text(5.0), as_text("5.0"), as_text(0.5), as_text(float("nan")), as_text([5])
    ('5', '5', '5.0', '0.5', None, None)
    """
    if is_nan(value) or isinstance(value, list | tuple | Mapping | bytes):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < MOST_EXACT:
        return str(int(value))
    return str(value)
