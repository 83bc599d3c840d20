"""The held-out questions of a sweep: some choose the best setting, the others judge it."""

from collections.abc import Sequence

import pandas as pd

from cluster.storage import Place
from jobs.run.store import Stage, digest


def choosing(held_out: Sequence[str], share: float) -> list[str]:
    """The held-out questions by which settings are compared while the sweep runs; the others judge the one
    that is taken.

    The largest of many noisy values is too large: a setting's value must be told by questions that did not
    choose it.
    """
    order = sorted(held_out, key=lambda q: digest(["choose", q]))
    return sorted(order[: max(1, min(len(order) - 1, round(share * len(order))))])


def read_evaluation(directory: Place) -> "pd.Series[float]":
    """An evaluation's values by question id, from its directory in the store."""
    return Stage("evaluate", directory.name, directory, {}, {}).read().set_index("question_id")["value"]


def mean_value(directory: Place, kept: set[str]) -> float:
    """The mean of an evaluation over some of its questions."""
    values = read_evaluation(directory)
    return float(values[values.index.isin(kept)].mean())
