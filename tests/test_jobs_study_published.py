"""Every comparison follows from the file of published values alone."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from jobs.experiment.schema import BEFORE
from jobs.results.values import as_parquet, rows_of
from jobs.study.comparisons import compared_tables
from jobs.study.published import compared_again, described
from tests.test_jobs_study_comparisons import DESIGN, drawn


def test_what_two_experiments_compare_need_not_be_the_same_and_a_file_of_before_is_refused(
    tmp_path: Path,
) -> None:
    """Arms that one setting lacks, equal choices, another seed of halves, names that look like numbers."""
    first, second = drawn("loss", 0), drawn("loss", 1)
    few = {p: t for p, t in second.paths.items() if p[1] not in ("only u", BEFORE)}
    few["b-low", "scas"] = few["b-low", "strongest"]
    second = replace(second, paths=few)
    designs = {
        "7": replace(DESIGN, seed=5),
        "": replace(DESIGN, arms=("scas", "strongest"), against=("strongest",), single=()),
    }
    designs[""] = replace(designs[""], alike=[("b-low", "scas", "strongest")])
    cells = [({"setting": s}, v, d) for (s, d), v in zip(designs.items(), (first, second), strict=True)]
    expected = compared_tables(cells)
    rows = pd.concat([rows_of(v).assign(**head) for head, v, _ in cells], ignore_index=True)
    file = tmp_path / "p-questions.parquet"
    file.write_bytes(as_parquet(described(rows, "loss", designs)))
    again = compared_again(file)
    for name, table in expected.items():
        pd.testing.assert_frame_equal(again[name][table.columns], table)
    assert again["comparisons"]["low"].isna().sum() == 1  # of equal choices there is no interval
    file.write_bytes(as_parquet(rows))
    with pytest.raises(ValueError, match="does not say what is compared"):
        compared_again(file)
