"""The held-out questions of a sweep: some choose the best setting, the others judge it."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.run.store import Stage, digest

NOT_GIVEN: Mapping[str, str] = MappingProxyType({})


def choosing(held_out: Sequence[str], share: float, clusters: Mapping[str, str] = NOT_GIVEN) -> list[str]:
    """The held-out questions by which settings are compared while the sweep runs. The other questions judge
    the setting that was chosen.

    The largest of many noisy values is too large on average. So a setting's value must come from questions
    that did not choose it.

    Args:
        clusters: of questions that are not independent. Those of one cluster go the same way.
    """
    of = {q: clusters.get(q, q) for q in held_out}
    order = sorted(set(of.values()), key=lambda name: digest(["choose", name]))
    chosen = set(order[: max(1, min(len(order) - 1, round(share * len(order))))])
    return sorted(q for q, name in of.items() if name in chosen)


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
