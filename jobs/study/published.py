"""The values that a run or a part of a study publishes, question by question. All comparisons can be computed
again from such a file alone:

    from jobs.study.published import compared_again

    tables = compared_again("runs/demo/questions.parquet")  # or docs/study/PART-questions.parquet
    tables["comparisons"]

The file's metadata (`DataFrame.attrs`) holds the pairs that are compared, the metric, the students' lineages
and the seed of hindsight's halves.
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
    """Add to the values, as metadata, all that intervals and comparisons need.

    Args:
        designs: what is compared, by setting. A run has one setting, with an empty name.
        last_round: the round after which arms are compared, if the rows are of several rounds.
    """
    told = {setting: asdict(design) | {"alike": sorted(design.alike)} for setting, design in designs.items()}
    rows = rows.copy()
    rows.attrs = {"metric": metric, "designs": told, "last_round": last_round}
    return rows


def published(results: Results) -> Results:
    """Add the metadata to a run's values, so that they can be compared again."""
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
    """Compute all tables that follow from a file's values: `families`, `comparisons` and `contrasts`, by
    name. P-values are corrected over the whole file.

    Args:
        file: `questions.parquet` of a run, or `PART-questions.parquet` of a study.

    Raises:
        ValueError: the file is of an earlier version, which did not store what is compared.
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
