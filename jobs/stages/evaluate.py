"""Evaluation. Either a student is asked the held-out questions and its answers are verified like a teacher's.
Or its loss on worked reference answers is taken from its statistics.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from cluster.placement import Needs
from jobs.experiment.placement import Placement
from jobs.experiment.stages import Evaluate, Score
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.run.keys import question_key
from jobs.run.rows import make_rows
from jobs.run.run import Planned, Run
from jobs.run.store import Stage, Store, digest, write_table
from jobs.run.tables import Request
from jobs.run.views import View
from jobs.stages.answers import answers_to, asks_of, ids_by_key, request_of
from jobs.stages.ask import Hosted, Wave, ask
from jobs.stages.check import Checks, check_answers, verify_config
from jobs.stages.hosted import Draw
from jobs.stages.judge import JUDGE_FAILED
from jobs.stages.score import Scores, owner_of, statistics_wanted
from jobs.stages.scorer import key_of
from jobs.stages.states import ModelState
from jobs.stages.train import bring_back
from selection.parts import VERSION as PARTS_VERSION
from selection.parts import parts_of

VERSION = 2
COLUMNS = ["question_id", "family", "state", "value", "text", "extracted", "tokens", "cut_off"]


@dataclass(frozen=True)
class Judging:
    """How students are judged: the measure, how their answers are checked, how losses are read."""

    evaluate: Evaluate
    checks: Checks
    score: Score
    seed: int

    @property
    def draw(self) -> Draw:
        """How a student's answers are drawn."""
        e = self.evaluate
        return Draw(e.temperature, 1.0, e.max_new_tokens, self.seed)

    def identity(self) -> dict[str, Any]:
        """What results depend on besides the student and the questions."""
        e = self.evaluate
        if e.metric == "loss":
            parts = {} if e.loss_on is None else {"loss_on": [PARTS_VERSION, e.loss_on]}
            return {"metric": "loss", "max_length": self.score.max_length, **parts}
        verify = verify_config(self.checks)
        draw = self.draw.identity()
        return {"metric": e.metric, "limit": e.max_new_tokens, "samples": e.samples, **draw, "verify": verify}


def evaluate_stage(
    store: Store, judging: Judging, student: ModelState, questions: Sequence[Question]
) -> Stage:
    """The stage that holds a student's results on these questions: `value` is the share of its samples that
    are right, or minus the loss in nats per answer token. Higher is better.
    """
    engine = student.engine if judging.evaluate.metric == "accuracy" else {}
    config = {**judging.identity(), **engine, "rendering": student.rendering}
    content = digest([content_of(q) for q in questions])
    return store.stage("evaluate", VERSION, config, {"student": student.id, "questions": content})


def content_of(question: Question) -> list[Any]:
    """What a question's result depends on besides the student."""
    q = question
    plain = [q.id, q.text, q.reference, q.prompt.system, q.family]
    if q.prompt.is_plain and len(q.references) < 2 and not q.method and not q.row:
        return plain
    return [*plain, question_key(q.prompt).hex(), q.references, q.method, q.row]


def evaluate_students(
    run: Run,
    students: Mapping[str, ModelState],
    questions: Sequence[Question],
    judging: Judging,
    placement: Placement,
    planned_as: str = "evaluate",
) -> dict[str, Stage]:
    """Evaluate students (label -> state) on held-out questions; returns label -> stage.

    Args:
        planned_as: the name of this work in a plan. A plan adds up all work that is named `evaluate`.
    """
    stages = {label: evaluate_stage(run.store, judging, s, questions) for label, s in students.items()}
    for label, stage in stages.items():
        if run.retry_failed and stage.is_finished and stage.manifest()["counts"].get("unjudged"):
            stage.reopen()
        run.note("evaluate", label, stage)
    # if several labels have the same student, the first one is used
    distinct = {stage.id: label for label, stage in reversed(stages.items()) if not stage.is_finished}
    left = {label: students[label] for label in students if label in distinct.values()}
    rows = _own_rows(questions, judging)
    lacking = {label: len(_own_view(run, s, rows, judging).missing()) for label, s in left.items()}
    bring_back(run, [s for label, s in left.items() if lacking[label]], placement)
    if run.mode == "plan":
        place = f"{placement.evaluate_workers} × ({placement.needs})"
        run.planned += [
            Planned(planned_as, n, None if s.is_finished else lacking.get(n, 0), place)
            for n, s in stages.items()
        ]
        return stages
    with run.claimed(stages[label] for label in left):
        still = {label: s for label, s in left.items() if not stages[label].is_finished}
        judge = _losses if judging.evaluate.metric == "loss" else _verdicts
        for label, results in judge(run, still, questions, judging, placement).items():
            finish_evaluation(stages[label], questions, results)
    return stages


def _own_rows(questions: Sequence[Question], judging: Judging) -> Request:
    """The request that evaluation makes for every student: answers, or statistics of the references."""
    if judging.evaluate.metric == "loss":
        return Request({key_of(row): row for row in _references(questions)})
    return request_of(asks_of(questions, range(judging.evaluate.samples)))


def _references(questions: Sequence[Question]) -> list[Row]:
    return [Row(q.id, q.id, "", q.prompt, q.reference) for q in questions]


