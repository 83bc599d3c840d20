"""The ledger of a run: where every question and every answer ended, and whether what fell out differs from
what stayed.
"""

import pandas as pd

from jobs.results.outcome import Outcome, Start


def run_ledger(outcome: Outcome) -> pd.DataFrame:
    """Counts of final states, per path and round, for questions and answers; each path's counts add up to the
    totals.
    """
    rows = []
    for (path, number), stage in outcome.chosen.items():
        counts = stage.read("ledger").groupby(["kind", "state"]).size().reset_index(name="count")
        rows.append(counts.assign(path=path.label, round=number))
    ledger = pd.concat(rows, ignore_index=True)
    totals = ledger.groupby(["path", "round", "kind"])["count"].sum().unstack()
    wrong = totals[
        (totals["question"] != len(outcome.start.questions) + len(outcome.start.pool.refused))
        | (totals.get("answer", 0) != len(outcome.start.pool.answers))
    ]
    if len(wrong):
        raise RuntimeError(f"the ledger of {wrong.index[0]} does not add up: {dict(wrong.iloc[0])}")
    return ledger


def drop_bias(start: Start) -> pd.DataFrame:
    """Whether answers that fell out before selection differ from those that stayed: by teacher, by task, and
    in length.
    """
    answers = start.pool.answers
    families = answers["question_id"].map({q.id: q.family for q in start.questions.values()}).fillna("")
    table = answers.assign(
        stayed=answers["state"] == "verified", characters=answers["text"].str.len(), task=families
    )
    rows = []
    for by in ("teacher", "task"):
        for name, own in table.groupby(by):
            if not name:
                continue
            kept, dropped = own[own["stayed"]], own[~own["stayed"]]
            rows.append(
                {
                    by if by == "task" else "teacher": name,
                    "stayed": len(kept),
                    "fell out": len(dropped),
                    "fell out, share": len(dropped) / len(own),
                    "mean characters, stayed": kept["characters"].mean(),
                    "mean characters, fell out": dropped["characters"].mean(),
                }
            )
    frame = pd.DataFrame(rows)
    first = [c for c in ("teacher", "task") if c in frame.columns]
    return frame[[*first, *[c for c in frame.columns if c not in first]]].fillna(dict.fromkeys(first, ""))


def nothing_to_choose(start: Start) -> int:
    """Questions whose verified answers are one text: every selector takes the same."""
    answers = start.pool.answers
    verified = answers[answers["state"] == "verified"]
    return int((verified.groupby("question_id")["text"].nunique() == 1).sum())
