"""Checking all answers of a run. Each is checked by its question's method: by a program (`verify`) or by a
model (`judge`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from jobs.experiment.judge import Judge
from jobs.files.questions import Question
from jobs.files.refusals import NO_REFERENCE, NotUnderstood
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.views import View
from jobs.stages.judge import JudgeCase, verdicts_of
from jobs.stages.verify import Checked, read_verdicts, settings_config, verdicts_on
from selection.verification import (
    METHODS,
    Case,
    Verdict,
    VerifySettings,
    check_settings,
    judge,
    reads_rows,
    unreadable,
)


@dataclass(frozen=True)
class Checks:
    """How answers are checked, and which model judges those that a program cannot check."""

    verify: VerifySettings
    judge: Judge | None = None

    @property
    def reads_rows(self) -> bool:
        """Whether a check reads the rows of questions."""
        return reads_rows(self.verify)

    def needs_reference(self, method: str = "") -> bool:
        """Whether a question needs a reference to check against."""
        return (method or self.verify.method) not in ("none", "judge", "function")

    def of(self, method: str) -> VerifySettings:
        """The settings of one method."""
        if method == self.verify.method:
            return self.verify
        return replace(self.verify, method=method)  # type: ignore[arg-type]


def check_checks(checks: Checks, questions: Iterable[Question]) -> None:
    """Refuse settings with which answers cannot be checked, before any teacher is asked.

    Raises:
        BadInput: a question's method needs a section that the experiment does not have.
    """
    check_settings(checks.verify)
    for q in questions:
        if q.method == "judge" and checks.judge is None:
            raise BadInput(
                f"question {q.id} needs a judge", "no section judge", "one", "add it, or change the method"
            )
        if q.method == "function" and not checks.verify.function:
            raise BadInput(f"question {q.id} needs a function", "no verify.function", "module:name", "set it")
    verify_config(checks)


@dataclass(frozen=True)
class Checkable:
    """Refuses each question whose answers cannot be checked, before any call is paid for."""

    checks: Checks

    def __call__(self, question: Question) -> None:
        """Check one question.

        Raises:
            NotUnderstood: its method is unknown, or its reference is missing or cannot be read.
        """
        method = question.method or self.checks.verify.method
        if method not in METHODS:
            raise NotUnderstood(f"an unknown method, {method}")
        if not question.references and self.checks.needs_reference(question.method):
            raise NotUnderstood(f"{NO_REFERENCE}, for verify.method {method}")
        if why := unreadable(question.references, self.checks.of(method)):
            raise OddReference(question.id, method, why)


class OddReference(NotUnderstood):
    """A reference that its question's method cannot read."""

    def __init__(self, identity: str, method: str, why: str) -> None:
        super().__init__(f"a reference that verify.method {method} cannot read")
        self.identity, self.method, self.why = identity, method, why

    def stopping(self, where: str) -> BadInput:
        what = f"question {self.identity} has a reference that cannot be read"
        return BadInput(
            what, self.why, f"one that verify.method {self.method} reads", "use verify.method exact"
        )


COMPARED = ("exact", "numeric", "choice")  # methods that compare two texts and run no user code


def true_solutions(
    questions: Sequence[Question], checks: Checks, say: Callable[[str], None]
) -> list[Question]:
    """Remove worked solutions that do not end in their question's reference. Such a solution would be shown
    as right and is wrong. Only questions with method exact, numeric or choice are tested. The references have
    been checked before (`Checkable`).

    Args:
        say: called with one line for the user, if a solution was removed.

    Raises:
        BadInput: no solution ends in its question's reference.
    """
    false = {
        q.id
        for q in questions
        if q.solution
        and q.references
        and (settings := checks.of(q.method or checks.verify.method)).method in COMPARED
        if judge(q.solution, q.references, settings).state != "correct"
    }
    worked = sum(bool(q.solution) for q in questions)
    if false and len(false) == worked:
        raise BadInput(
            "no worked solution ends in its question's reference",
            f"{worked:,} solutions, of question {min(false)} for example",
            "solutions whose result verify.method can read, verify.pattern",
            "look at that question's row",
        )
    if false:
        say(
            f"{len(false):,} of {worked:,} worked solutions do not end in their question's reference, of "
            f"{min(false)} for example: these solutions are not used"
        )
    return [replace(q, solution="") if q.id in false else q for q in questions]


def verify_config(checks: Checks) -> dict[str, Any]:
    """The identity of a way to verify: its settings that differ from the defaults, the source of a user's
    function, and a judge's rubric.
    """
    config = settings_config(checks.verify)
    if checks.judge is not None:
        j = checks.judge
        config["judge"] = [j.name, j.model, j.revision, j.rubric, j.max_new_tokens, j.extra_body]
    return config


@dataclass(frozen=True)
class Told:
    """Answers with their verdicts: columns state and extracted. State is None for answers that cannot be
    checked: failed, empty, or to an unknown question. Method `none` calls every other answer correct.

    Attributes:
        views: the views of verdicts and of the judge's answers.
    """

    answers: pd.DataFrame
    views: list[View]


