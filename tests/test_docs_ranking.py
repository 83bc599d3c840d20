"""The figures of docs/ranking.md follow from what is published."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

from selection.ranking import Matched, agreement_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
# by the word of the page and the column of the study's table
COSTS = {
    "worst token": "worst_token",
    "total loss": "total_loss",
    "excess loss": "excess_loss",
    "mean loss": "mean loss",
    "scas": "scas",
    "shortest": "shortest",
    "longest": "longest",
    "lark": "lark",
    "rsr": "rsr",
    "the teacher's own accuracy": "accuracy",
    "the student's own language": "language",
}
KINDS = ("all", "without filler", "strong")
COLUMNS = ["student", "teachers", "cost", "tau", "low_teachers", "high_teachers"]


def truth() -> pd.DataFrame:
    """Tau between each cost's order of teachers and that of what they really gave, for each student."""
    pairs = pd.read_csv(DOCS / "study" / "matrix-pairs.csv")
    found = []
    for which in KINDS:
        for student, own in pairs.groupby("student"):
            own = own[own["teacher"].str.endswith("-strong")] if which == "strong" else own
            own = own[~own["teacher"].str.contains("wordy")] if which == "without filler" else own
            own = own.sort_values("teacher")
            language = str(student).split("-")[0]
            own = own.assign(
                accuracy=-own["teacher accuracy"], language=(~own["teacher"].str.startswith(language)) * 1.0
            )
            values = {name: own[column].to_numpy(float)[:, None] for name, column in COSTS.items()}
            nothing = np.zeros((len(own), 1))
            matched = Matched(tuple(own["teacher"]), ("all",), values, nothing, nothing, {})
            lineages = [teacher.rsplit("-", 1)[0] for teacher in own["teacher"]]
            gains = dict(zip(own["teacher"], own["gain"], strict=True))
            table = agreement_table(matched, 2000, 0, lineages, gains)
            found.append(table.assign(student=student, teachers=which))
    return pd.concat(found, ignore_index=True)[COLUMNS]


def test_the_published_agreement_with_truth_follows_from_the_study() -> None:
    kept = pd.read_csv(DOCS / "ranking" / "truth.csv")
    pd.testing.assert_frame_equal(kept, truth(), rtol=1e-3, atol=1e-3)


def test_the_pages_table_is_that_of_the_published_agreement() -> None:
    kept = pd.read_csv(DOCS / "ranking" / "truth.csv")
    text = (DOCS / "ranking.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| ([\w' ]+?) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    rows = {name: cells for name, *cells in shown if name in COSTS}
    assert set(rows) == set(COSTS)
    for name, cells in rows.items():
        for which, cell in zip(KINDS, cells, strict=True):
            own = kept[(kept["cost"] == name) & (kept["teachers"] == which)]["tau"]
            assert cell == f"{own.mean():+.2f} ({own.min():+.2f} to {own.max():+.2f})", (name, which)


def write() -> None:
    """Write the published table: `python -c "from tests.test_docs_ranking import write; write()"`."""
    buffer = io.StringIO()
    truth().to_csv(buffer, index=False, float_format="%.5g")
    (DOCS / "ranking" / "truth.csv").write_text(buffer.getvalue(), encoding="utf-8")
    kept = truth()
    for name in COSTS:
        cells = []
        for which in KINDS:
            own = kept[(kept["cost"] == name) & (kept["teachers"] == which)]["tau"]
            cells.append(f"{own.mean():+.2f} ({own.min():+.2f} to {own.max():+.2f})")
        print(f"| {name} | {' | '.join(cells)} |")
