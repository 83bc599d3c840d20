"""Gathering: the answers of all teachers to the questions of a slice in one table, with the keys for
checking, scoring and choosing them. Then their verdicts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from jobs.files.questions import Question
from jobs.run.keys import answer_key, question_key
from jobs.run.run import Run
from jobs.run.slices import Made, Sliced, joined, make_slices
from jobs.run.store import digest
from jobs.run.tables import Request, SlicedRequest, request_by_slice
from jobs.run.views import Finished, View
from jobs.stages.answer_files import Taken
from jobs.stages.answers import Ask, answers_to, asks_of, ids_by_key
from jobs.stages.check import Checks, places_by_method, to_check, verify_config
from jobs.stages.judge import JudgeCase, asked_of, judge_requested, said_by_judge
from jobs.stages.questions import read_slice
from jobs.stages.verify import Checked, said_by_program, verdicts_requested

VERSION = 1
GATHER = "gather"
# the columns of a teacher's answers that a run uses; the others stay in the tables
SAID: Mapping[str, Any] = {
    "text": "",
    "tool_calls": "",
    "finish": "",
    "error": "",
    "answer_tokens": 0,
    "usd": 0.0,
}
TURNS = "turns"  # a further column, of slices with answers of many turns: those before the last one, as JSON


@dataclass(frozen=True)
class Said:
    """The answers of a teacher that was asked, for workers to read.

    Attributes:
        id: the view's id.
        system: the teacher's own system text, added to each question.
        only: the ids of the questions that it was asked, if it was not asked all.
    """

    teacher: str
    id: str
    view: Finished
    samples: tuple[int, ...]
    system: str | None = None
    only: frozenset[str] | None = None

    def read(self, questions: Mapping[str, Question]) -> pd.DataFrame:
        """Read the answers to these questions."""
        asked = [q for q in questions.values() if self.only is None or q.id in self.only]
        keys = [ask.key for ask in asks_of(asked, self.samples, self.system)]
        return answers_to(self.view.rows(keys, list(SAID)), ids_by_key(asked, self.system))


Source = Taken | Said


@dataclass(frozen=True)
class Gather:
    """Runs in a worker. Gathers a slice's answers, ordered by question, teacher and sample."""

    questions: Sliced
    sources: Sequence[Source]
    checks: Checks

    def __call__(self, number: int) -> Made:
        questions = read_slice(self.questions, number)
        frames = [_of_source(source, number, questions) for source in self.sources]
        blank = pd.DataFrame(columns=["question_id", "teacher", "sample", *SAID, TURNS])
        answers = joined(frames or [blank])
        answers = answers.sort_values(["question_id", "teacher", "sample"], ignore_index=True)
        refuse_twice(answers)
        names = (answers[c].tolist() for c in ("teacher", "question_id", "sample"))
        answers["answer_id"] = [f"{t}/{q}/{sample}" for t, q, sample in zip(*names, strict=True)]
        keys = {q.id: question_key(q.prompt) for q in questions.values()}
        said = (answers[c].tolist() for c in ("question_id", "text", "tool_calls", TURNS))
        answers["answer_key"] = [
            answer_key(keys[q], *what).hex() if q in keys else "" for q, *what in zip(*said, strict=True)
        ]
        answers["method"], answers["check_key"] = "", b""
        by_method = {}
        for method, places in places_by_method(answers, questions, self.checks.verify.method).items():
            own = answers.loc[places]
            given = [one.key for one in to_be_checked(own, questions, self.checks, method)]
            given = given or [b""] * len(own)
            answers.loc[places, "method"] = method
            answers.loc[places, "check_key"] = pd.Series(given, index=own.index, dtype=object)
            by_method[method] = digest(sorted({key.hex() for key in given}))
        rows = {method: int((answers["method"] == method).sum()) for method in by_method}
        counts = {"answers": len(answers), "keys": by_method, "rows": rows}
        if many := int((answers[TURNS] != "").sum()):
            return Made({GATHER: answers}, {**counts, TURNS: many})
        return Made({GATHER: answers.drop(columns=TURNS)}, counts)


def _of_source(source: Source, number: int, questions: Mapping[str, Question]) -> pd.DataFrame:
    """One teacher's answers in a slice, with the columns that all teachers share."""
    found = source.read(number) if isinstance(source, Taken) else source.read(questions)
    missing = {name: value for name, value in [*SAID.items(), (TURNS, "")] if name not in found}
    found = found.assign(teacher=source.teacher, **missing)
    return found[["question_id", "teacher", "sample", *SAID, TURNS]]


def refuse_twice(answers: pd.DataFrame) -> None:
    """Refuse two answers of a teacher to one question with the same sample number.

    Raises:
        BadInput: there are such answers. Names the question.
    """
    twice = answers.duplicated(["question_id", "teacher", "sample"])
    if twice.any():
        row = answers[twice].iloc[0]
        raise BadInput(
            f"{row['teacher']} has two answers with one sample number to a question",
            row["question_id"],
            "one id for each question",
            "",
        )


