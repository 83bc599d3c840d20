"""Verdicts: what a checker says of an answer against a reference. They belong to the checker's settings,
whoever answered: a text that was checked once is not checked again.
"""

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.metrics import Tally
from cluster.placement import Needs
from jobs.files.questions import Question
from jobs.run.keys import question_key, row_key
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.tables import KEY, Owner, Request, unusual
from jobs.run.views import View
from selection.verification import Verifier, VerifySettings, load_function, process_verifier

VERSION = 1
SHARD_SIZE = 2000
MOST_CHECKERS = 1000  # as many as there are shards, where there is room
VERDICT_COLUMNS = ["state", "extracted"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a checker is given, under the question that it belongs to."""

    question: bytes
    text: str
    reference: str

    @property
    def key(self) -> bytes:
        return row_key(self.question, self.text, self.reference)


class VerifyHandler:
    """Handler in an actor: keeps one checking process, which ends what runs too long and survives what
    dies.
    """

    def __init__(self, settings: VerifySettings) -> None:
        self.verifier = process_verifier(settings)
        self.fallbacks: dict[str, str] = {}

    def give_up(self, answer: Checked, reason: str) -> pd.DataFrame:
        return pd.DataFrame([("checker_error", reason)], columns=VERDICT_COLUMNS)

    def compute(self, answers: Sequence[Checked]) -> pd.DataFrame:
        verdicts = self.verifier.check_all((a.text, a.reference) for a in answers)
        return pd.DataFrame([(v.state, v.extracted) for v in verdicts], columns=VERDICT_COLUMNS)

    def tally(self, table: pd.DataFrame) -> Tally:
        return Tally(len(table), quarantined=int(table["state"].isin(["timed_out", "checker_error"]).sum()))


def check_verifier(settings: VerifySettings) -> None:
    """Refuse settings that no answer could be checked with, before any teacher is asked."""
    Verifier(settings).close()
    verify_config(settings)


def verify_config(settings: VerifySettings) -> dict[str, Any]:
    """The identity of a way to verify: what is unusual in it; a user's function counts with its module's
    source.
    """
    config = unusual(asdict(settings), asdict(VerifySettings()))
    if settings.method == "function" and settings.function:
        source = inspect.getsourcefile(load_function(settings.function))
        config["source"] = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    return config


def owner_of(settings: VerifySettings) -> Owner:
    """Whose verdicts these are: the checker's, under its settings."""
    about = {"name": "the checker", **asdict(settings)}
    return Owner("verdicts", VERSION, verify_config(settings), about)


def verdicts_on(run: Run, kind: str, label: str, settings: VerifySettings, given: Iterable[Checked]) -> View:
    """Have answers checked that nobody has checked yet.

    Args:
        kind: what it is for: verify, or evaluate.
    """
    request = Request({checked.key: checked for checked in given})
    view = run.view(owner_of(settings), request)
    want = Want(
        kind,
        label,
        view,
        partial(VerifyHandler, settings),
        SHARD_SIZE,
        MOST_CHECKERS,
        Needs(1.0),
        VERDICT_COLUMNS,
        count_verdicts,
        place="one actor a part",
        estimate=lambda left: f"{len(left):,} answers",
    )
    make_rows(run, [want], "answers")
    return view


def count_verdicts(verdicts: pd.DataFrame) -> dict[str, int]:
    """What a view says of verdicts: how many, and how many of each state."""
    return {
        "answers": len(verdicts),
        **{str(k): int(v) for k, v in verdicts["state"].value_counts().items()},
    }


def to_check(answers: pd.DataFrame, questions: Mapping[str, Question]) -> list[Checked | None]:
    """What a checker is given of each answer; None where there is nothing to check: no text, or a question
    that is not ours. Those get their state in the ledger without a check.
    """
    keys = {q.id: question_key(q.text, q.system) for q in questions.values()}
    columns = zip(answers["question_id"], answers["text"], answers["finish"], strict=True)
    return [
        Checked(keys[q], text, questions[q].reference)
        if q in keys and finish != "failed" and text.strip()
        else None
        for q, text, finish in columns
    ]


def with_verdicts(answers: pd.DataFrame, checked: Sequence[Checked | None], verdicts: View) -> pd.DataFrame:
    """Answers with what their checks said: columns state and extracted, empty where nothing was checked."""
    rows = verdicts.read()
    by_key = {row[KEY]: (row["state"], row["extracted"]) for row in rows.to_dict("records")}
    told = [(None, "") if c is None else by_key[c.key] for c in checked]
    states = pd.Series([s for s, _ in told], index=answers.index, dtype=object)
    return answers.assign(state=states, extracted=[e for _, e in told])


def pool_states(answers: pd.DataFrame, questions: Mapping[str, Question]) -> pd.DataFrame:
    """All answers with their state before scoring: verified, or the name of what ended them.

    Args:
        answers: with verdicts.

    Returns:
        The same, ordered by question, teacher and sample. Of answers to one question with the same text from
        the same teacher, the first sample stays and the others are `duplicate`.
    """
    pool = answers.copy()
    known = pool["question_id"].isin(list(questions))
    pool["state"] = pool["state"].replace({"correct": "verified"})
    pool.loc[pool["text"].str.strip() == "", "state"] = "empty"
    pool.loc[pool["finish"] == "failed", "state"] = "failed"
    pool.loc[~known, "state"] = "unknown_question"
    pool = pool.sort_values(["question_id", "teacher", "sample"]).reset_index(drop=True)
    right = pool["state"] == "verified"
    repeated = pool[right].duplicated(["question_id", "teacher", "text"])
    pool.loc[repeated.index[repeated], "state"] = "duplicate"
    if pool["state"].isna().any():
        raise RuntimeError(f"answer {pool.loc[pool['state'].isna(), 'answer_id'].iloc[0]} has no state")
    return pool
