"""`tutelage replay`: one answer of a finished run once more through verification, rendering and scoring, in this process.

The command that the report names beside each row in quarantine. What a stage recorded and what it says now stand side by side.
"""

from collections.abc import Iterator

import pandas as pd

from cluster.errors import BadInput
from cluster.loading import load_model
from jobs.context import Context
from jobs.pipeline import Outcome
from jobs.score import Row, StudentState, first_state, score_rows
from selection.statistics import STATISTIC_NAMES, Scorer
from selection.verification import Verifier

FAILED_STATES = ("failed", "timed_out", "checker_error", "quarantined", "unrenderable", "too_long")


def replay_answer(context: Context, outcome: Outcome, answer: str, number: int = 1) -> Iterator[str]:
    """Yield a line for the verdict and one for every student's scoring of an answer in one round.

    Raises:
        BadInput: the run has no such answer.
    """
    found = outcome.pool.answers[outcome.pool.answers["answer_id"] == answer]
    if found.empty:
        near = outcome.pool.answers["answer_id"].iloc[0] if len(outcome.pool.answers) else "none"
        raise BadInput("the run has no such answer", answer, f"an id such as {near}", "the report and the ledger name them")
    row = found.iloc[0]
    question = outcome.questions.get(str(row["question_id"]))
    yield f"recorded: {row['state']}" + (f", {row['error']}" if row["error"] else "")
    if question is None or row["finish"] == "failed" or not str(row["text"]).strip():
        return
    with Verifier(context.experiment.verify) as verifier:
        verdict = verifier.check(row["text"], question.reference)
    yield f"verify: {verdict.state}, extracted {verdict.extracted!r}, reference {question.reference!r}"
    asked = Row(answer, question.id, str(row["teacher"]), question.text, str(row["text"]), question.system)
    seen: set[str] = set()
    for path in outcome.paths:
        stage = outcome.scores.get((path.label, number))
        if stage is None or stage.id in seen:
            continue
        seen.add(stage.id)
        table = stage.read()
        recorded = table[table["answer_id"] == answer]
        state = student_of(context, outcome, path.label, path.student, number, stage.inputs["student"])
        yield f"score under {state.name} {state.id[:8]}: recorded {describe(recorded)}"
        yield f"score under {state.name} {state.id[:8]}: now      {describe(score_one(context, state, asked))}"


def student_of(context: Context, outcome: Outcome, label: str, name: str, number: int, identity: str) -> StudentState:
    """The student that scored: its first state, or the one that the round before trained."""
    state = first_state(next(s for s in context.experiment.students if s.name == name))
    return state if state.id == identity else state.after(context.stages[f"train {label} round {number - 1}"])


def score_one(context: Context, state: StudentState, row: Row) -> pd.DataFrame:
    """Score one answer in this process, on the CPU."""
    renderer, settings = state.renderer(), context.experiment.score
    scorer = Scorer(load_model(state.source), renderer.special_ids, settings.target_layer, settings.token_budget)
    return score_rows([row], renderer, scorer, settings.max_length)


def describe(scores: pd.DataFrame) -> str:
    """A score row in words."""
    if scores.empty:
        return "not scored: it was not verified"
    row = scores.iloc[0]
    if row["state"] != "scored":
        return f"{row['state']}: {row['reason']}"
    return "scored, " + ", ".join(f"{name} {row[name]:.6g}" for name in STATISTIC_NAMES[:4])


def quarantine(outcome: Outcome) -> pd.DataFrame:
    """Every answer that ended in a named failure instead of a verdict or a cost, with its reason."""
    answers = outcome.pool.answers
    bad = answers[answers["state"].isin(FAILED_STATES)]
    rows = [(str(r.answer_id), "generate" if r.state == "failed" else "verify", str(r.state), str(r.error), 1) for r in bad.itertuples()]
    seen: set[str] = set()
    for (_, number), stage in outcome.scores.items():
        if stage.id not in seen:
            seen.add(stage.id)
            scores = stage.read()
            failed = scores[scores["state"].isin(FAILED_STATES)]
            rows += [(str(r.answer_id), "score", str(r.state), str(r.reason), number) for r in failed.itertuples()]
    table = pd.DataFrame(rows, columns=["answer", "stage", "state", "reason", "round"])
    return table.drop_duplicates(["answer", "stage", "state", "reason"], ignore_index=True)
