"""Tables as CSV files that people open in spreadsheets: a name that begins as a formula is no formula.

A spreadsheet computes what begins with `=`, `+`, `-` or `@`, also behind a tab. An apostrophe before it keeps
it a text; reading takes it away again.
"""

import io

import pandas as pd

DIGITS = 5  # of numbers
FORMULA = ("=", "+", "-", "@", "\t", "\r")
QUOTED = ("'", *FORMULA)


def as_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV, with numbers short enough to read."""
    safe = pd.DataFrame({defused(str(name)): column.map(_defused_value) for name, column in table.items()})
    return safe.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n").encode()


def read_csv(content: bytes) -> pd.DataFrame:
    """The texts of a table that `as_csv` wrote."""
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    plain = {as_written(str(name)): column.map(as_written) for name, column in table.items()}
    return pd.DataFrame(plain)


def defused(text: str) -> str:
    """A text that no spreadsheet takes for a formula.

    >>> defused("=1+1"), defused("plain"), defused("'=1")
    ("'=1+1", 'plain', "''=1")
    """
    return f"'{text}" if text.startswith(QUOTED) else text


def as_written(text: str) -> str:
    """A defused text as it was.

    >>> as_written("'=1+1"), as_written("plain"), as_written("''=1")
    ('=1+1', 'plain', "'=1")
    """
    return text[1:] if text.startswith("'") and text[1:].startswith(QUOTED) else text


def _defused_value(value: object) -> object:
    return defused(value) if isinstance(value, str) else value
