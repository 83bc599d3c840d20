"""Stage verify: a verdict for every answer; answers and verdicts together are the pool."""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.metrics import Tally
from cluster.placement import Needs
from jobs.files.questions import Question
from jobs.run.rows import Shards, Want, make_rows
from jobs.run.run import Run
from jobs.run.store import Stage, Store, digest_rows
from selection.verification import Verifier, VerifySettings, load_function, process_verifier

VERSION = 1
SHARD_SIZE = 2000
MOST_CHECKERS = 1000  # as many as there are shards, where there is room
VERDICT_COLUMNS = ["answer_id", "state", "extracted"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a checker is given: an answer's text, and the reference it is compared with."""

    answer_id: str
    text: str
    reference: str


class VerifyHandler:
    """Handler in an actor: keeps one checking process, which ends what runs too long and survives what
    dies.
    """

    def __init__(self, settings: VerifySettings) -> None:
        self.verifier = process_verifier(settings)
        self.fallbacks: dict[str, str] = {}

    def identity(self, answer: Checked) -> str:
        return answer.answer_id

    def give_up(self, answer: Checked, reason: str) -> pd.DataFrame:
        return pd.DataFrame([(answer.answer_id, "checker_error", reason)], columns=VERDICT_COLUMNS)

    def compute(self, answers: Sequence[Checked]) -> pd.DataFrame:
        verdicts = self.verifier.check_all((a.text, a.reference) for a in answers)
        rows = [(a.answer_id, v.state, v.extracted) for a, v in zip(answers, verdicts, strict=True)]
        return pd.DataFrame(rows, columns=VERDICT_COLUMNS)

    def tally(self, table: pd.DataFrame) -> Tally:
        return Tally(len(table), quarantined=int(table["state"].isin(["timed_out", "checker_error"]).sum()))


def check_verifier(settings: VerifySettings) -> None:
    """Refuse settings that no answer could be checked with, before any teacher is asked."""
    Verifier(settings).close()
    verify_config(settings)


def verify_config(settings: VerifySettings) -> dict[str, Any]:
    """The identity of a way to verify; a user's function counts with its module's source."""
    config = asdict(settings)
    if settings.method == "function" and settings.function:
        source = inspect.getsourcefile(load_function(settings.function))
        config["source"] = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    return config


def references_id(questions: Mapping[str, Question]) -> str:
    """Identify the references of all questions."""
    return digest_rows((q.id, q.reference) for q in sorted(questions.values(), key=lambda q: q.id))


def verify_stage(store: Store, settings: VerifySettings, answers: Stage, references: str) -> Stage:
    """The stage that holds the verdicts on these answers against the references of this id."""
    inputs = {"answers": answers.id, "references": references}
    return store.stage("verify", VERSION, verify_config(settings), inputs)


def needs_check(answers: pd.DataFrame, questions: Mapping[str, Question]) -> pd.DataFrame:
    """The answers that have a text and a known question; the others get their state in the ledger without a
    check.
    """
    kept = (
        answers["question_id"].isin(list(questions))
        & (answers["finish"] != "failed")
        & (answers["text"].str.strip() != "")
    )
    return answers[kept]


def verify_answers(
    run: Run, settings: VerifySettings, answered: Mapping[str, Stage], questions: Mapping[str, Question]
) -> dict[str, Stage]:
    """Verify the answers of finished generate stages (name -> stage); returns name -> verify stage."""
    references = references_id(questions)
    stages = {
        name: verify_stage(run.store, settings, source, references) for name, source in answered.items()
    }
    handler = partial(VerifyHandler, settings)
    wants = [
        Want(
            name,
            stage,
            partial(shards_of_answers, answered[name], questions),
            handler,
            MOST_CHECKERS,
            Needs(1.0),
            VERDICT_COLUMNS,
            count_verdicts,
            place="one actor per teacher's answers",
        )
        for name, stage in stages.items()
    ]
    make_rows(run, wants, "answers")
    return stages


def shards_of_answers(answered: Stage, questions: Mapping[str, Question]) -> Shards:
    """The answers of a stage that need a check."""
    answers = needs_check(answered.read(), questions)
    columns = zip(answers["answer_id"], answers["text"], answers["question_id"], strict=True)
    rows = [Checked(a, t, questions[q].reference) for a, t, q in columns]
    starts = range(0, len(rows), SHARD_SIZE)
    return [(f"{k:06d}", rows[i : i + SHARD_SIZE]) for k, i in enumerate(starts)]


def count_verdicts(verdicts: pd.DataFrame) -> dict[str, int]:
    """What the manifest says of verdicts: how many, and how many of each state."""
    return {
        "answers": len(verdicts),
        **{str(k): int(v) for k, v in verdicts["state"].value_counts().items()},
    }


def join_pool(
    answered: Sequence[Stage], verified: Sequence[Stage], questions: Mapping[str, Question]
) -> pd.DataFrame:
    """All answers with their state before scoring: verified, or the name of what ended them.

    Returns:
        The answers' columns plus `state` and `extracted`, ordered by answer id. Of answers to one question
        with the same text from the same teacher, the first sample stays and the others are `duplicate`.
    """
    answers = pd.concat([s.read() for s in answered], ignore_index=True)
    by_failure = answers.assign(failed=answers["finish"] == "failed").sort_values(
        "failed", ascending=False, kind="stable"
    )
    # a failed call that was asked again counts once
    answers = by_failure.drop_duplicates("answer_id", keep="last").drop(columns="failed")
    verdicts = pd.concat(
        [pd.DataFrame(columns=VERDICT_COLUMNS), *[s.read() for s in verified]], ignore_index=True
    )
    pool = answers.merge(verdicts, on="answer_id", how="left", validate="one_to_one")
    pool["extracted"] = pool["extracted"].fillna("")
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
