"""The ledger of a run: where every question and every answer ended, and whether what fell out differs from
what stayed.
"""

import math
from collections.abc import Mapping

import pandas as pd

from jobs.results.outcome import Outcome, Start


def run_ledger(outcome: Outcome) -> pd.DataFrame:
    """Counts of final states, per path and round, for questions and answers; each path's counts add up to the
    totals.
    """
    rows, answers = [], dict[str, int]()
    for path, number, scores, chosen in outcome.choices():
        answers[path.label] = scores.pool.size  # of a routed path's: what it asked
        each = [own.groupby(["kind", "state"]).size() for own in chosen.each("ledger", ["kind", "state"])]
        counts = pd.concat(each).groupby(level=[0, 1]).sum().reset_index(name="count")
        rows.append(counts.assign(path=path.label, round=number))
    for (path, number), own in outcome.rounds.items():
        if own.ledger is not None:  # whose totals were checked when it was made
            rows.append(own.ledger.assign(path=path.label, round=number))
    ledger = pd.concat(rows, ignore_index=True)
    choosing = ledger[ledger["path"].isin([path.label for path, *_ in outcome.choices()])]
    if not len(choosing):
        return ledger
    totals = choosing.groupby(["path", "round", "kind"])["count"].sum().unstack()
    wrong = totals[
        (totals["question"] != len(outcome.start.questions) + len(outcome.start.pool.refused))
        | (totals.get("answer", 0) != totals.index.get_level_values("path").map(answers))
    ]
    if len(wrong):
        raise RuntimeError(f"the ledger of {wrong.index[0]} does not add up: {dict(wrong.iloc[0])}")
    return ledger


def drop_bias(start: Start) -> pd.DataFrame:
    """Whether answers that fell out before selection differ from those that stayed: by teacher, by task, and
    in length.
    """
    families = {q.id: q.family for q in start.questions.values()}
    rows = []
    for by in ("teacher", "task"):
        each = [_stayed(answers, by, families) for answers in start.pool.each()]
        summed = pd.concat(each).groupby(level=0).sum()
        for name, own in summed[summed.index != ""].iterrows():
            stayed, fell = int(own["stayed"]), int(own["answers"] - own["stayed"])
            rows.append(
                {
                    by: name,
                    "stayed": stayed,
                    "fell out": fell,
                    "fell out, share": fell / own["answers"],
                    "mean characters, stayed": _share(own["stayed characters"], stayed),
                    "mean characters, fell out": _share(own["characters"] - own["stayed characters"], fell),
                }
            )
    frame = pd.DataFrame(rows)
    first = [c for c in ("teacher", "task") if c in frame.columns]
    return frame[[*first, *[c for c in frame.columns if c not in first]]].fillna(dict.fromkeys(first, ""))


def _stayed(answers: pd.DataFrame, by: str, families: Mapping[str, str]) -> pd.DataFrame:
    """Of a slice's answers, sums by teacher or task."""
    tasks = answers["question_id"].map(families).fillna("") if by == "task" else answers["teacher"]
    stayed = answers["state"] == "verified"
    table = pd.DataFrame({"answers": 1, "stayed": stayed.astype(int), "characters": answers["characters"]})
    table["stayed characters"] = answers["characters"].where(stayed, 0)
    return table.groupby(tasks.to_numpy()).sum()


def _share(total: float, count: int) -> float:
    return total / count if count else math.nan


def nothing_to_choose(start: Start) -> int:
    """Questions whose verified answers are one text: every selector takes the same."""
    count = 0
    for answers in start.pool.each():
        verified = answers[answers["state"] == "verified"]
        count += int((verified.groupby("question_id")["answer_key"].nunique() == 1).sum())
    return count
