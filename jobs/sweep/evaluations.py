"""The held-out questions of a sweep: some choose the best setting, the others judge it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.run.store import Stage, digest


def choosing(held_out: Sequence[str], share: float) -> list[str]:
    """The held-out questions by which settings are compared while the sweep runs. The other questions judge
    the setting that was chosen.

    The largest of many noisy values is too large on average. So a setting's value must come from questions
    that did not choose it.
    """
    order = sorted(held_out, key=lambda q: digest(["choose", q]))
    return sorted(order[: max(1, min(len(order) - 1, round(share * len(order))))])


def read_evaluation(directory: Place) -> pd.DataFrame:
    """An evaluation's values and tokens by question id, from its directory in the store."""
    return Stage("evaluate", directory.name, directory, {}, {}).read().set_index("question_id")


def mean_value(directory: Place, metric: str, kept: set[str] | None = None) -> float:
    """The mean of an evaluation over its questions, or over some of them. It is an accuracy, or minus the
    loss per token of all their references together. NaN if no question could be judged.
    """
    table = read_evaluation(directory)
    table = table[table["value"].notna() & (table.index.isin(kept) if kept is not None else True)]
    if metric != "loss" or not len(table):
        return float(table["value"].mean())
    return float(np.average(table["value"], weights=table["tokens"]))