def to_be_checked(
    answers: pd.DataFrame, questions: Mapping[str, Question], checks: Checks, method: str
) -> Sequence[Checked | Ask]:
    """The input of a check by this method, for each of these answers. Empty for the method `none`."""
    if method == "none":
        return []
    if method != "judge":
        return to_check(answers, questions, checks.of(method))
    if checks.judge is None:
        raise RuntimeError("answers need a judge, and there is none")
    columns = (answers[c].tolist() for c in ("question_id", "text", "tool_calls"))
    cases = (
        JudgeCase(questions[q].prompt, questions[q].references, *said)
        for q, *said in zip(*columns, strict=True)
    )
    return [asked_of(checks.judge, case) for case in cases]


@dataclass(frozen=True)
class ToCheck:
    """The answers that one method checks, slice by slice."""

    questions: Sliced
    gathered: Sliced
    checks: Checks
    method: str

    def keys(self, number: int) -> list[bytes]:
        """The keys of the verdicts, sorted and without duplicates."""
        table = self.gathered.read(GATHER, number, ["method", "check_key"])
        return sorted(set(table["check_key"][table["method"] == self.method].tolist()))

    def items(self, number: int) -> dict[bytes, Any]:
        """The checker's input for each verdict."""
        table = self.gathered.read(GATHER, number)
        own = table[table["method"] == self.method]
        given = to_be_checked(own, read_slice(self.questions, number), self.checks, self.method)
        return dict(zip(own["check_key"].tolist(), given, strict=True))

    def request(self) -> Request | SlicedRequest:
        """The request of all verdicts. A judge's keys are digests of its prompts, so a slice is no range of
        them. This process therefore holds all of a judge's prompts.
        """
        if self.method == "judge":
            each = (self.items(number) for number in range(self.gathered.count))
            return Request({key: item for items in each for key, item in items.items()})
        said = self.gathered.counts()
        return request_by_slice(
            said["keys"][self.method],
            said["rows"][self.method],
            self.gathered.count,
            self.keys,
            self.items,
        )


def gather(run: Run, label: str, questions: Sliced, sources: Sequence[Source], checks: Checks) -> Sliced:
    """Gather the answers of all teachers."""
    inputs = {"questions": questions.stage.id, "checks": digest(verify_config(checks))}
    inputs |= {f"{k} {source.teacher}": id_of(source) for k, source in enumerate(sources)}
    stage = run.store.stage(GATHER, VERSION, {"method": checks.verify.method}, inputs)
    sliced = Sliced(stage, (GATHER,), questions.count)
    return make_slices(run, GATHER, label, sliced, Gather(questions, sources, checks), answers="answers")


def id_of(source: Source) -> str:
    """The identity of a source of answers."""
    if isinstance(source, Taken):
        every = source.stage.id
        return every if source.only is None else digest([every, sorted(source.only)])
    return digest([source.id, source.samples, sorted(source.only or ()), source.system])


def methods_of(gathered: Sliced) -> Iterable[str]:
    """The methods that have answers to check."""
    return sorted(gathered.counts()["rows"])


def check_gathered(
    run: Run, kind: str, what: str, label: str, checks: Checks, questions: Sliced, gathered: Sliced
) -> dict[str, View]:
    """Check gathered answers, each by the method of its question. Returns the views of verdicts by method.

    Args:
        kind: the work as users see it, such as verify or `verdicts on`.
        what: the name of the work that needs the verdicts, for a plan's message.

    Raises:
        Unmade: in a plan, verdicts are not there yet.
    """
    views = {}
    for method in methods_of(gathered):
        name = label if method == checks.verify.method else f"{label} by {method}"
        if method == "none":
            continue
        wanted = ToCheck(questions, gathered, checks, method).request()
        if method == "judge" and checks.judge is not None:
            views[method] = judge_requested(run, what, name, checks.judge, wanted)
        else:
            views[method] = verdicts_requested(run, kind, name, checks.of(method), wanted)
            run.need(what, [views[method]])
    return views


def with_verdicts(answers: pd.DataFrame, verdicts: Mapping[str, Finished]) -> pd.DataFrame:
    """Add verdicts to a slice's gathered answers: columns state and extracted. Both are empty for answers
    that cannot be checked: failed, empty, or to an unknown question. Method `none` calls every other answer
    correct.

    Args:
        verdicts: the views of verdicts by method.
    """
    state, extracted = [""] * len(answers), [""] * len(answers)
    told = {
        method: (said_by_judge if method == "judge" else said_by_program)(
            own.rows(answers["check_key"][answers["method"] == method].tolist())
        )
        for method, own in verdicts.items()
    }
    asked = (answers[c].tolist() for c in ("method", "check_key"))
    for place, (method, key) in enumerate(zip(*asked, strict=True)):
        if method == "none":
            state[place] = "correct"
        elif method:
            verdict = told[method][key]
            state[place], extracted[place] = verdict.state, verdict.extracted
    return answers.assign(state=state, extracted=extracted)