def check_answers(
    run: Run,
    kind: str,
    what: str,
    label: str,
    checks: Checks,
    answers: pd.DataFrame,
    questions: Mapping[str, Question],
) -> Told:
    """Check all answers, each by the method of its question.

    Args:
        kind: the work as users see it, such as `verdicts on`.
        what: the name of the work that needs the verdicts, for a plan's message.

    Raises:
        Unmade: in a plan, verdicts are not there yet.
    """
    told = answers.assign(state=pd.Series(None, index=answers.index, dtype=object), extracted="")
    by_method = places_by_method(answers, questions, checks.verify.method)
    views = []
    for method, places in sorted(by_method.items()):
        own = answers.loc[places]
        name = label if method == checks.verify.method else f"{label} by {method}"
        if method == "none":
            found = [Verdict("correct", "")] * len(own)
        elif method == "judge":
            found, view = judged_by_model(run, what, name, checks, own, questions)
            views.append(view)
        else:
            given = to_check(own, questions, checks.of(method))
            view = verdicts_on(run, kind, name, checks.of(method), given)
            run.need(what, [view])
            found = read_verdicts(view, given)
            views.append(view)
        told.loc[places, "state"] = [v.state for v in found]
        told.loc[places, "extracted"] = [v.extracted for v in found]
    return Told(told, views)


def places_by_method(
    answers: pd.DataFrame, questions: Mapping[str, Question], usual: str
) -> dict[str, list[Any]]:
    """The positions of the answers to check, by method. Empty answers and answers to unknown questions are
    left out: the ledger gets their state without a check.
    """
    found: dict[str, list[Any]] = {}
    columns = (answers[c].tolist() for c in ("question_id", "text", "tool_calls", "finish"))
    for place, q, text, calls, finish in zip(answers.index, *columns, strict=True):
        if q in questions and finish in ("stop", "length") and (text.strip() or calls):
            found.setdefault(questions[q].method or usual, []).append(place)
    return found


def to_check(
    answers: pd.DataFrame, questions: Mapping[str, Question], settings: VerifySettings
) -> list[Checked]:
    """The checker's input for each of these answers."""
    with_rows = settings.method == "function" and reads_rows(settings)
    keys = {q: question_key(questions[q].prompt) for q in answers["question_id"].unique()}
    columns = [answers[c].tolist() for c in ("question_id", "text", "tool_calls")]
    turns = answers["turns"].tolist() if "turns" in answers else [""] * len(answers)
    return [
        Checked(
            keys[q],
            Case(text, questions[q].references, row_of(questions[q], calls, before) if with_rows else ""),
        )
        for q, text, calls, before in zip(*columns, turns, strict=True)
    ]


def row_of(question: Question, calls: str, turns: str = "") -> str:
    """The row that a user's function gets beside answer and reference: all columns of the question's file,
    its messages, the answer's tool calls, and of an answer of many turns those before its last one.
    """
    row = json.loads(question.row) if question.row else {}
    row |= {"messages": question.prompt.for_template(), "tool_calls": json.loads(calls) if calls else []}
    row |= {"turns": json.loads(turns)} if turns else {}
    return json.dumps(row, ensure_ascii=False, sort_keys=True)


def judged_by_model(
    run: Run,
    what: str,
    label: str,
    checks: Checks,
    answers: pd.DataFrame,
    questions: Mapping[str, Question],
) -> tuple[list[Verdict], View]:
    """The judge's verdict on each of these answers."""
    if checks.judge is None:
        raise RuntimeError("answers need a judge, and there is none")
    columns = (answers[c] for c in ("question_id", "text", "tool_calls"))
    cases = [
        JudgeCase(questions[q].prompt, questions[q].references, text, calls)
        for q, text, calls in zip(*columns, strict=True)
    ]
    return verdicts_of(run, what, label, checks.judge, cases)


def pool_states(answers: pd.DataFrame, questions: Mapping[str, Question]) -> pd.DataFrame:
    """All answers with their state before scoring: verified, or the reason why they are not used.

    Args:
        answers: with verdicts.

    Returns:
        The same answers, ordered by question, teacher and sample. If several verified answers of a teacher to
        one question are the same, the first sample stays verified and the others become `duplicate`. Repeated
        wrong answers stay wrong.
    """
    pool = answers.copy()
    known = pool["question_id"].isin(list(questions))
    pool["state"] = pool["state"].replace({"correct": "verified"})
    pool.loc[(pool["text"].str.strip() == "") & (pool["tool_calls"] == ""), "state"] = "empty"
    pool.loc[pool["finish"] == "failed", "state"] = "failed"
    pool.loc[~known, "state"] = "unknown_question"
    pool.loc[pool["finish"] == "refused", "state"] = "not_understood"
    pool = pool.sort_values(["question_id", "teacher", "sample"]).reset_index(drop=True)
    right = pool["state"] == "verified"
    same = ["question_id", "teacher", "text", "tool_calls", *(["turns"] if "turns" in pool else [])]
    repeated = pool[right].duplicated(same)
    pool.loc[repeated.index[repeated], "state"] = "duplicate"
    lost = pool["state"].isna() | (pool["state"] == "")
    if lost.any():
        raise RuntimeError(f"answer {pool.loc[lost, 'answer_id'].iloc[0]} has no state")
    return pool
