"""The values that a run or a part of a study publishes, question by question, and every comparison anew from
such a file alone:

    from jobs.study.published import compared_again

    tables = compared_again("runs/demo/questions.parquet")  # or docs/study/PART-questions.parquet
    tables["comparisons"]

What is compared with what, the metric, the students' lineages and the seed of hindsight's halves stand in the
file's metadata, as `DataFrame.attrs`.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from jobs.results.summary import Results
from jobs.results.values import values_from
from jobs.study.comparisons import Design, compared_tables, corrected
from training.comparison import SAME

TEXTS = ("student", "arm", "question", "family")


def described(
    rows: pd.DataFrame, metric: str, designs: Mapping[str, Design], last_round: int | None = None
) -> pd.DataFrame:
    """Values with all beside them that intervals and comparisons need.

    Args:
        designs: by setting; a run has one, of no name.
        last_round: where the rows are of several rounds: the one that is compared after.
    """
    told = {setting: asdict(design) | {"alike": sorted(design.alike)} for setting, design in designs.items()}
    rows = rows.copy()
    rows.attrs = {"metric": metric, "designs": told, "last_round": last_round}
    return rows


def published(results: Results) -> Results:
    """A run's results whose values say all that comparing them again needs."""
    e = results.experiment
    alike = [(student, arm, c.against) for student, arm, c in results.comparisons if c.uncertainty == SAME]
    design = Design(
        tuple(arm["name"] for arm in e["arms"]),
        tuple(dict.fromkeys(c.against for _, _, c in results.comparisons)),
        tuple(arm["name"] for arm in e["arms"] if arm.get("rule") == "teacher"),
        {student["name"]: student.get("lineage") or student["name"] for student in e["students"]},
        e["seed"],
        tuple(alike),
    )
    return replace(results, values=described(results.values, results.metric, {"": design}, e["rounds"]))


def compared_again(file: str | Path) -> dict[str, pd.DataFrame]:
    """Every table that follows from a file's values, by name: `families`, `comparisons`, `contrasts`; with
    p-values corrected over all of the file.

    Args:
        file: `questions.parquet` of a run, or `PART-questions.parquet` of a study.

    Raises:
        ValueError: the file was written before such files said what is compared.
    """
    rows = pd.read_parquet(file)
    told: Mapping[Any, Any] = rows.attrs
    if "designs" not in told:
        raise ValueError(f"{file} does not say what is compared: run the experiment or the study again")
    if told["last_round"] is not None:
        rows = rows[rows["round"].isin([0, told["last_round"]])]
    rows = rows.astype(dict.fromkeys(TEXTS, object))
    cells = []
    for setting, design in told["designs"].items():
        own = rows[rows["setting"] == setting] if "setting" in rows else rows
        values = values_from(own, told["metric"])
        cells.append(({"setting": setting}, values, Design(**design | {"alike": _triples(design["alike"])})))
    tables = compared_tables(cells)
    return tables | {"comparisons": corrected(tables["comparisons"])}


def _triples(lists: list[list[str]]) -> list[tuple[str, str, str]]:
    return [(student, arm, other) for student, arm, other in lists]
