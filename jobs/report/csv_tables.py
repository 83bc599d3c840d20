"""Tables as CSV files that are safe to open in spreadsheets: no text is taken for a formula.

A spreadsheet runs texts that begin with `=`, `+`, `-` or `@`, also after a tab. An apostrophe in front
prevents that. It is removed when the file is read again.
"""

import io

import pandas as pd

DIGITS = 5  # of numbers
FORMULA = ("=", "+", "-", "@", "\t", "\r")
QUOTED = ("'", *FORMULA)


def as_csv(table: pd.DataFrame) -> bytes:
    """Write a table as CSV, with rounded numbers."""
    safe = pd.DataFrame({defused(str(name)): column.map(_defused_value) for name, column in table.items()})
    return safe.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n").encode()


def read_csv(content: bytes) -> pd.DataFrame:
    """Read a table that `as_csv` wrote. All values are texts."""
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    plain = {as_written(str(name)): column.map(as_written) for name, column in table.items()}
    return pd.DataFrame(plain)


def defused(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would take for a formula.

    >>> defused("=1+1"), defused("plain"), defused("'=1")
    ("'=1+1", 'plain', "''=1")
    """
    return f"'{text}" if text.startswith(QUOTED) else text


def as_written(text: str) -> str:
    """Undo `defused`.

    >>> as_written("'=1+1"), as_written("plain"), as_written("''=1")
    ('=1+1', 'plain', "'=1")
    """
    return text[1:] if text.startswith("'") and text[1:].startswith(QUOTED) else text


def _defused_value(value: object) -> object:
    return defused(value) if isinstance(value, str) else value
