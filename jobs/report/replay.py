"""`tutelage replay`: repeats verification, rendering and scoring of one answer of a finished run, in this
process.

The report names this command beside each row in quarantine. The output shows the recorded result beside the
new one.
"""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from cluster.errors import BadInput
from cluster.models.loading import load_model
from cluster.models.messages import read_turns
from jobs.experiment.schema import Experiment
from jobs.experiment.stages import Score
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.results.outcome import Outcome, StudentPath
from jobs.stages.check import Checks, row_of
from jobs.stages.pool import AnswerPool
from jobs.stages.scorer import score_rows
from jobs.stages.states import ModelState
from selection.checking import Verifier
from selection.scoring import STATISTIC_NAMES, Scorer
from selection.verification import reads_rows


def replay_answer(outcome: Outcome, answer: str, number: int = 1) -> Iterator[str]:
    """Yield one line for the answer's verdict, and one for each student's scoring of it in one round.

    Raises:
        BadInput: the run has no such answer, or no such round.
    """
    rounds = outcome.start.experiment.rounds
    if not 1 <= number <= rounds:
        raise BadInput("the run has no such round", number, f"1 to {rounds}", "change --round")
    place, row = find_answer(outcome.start.pool, answer)
    question = outcome.start.questions.get(str(row["question_id"]))
    yield f"recorded: {row['state']}" + (f", {row['error']}" if row["error"] else "")
    if (
        question is None
        or row["finish"] not in ("stop", "length")
        or not (row["text"].strip() or row["tool_calls"])
    ):
        return
    yield from check_again(outcome.start.experiment, question, str(row["text"]), str(row["tool_calls"]))
    text, calls, turns = str(row["text"]), str(row["tool_calls"]), read_turns(row["turns"])
    asked = Row(answer, question.id, str(row["teacher"]), question.prompt, text, calls, turns)
    seen: set[str] = set()
    for path in outcome.paths:
        stage = outcome.scores(path, number)
        if stage is None or stage.view.id in seen:
            continue
        seen.add(stage.view.id)
        table = replace(stage, further=()).slice(place)
        recorded = table[table["answer_id"] == answer]
        state = student_of(outcome, path, number, stage.view.table.owner.identity["student"])
        yield f"score under {state.name} {state.id[:8]}: recorded {describe(recorded)}"
        if state.id != outcome.start.students[path.student].id and not state.is_there:
            yield f"score under {state.name} {state.id[:8]}: not now, its weights were removed (keep)"
            continue
        yield from measures_of(outcome, path, number, answer, place)
        now = describe(score_one(outcome.start.experiment.score, state, asked))
        yield f"score under {state.name} {state.id[:8]}: now      {now}"


def measures_of(outcome: Outcome, path: StudentPath, number: int, answer: str, place: int) -> Iterator[str]:
    """Lines about an answer whose measure failed: the recorded reason. The measure itself is not repeated."""
    for other, n, stage, _ in outcome.choices():
        if other.student == path.student and n == number and stage.further:
            table = stage.slice(place)
            own = table[table["answer_id"] == answer]
            if len(own) and own["state"].iloc[0] != "scored":
                yield f"for {other.choosing.cost} ({other.arm.name}): recorded {describe(own)}"


def find_answer(pool: AnswerPool, answer: str) -> tuple[int, pd.Series]:
    """Find an answer. Returns the number of its slice, and its row.

    Raises:
        BadInput: there is no such answer.
    """
    near = "none"
    for number, told in enumerate(pool.each()):
        places = told.index[told["answer_id"] == answer]
        if len(places):
            return number, pool.read(number).loc[places[0]]
        near = str(told["answer_id"].iloc[0]) if len(told) else near
    raise BadInput(
        "the run has no such answer", answer, f"an id such as {near}", "the report and the ledger name them"
    )


def check_again(e: Experiment, question: Question, text: str, calls: str) -> Iterator[str]:
    """Lines about the result of the question's check now. A judge is not asked again."""
    method, references = question.method or e.verify.method, " or ".join(map(repr, question.references))
    if method == "judge":
        yield "verify: by the judge; what it said is in its table of answers"
        return
    settings = Checks(e.verify).of(method)
    row = row_of(question, calls) if method == "function" and reads_rows(settings) else ""
    with Verifier(settings) as verifier:
        verdict = verifier.check(text, question.references, row)
    yield f"verify: {verdict.state}, extracted {verdict.extracted!r}, reference {references or 'none'}"


def student_of(outcome: Outcome, path: StudentPath, number: int, identity: str) -> ModelState:
    """The student that scored the answer: the one before training, or the one after the round before."""
    state, before = outcome.start.students[path.student], outcome.trained(path, number - 1)
    return state if state.id == identity or before is None else state.after(before)


def score_one(settings: Score, state: ModelState, row: Row) -> pd.DataFrame:
    """Score one answer in this process, on the CPU."""
    renderer = state.renderer()
    scorer = Scorer(
        load_model(state.source), renderer.special_ids, settings.target_layer, settings.token_budget
    )
    return score_rows([row], renderer, scorer, settings.max_length, settings.cut)


def describe(scores: pd.DataFrame) -> str:
    """Describe a row of statistics in words."""
    if scores.empty:
        return "not scored: it was not verified"
    row = scores.iloc[0]
    if row["state"] != "scored":
        return f"{row['state']}: {row['reason']}"
    return "scored, " + ", ".join(f"{name} {row[name]:.6g}" for name in STATISTIC_NAMES[:4])