def parts_line(questions: Sequence[Question], pattern: str) -> str:
    """What losses are taken over, in words.

    Raises:
        BadInput: no reference has a part that the pattern matches.
    """
    compiled = re.compile(pattern)
    matched = [q for q in questions if parts_of(q.reference, compiled)]
    if not matched:
        first = next((q.reference for q in questions), "")
        raise BadInput("evaluate.loss_on matches no reference", repr(first[:80]), "a part of one", pattern)
    left = "" if len(matched) == len(questions) else "; the others are left out"
    return (
        f"losses are taken over what evaluate.loss_on matches ({pattern}), in {len(matched):,} of "
        f"{len(questions):,} references{left}"
    )


def _own_view(run: Run, student: ModelState, rows: Request, judging: Judging) -> View:
    if judging.evaluate.metric == "loss":
        return run.view(owner_of(student, judging.score, judging.evaluate.loss_on), rows)
    return Wave(Hosted(student, 1, Needs()), judging.draw, rows).view(run)


@dataclass(frozen=True)
class StudentResults:
    """One student's results, one row for each question, and the views that they were read from."""

    table: pd.DataFrame
    views: Sequence[View]


def finish_evaluation(stage: Stage, questions: Sequence[Question], results: StudentResults) -> None:
    """Write the results of one student, in the order of the questions."""
    families = {q.id: q.family for q in questions}
    table = results.table.set_index("question_id").loc[[q.id for q in questions]].reset_index()
    table = table.assign(family=table["question_id"].map(families))[COLUMNS]
    write_table(stage.part("results"), table)
    value, cut_off = float(table["value"].mean()), float(table["cut_off"].sum())
    uses = [view.path for view in results.views]
    unjudged = int(table["extracted"].str.startswith(JUDGE_FAILED).sum())
    told = {"value": value, "cut_off": cut_off, "unjudged": unjudged}
    stage.finish(["results"], uses=uses, questions=len(table), **told)  # type: ignore[arg-type]


def _verdicts(
    run: Run,
    students: Mapping[str, ModelState],
    questions: Sequence[Question],
    judging: Judging,
    placement: Placement,
) -> dict[str, StudentResults]:
    """The shares of right answers, question by question."""
    if not students:
        return {}
    # with many students each student gets one worker, so that it is loaded once
    workers = 1 if len(students) >= placement.evaluate_workers else placement.evaluate_workers
    rows = _own_rows(questions, judging)
    waves = {
        label: Wave(Hosted(state, workers, placement.needs), judging.draw, rows)
        for label, state in students.items()
    }
    views = ask(run, "answers of", waves, judging.evaluate.shard_size)
    return judge_answers(run, views, ids_by_key(questions), questions, judging)


def judge_answers(
    run: Run,
    views: Mapping[str, View],
    ids: Mapping[bytes, list[str]],
    questions: Sequence[Question],
    judging: Judging,
) -> dict[str, StudentResults]:
    """Verify students' answers, and take the share of right ones question by question.

    Args:
        views: the finished views of answers by label, at least one.
        ids: the ids of the questions by the keys that they were asked under.
    """
    by_id = {q.id: q for q in questions}
    tables = [answers_to(view.read(), ids).assign(label=name) for name, view in views.items()]
    answers = pd.concat(tables, ignore_index=True)
    first, *others = views
    label = f"{first} and {len(others)} more" if others else first
    checked = check_answers(run, "verdicts on", label, label, judging.checks, answers, by_id)
    told = checked.answers
    # if a judge failed there is no value, as if the student had not answered
    unjudged = (told["state"] == "checker_error") & told["extracted"].str.startswith(JUDGE_FAILED)
    told["value"] = (told["state"] == "correct").astype(float).where((told["finish"] != "failed") & ~unjudged)
    told["state"] = told["state"].where(told["finish"] != "failed", "failed").fillna("empty")
    told["extracted"] = told["extracted"].where(told["finish"] != "failed", told["error"])
    told["cut_off"] = (told["finish"] == "length").astype(float)
    return {
        str(n): StudentResults(_by_question(own), (views[str(n)], *checked.views))
        for n, own in told.groupby("label")
    }


def _by_question(answers: pd.DataFrame) -> pd.DataFrame:
    """One row for each question: means over its samples, and the text of the first sample."""
    ordered = answers.sort_values(["question_id", "sample"]).rename(columns={"answer_tokens": "tokens"})
    groups = ordered.groupby("question_id")
    first = groups[["state", "text", "extracted"]].first()
    return first.join(groups[["value", "tokens", "cut_off"]].mean()).reset_index()


def _losses(
    run: Run,
    students: Mapping[str, ModelState],
    questions: Sequence[Question],
    judging: Judging,
    placement: Placement,
) -> dict[str, StudentResults]:
    """The losses on the reference answers, or on parts of them, question by question."""
    rows = _own_rows(questions, judging)
    references, parts = _references(questions), judging.evaluate.loss_on
    views = {label: _own_view(run, state, rows, judging) for label, state in students.items()}
    make_rows(
        run,
        [
            statistics_wanted("losses of", label, views[label], state, judging.score, placement, parts)
            for label, state in students.items()
        ],
        "questions",
    )
    return {
        label: StudentResults(_loss_table(Scores(view, references).read()), (view,))
        for label, view in views.items()
    }


def _loss_table(scores: pd.DataFrame) -> pd.DataFrame:
    is_scored = scores["state"] == "scored"
    loss = scores["answer_loss"] / scores["n_answer"].where(is_scored, 1)
    return pd.DataFrame(
        {
            "question_id": scores["question_id"],
            "state": scores["state"],
            "value": (-loss).where(is_scored),
            "text": "",
            "extracted": scores["reason"],
            "tokens": scores["n_answer"],
            "cut_off": 0.0,
        }
    )
