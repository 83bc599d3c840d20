"""The figures of docs/ranking.md follow from what is published."""

import io
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from jobs.results.values import interval_of, pool_of, values_from
from jobs.study.published import compared_again
from selection.agreement import agreement_table
from selection.ranking import Matched
from training.evaluation import Interval

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
AGENTS = "## Teachers of agents"
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
    text = text.partition(AGENTS)[0]
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


def test_the_costs_orders_of_agents_teachers_are_those_of_the_published_table() -> None:
    kept = pd.read_csv(DOCS / "ranking" / "traces-truth.csv").set_index(["part", "cost"])
    text = (DOCS / "ranking.md").read_text(encoding="utf-8").partition(AGENTS)[2]
    shown = re.findall(r"^\| ([\w, ]+?) \| (\S+ \(.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    assert len(shown) == 7
    for names, *cells in shown:
        for name in names.split(", "):
            cost = {"mean loss": "naturalness"}.get(name, name.replace(" ", "_"))
            for parts, cell in zip(
                (["rows-calls"], ["tokens-calls"], ["rows", "tokens"]), cells, strict=True
            ):
                for part in parts:
                    own = kept.loc[(part, cost)]
                    assert cell == f"{own['tau']:.2f} ({own['low']:.2f} to {own['high']:.2f})", (part, name)


TRACES = {"rows": "accuracy", "tokens": "accuracy", "rows-calls": "loss", "tokens-calls": "loss"}


def told(interval: Interval, metric: str) -> str:
    """A mean as the page has it: per cent, or nats a token."""
    if metric == "accuracy":
        return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    return f"{-interval.value:.2f} ({-interval.high:.2f} to {-interval.low:.2f})"


def test_the_table_of_agents_teachers_and_what_is_said_of_it_follow_from_the_published_values() -> None:
    page = (DOCS / "ranking.md").read_text()
    cells, worse = defaultdict[str, list[str]](list), {}
    for part, metric in TRACES.items():
        file = DOCS / "ranking" / f"traces-{part}.parquet"
        rows = pd.read_parquet(file)
        texts = dict.fromkeys(("student", "arm", "question", "family"), object)
        values = values_from(rows.astype(texts), metric)
        pool = pool_of([values])
        for teacher in ("brief", "planned", "reasoned", "wordy"):
            cells[teacher].append(told(interval_of(values, ("smol", f"only {teacher}"), pool), metric))
        found = compared_again(file)["comparisons"].set_index(["arm", "against"])
        others = [found.loc[(f"only {t}", "only brief")] for t in ("planned", "reasoned", "wordy")]
        worse[part] = [row["p_corrected"] < 0.05 and row["difference"] < 0 for row in others]
    for teacher, own in cells.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {teacher} | "))
        assert [cell.strip() for cell in line.split("|")[4:8]] == own
    assert worse == {"rows": [False] * 3} | {name: [True] * 3 for name in TRACES if name != "rows"}
