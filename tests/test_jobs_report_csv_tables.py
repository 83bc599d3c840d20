"""Tables for spreadsheets: no name is a formula there, and all of them are read back as they were."""

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report.csv_tables import as_csv, as_written, defused, read_csv


@given(st.text(alphabet="=+-@\t\r'\"a1,\n ", max_size=8))
def test_every_text_is_read_back_and_none_begins_a_formula(text: str) -> None:
    assert as_written(defused(text)) == text
    assert not defused(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", "'=1", "'a", "a"])
def test_a_table_keeps_names_and_numbers(name: str) -> None:
    table = pd.DataFrame({"teacher": [name, "b"], "gain": [-1.5, 2.0], name + "x": [1, 2]})
    raw = pd.read_csv(io.BytesIO(as_csv(table)), dtype=str, keep_default_na=False)
    for text in [*raw.columns, *raw["teacher"]]:
        assert not text.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert list(raw["gain"]) == ["-1.5", "2"] or list(raw["gain"]) == ["-1.5", "2.0"]
    back = read_csv(as_csv(table))
    assert list(back["teacher"]) == [name, "b"]
    assert list(back.columns) == list(table.columns)
