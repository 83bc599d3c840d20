"""The learned cost of a study. It is fitted to the gains of some students from single teachers, on some
families of questions. It is evaluated on the other students and families, beside all other costs."""

from dataclasses import replace

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from jobs.experiment.schema import BEFORE
from jobs.experiment.study import Learns
from jobs.study.pairs import correlations_table
from jobs.study.parts import ONLY, taken
from jobs.study.tables import Tables
from selection.costs import FEATURES
from selection.learned import fit

LEARNED = "learned"


def learn(tables: Tables, learns: Learns, seed: int) -> tuple[Tables, dict[str, float]]:
    """Fit the learned cost. Returns the tables and the cost's coefficients. The table `judged` says how well
    all costs order teachers, for students and families that the learned cost was not fitted on.

    Raises:
        BadInput: no student or family is left to fit on, or to evaluate on.
    """
    pairs, families = tables.pairs, set(learns.families)
    every = set(tables.families["family"]) if len(tables.families) else set()
    names = [{"name": name} for name in pairs["student"].unique()] if len(pairs) else []
    fitted = {one["name"] for one in taken(names, learns.students, "learns: students")} if names else set()
    is_fitted = pairs["student"].isin(fitted).to_numpy() if names else np.zeros(0, dtype=bool)
    if not is_fitted.any() or is_fitted.all() or not families < every:
        raise BadInput(
            "a learned cost needs students and families to fit on, and others to judge it on",
            f"{', '.join(learns.students)}; {', '.join(learns.families)}",
            f"some of {', '.join(str(n['name']) for n in names)}; {', '.join(sorted(every))}",
            "change learns",
        )
    own = pairs[is_fitted].assign(gain=gains_on(tables, families)[is_fitted])
    coefficients = fit(own[list(FEATURES)], own["gain"])
    rest = pairs[~is_fitted].assign(gain=gains_on(tables, every - families)[~is_fitted])
    rest = rest.assign(**{LEARNED: -(rest[list(FEATURES)] * [coefficients[f] for f in FEATURES]).sum(axis=1)})
    judged = correlations_table(rest, seed)
    head = tables.pairs[["part", "setting"]].iloc[:1].reset_index(drop=True)
    judged = pd.concat([pd.concat([head] * len(judged), ignore_index=True), judged], axis=1)
    told = pd.DataFrame({"feature": list(coefficients), "coefficient": list(coefficients.values())})
    return replace(tables, judged=judged, coefficients=told), coefficients


def gains_on(tables: Tables, families: set[str]) -> np.ndarray:
    """For every pair of student and teacher, the student's gain on some families of questions. Families have
    equal weight.
    """
    some = tables.families[tables.families["family"].isin(families)]
    means = some.groupby(["student", "arm"])["value"].mean().to_dict()
    pairs = zip(tables.pairs["student"], tables.pairs["teacher"], strict=True)
    return np.array([means[s, ONLY + t] - means[s, BEFORE] for s, t in pairs])
