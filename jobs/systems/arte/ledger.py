"""Where every question and every text of ARTE ended. Each has exactly one state."""

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from jobs.run.slices import Sliced
from jobs.systems.arte.questions import KEPT, TaskSet, Written


def ledger_of(
    asked: int, tasks: Mapping[str, TaskSet], written: Mapping[str, Written], chosen: Sliced, usable: int
) -> pd.DataFrame:
    """Count final states: of the user's questions, of what teachers wrote in each harvest, and of the
    questions and rationales that a path could choose from.

    Args:
        asked: the number of the user's questions.
        written: the harvests that the path rests on, by name.
        usable: how many questions the path could choose from.

    Raises:
        RuntimeError: the totals do not add up.
    """
    seeds = sum(len(own.seeds) for own in tasks.values())
    validation = sum(len(own.validation) for own in tasks.values())
    rows = [("question", "seed", seeds), ("question", "validation", validation)]
    rows.append(("question", "not_needed", asked - seeds - validation))
    for harvest, own in written.items():
        rows += [(f"written question, {harvest} harvest", state, n) for state, n in own.ledger().items()]
        if own.ledger()[KEPT] != len(own.questions):
            raise RuntimeError(f"{own.ledger()[KEPT]} questions are kept, and {len(own.questions)} are there")
    found: Counter[tuple[str, str]] = Counter()
    for part in chosen.each("ledger", ["kind", "state"]):
        found.update(zip(part["kind"].tolist(), part["state"].tolist(), strict=True))
    names = {"question": "usable question", "answer": "rationale"}
    rows += [(names[kind], state, n) for (kind, state), n in sorted(found.items())]
    if sum(n for (kind, _), n in found.items() if kind == "question") != usable:
        raise RuntimeError(f"the ledger has not all of the {usable} questions to choose for")
    return pd.DataFrame([row for row in rows if row[2]], columns=["kind", "state", "count"])
