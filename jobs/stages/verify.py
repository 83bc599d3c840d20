"""Stage verify: a verdict for every answer; answers and verdicts together are the pool."""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.metrics import Tally
from cluster.placement import Needs
from cluster.pool import Job
from cluster.storage import Place
from jobs.files.datasets import Question
from jobs.run.context import Context
from jobs.run.store import Stage, digest_rows, write_table
from selection.verification import Verifier, VerifySettings, load_function, process_verifier

VERSION = 1
SHARD_SIZE = 2000
VERDICT_COLUMNS = ["answer_id", "state", "extracted"]


class VerifyHandler:
    """Handler in an actor: keeps one checking process and writes each shard's verdicts to the part it is
    told.
    """

    def __init__(self, settings: VerifySettings) -> None:
        self.verifier = process_verifier(settings)

    def __call__(self, shard: tuple[str, list[tuple[str, str, str]]]) -> Tally:
        part, rows = shard
        verdicts = self.verifier.check_all((text, reference) for _, text, reference in rows)
        table = [(identity, v.state, v.extracted) for (identity, _, _), v in zip(rows, verdicts, strict=True)]
        write_table(Place(part), pd.DataFrame(table, columns=VERDICT_COLUMNS))
        return Tally(len(rows), quarantined=sum(v.state in ("timed_out", "checker_error") for v in verdicts))


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


def verify_stage(context: Context, answers: Stage, references: str) -> Stage:
    """The stage that holds the verdicts on these answers against the references of this id."""
    inputs = {"answers": answers.id, "references": references}
    return context.store.stage("verify", VERSION, verify_config(context.experiment.verify), inputs)


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
    context: Context, answered: Mapping[str, Stage], questions: Mapping[str, Question]
) -> dict[str, Stage]:
    """Verify the answers of finished generate stages (name -> stage); returns name -> verify stage."""
    settings, references = context.experiment.verify, references_id(questions)
    stages = {
        name: context.note(f"verify {name}", verify_stage(context, source, references))
        for name, source in answered.items()
    }
    with context.claimed(stages.values()):
        _verify_missing(context, settings, stages, answered, questions)
    return stages


def _verify_missing(
    context: Context,
    settings: VerifySettings,
    stages: Mapping[str, Stage],
    answered: Mapping[str, Stage],
    questions: Mapping[str, Question],
) -> None:
    """Run what is missing of these stages and finish them."""
    parts: dict[str, list[str]] = {}
    todo: list[tuple[str, tuple[str, list[tuple[str, str, str]]]]] = []
    for label, stage in stages.items():
        if stage.is_finished:
            continue
        answers = needs_check(answered[label].read(), questions)
        columns = zip(answers["answer_id"], answers["text"], answers["question_id"], strict=True)
        rows = [(a, t, questions[q].reference) for a, t, q in columns]
        shards = [
            (f"{k:06d}", rows[i : i + SHARD_SIZE]) for k, i in enumerate(range(0, len(rows), SHARD_SIZE))
        ]
        parts[label] = [name for name, _ in shards]
        todo += [
            (f"{label} {name}", (str(stage.part(name)), chunk))
            for name, chunk in shards
            if not stage.has(name)
        ]
    if todo:
        job = Job("verify", partial(VerifyHandler, settings), todo, len(todo), Needs(1.0))
        with context.talker.bar("verify", sum(len(chunk) for _, (_, chunk) in todo), "answers") as bar:
            for result in context.host.pool.run([job]):
                bar.advance(result.value.items)
    for label, names in parts.items():
        verdicts = (
            pd.concat([stages[label].read(n) for n in names], ignore_index=True)
            if names
            else pd.DataFrame(columns=VERDICT_COLUMNS)
        )
        stages[label].finish(
            names,
            answers=len(verdicts),
            **{str(k): int(v) for k, v in verdicts["state"].value_counts().items()},
        )


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
