"""From teachers to a pool. Models and endpoints are asked, files are read. If more right answers are wanted,
teachers are asked again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import EndpointTeacher, FileTeacher, ModelTeacher
from jobs.files.questions import Question, Refused
from jobs.files.rows import guess_rows
from jobs.run.run import Run
from jobs.run.slices import Sliced, Task, do_tasks, slices_for
from jobs.stages.answers import Ask, asks_of, request_of
from jobs.stages.ask import Asked, Wave, ask, ask_again, hosted_teacher
from jobs.stages.check import Checks, to_check
from jobs.stages.gather import Said, Source
from jobs.stages.hosted import Draw
from jobs.stages.judge import Agreement
from jobs.stages.pool import POOL, AnswerPool, verified
from jobs.stages.questions import question_slices, read_slice
from jobs.stages.states import ModelState
from jobs.stages.take import take_files
from jobs.stages.verify import read_verdicts, verdicts_on

TOKENS_OF_ANSWER = 400  # tokens of the limit that count as one answer of the usual length


def build_pool(
    run: Run,
    experiment: Experiment,
    hosted: Mapping[str, ModelState],
    questions: Mapping[str, Question],
    refused: Sequence[Refused] = (),
) -> AnswerPool:
    """Ask all teachers and verify their answers. Ask again if `until_verified` wants more right answers.

    Args:
        hosted: the teachers that this cluster hosts, by name.
        refused: rows that could not be read as questions, for the ledger.

    Raises:
        Unmade: in a plan, answers or verdicts are not there yet.
    """
    e, g = experiment, experiment.generate
    slices = question_slices(run, questions, slices_for(guess_answers(e, len(questions))))
    files = [teacher for teacher in e.teachers if isinstance(teacher, FileTeacher)]
    sources: list[Source] = [*take_files(run, files, slices, e.questions.skip_broken_lines)]
    sources += asked(run, e, hosted, asks_by_teacher(e, questions, range(g.samples)), range(g.samples))
    pool = verified(run, e, sources, slices, "pool")
    for number in range(g.samples, g.max_samples if g.until_verified else 0):
        lacking = still_lacking(run, e, pool, number)
        if not lacking:
            break
        asks = {
            t.name: asks_of([questions[q] for q in lacking[t.name]], [number], t.ask_system)
            for t in e.teachers
            if not isinstance(t, FileTeacher) and t.name in lacking
        }
        only = {name: frozenset(ids) for name, ids in lacking.items()}
        sources += asked(run, e, hosted, asks, range(number, number + 1), only, f" sample {number}")
        pool = verified(run, e, sources, slices, f"pool with sample {number}")
    right = pool.states.counts()["right"]
    accuracy = {t.name: right.get(t.name, 0) / len(questions) for t in e.teachers}
    agreement = judge_agreement(run, e, pool, questions)
    return replace(pool, accuracy=accuracy, refused=refused, agreement=agreement)


def guess_answers(e: Experiment, questions: int) -> int:
    """Estimate the number of answers of some hundred tokens, to cut the run into slices. Files count by their
    size, models and endpoints by their samples and token limits.
    """
    paths = {t.path for t in e.teachers if isinstance(t, FileTeacher)}
    rows = (guess_rows(path) for path in paths)
    askable = sum(not isinstance(t, FileTeacher) for t in e.teachers)
    long = max(1, e.generate.max_new_tokens // TOKENS_OF_ANSWER)
    asked = questions * e.generate.samples * askable * long
    return asked + sum(rows)


def judge_agreement(
    run: Run, e: Experiment, pool: AnswerPool, questions: Mapping[str, Question]
) -> Agreement | None:
    """Compare the judge's verdicts on a sample with those of `judge.check_method`. The sample is the answers
    with the smallest keys, which are digests, to questions with a reference.

    Raises:
        Unmade: in a plan, the sample is still to be checked.
    """
    if e.judge is None or e.judge.check_method is None:
        return None
    sample = pd.DataFrame()
    for number in range(pool.count):
        sample = pd.concat([sample, judged_in(pool.read(number), e, questions)])
        if len(sample) >= e.judge.check_sample:  # later slices have larger keys
            break
    sample = sample.sort_values("answer_key").head(e.judge.check_sample)
    settings = Checks(e.verify).of(e.judge.check_method)
    given = to_check(sample, questions, settings)
    view = verdicts_on(run, "verify", "the judge's sample", settings, given)
    run.need("the pool", [view])
    rights = zip(sample["state"] != "wrong", read_verdicts(view, given), strict=True)
    pairs = [(bool(judge), verdict.state == "correct") for judge, verdict in rights]
    names = {(True, True): "both right", (False, False): "both wrong", (True, False): "judge only"}
    return Agreement(e.judge.check_method, Counter(names.get(pair, "method only") for pair in pairs))


def judged_in(answers: pd.DataFrame, e: Experiment, questions: Mapping[str, Question]) -> pd.DataFrame:
    """Those of the answers that the judge called right or wrong, and whose question has a reference."""
    told = answers[answers["state"].isin(["verified", "duplicate", "wrong"])]
    by_judge = [
        (questions[q].method or e.verify.method) == "judge" and bool(questions[q].references)
        for q in told["question_id"]
    ]
    return told[np.array(by_judge, dtype=bool)]


def asks_by_teacher(e: Experiment, questions: Mapping[str, Question], samples: range) -> dict[str, list[Ask]]:
    """Every question for every teacher that can be asked, with the teacher's own system text."""
    askable = [t for t in e.teachers if not isinstance(t, FileTeacher)]
    told = {
        system: asks_of(questions.values(), samples, system) for system in {t.ask_system for t in askable}
    }
    return {t.name: told[t.ask_system] for t in askable}


def asked(
    run: Run,
    e: Experiment,
    hosted: Mapping[str, ModelState],
    asks: Mapping[str, Sequence[Ask]],
    samples: range,
    only: Mapping[str, frozenset[str]] | None = None,
    suffix: str = "",
) -> list[Said]:
    """The answers of teachers to these asks. Failed calls are asked again with `--retry-failed`.

    Args:
        samples: the numbers of the samples that are asked for.
        only: the ids of the questions that each teacher is asked, if it is not asked all.

    Raises:
        Unmade: in a plan, answers are not there yet.
    """
    g = e.generate
    draw = Draw(g.temperature, g.top_p, g.max_new_tokens, e.seed)
    requests = {id(own): request_of(own) for own in asks.values()}  # usually one request for all teachers
    waves = {}
    for teacher in e.teachers:
        if teacher.name in asks:
            waves[teacher.name] = Wave(who(teacher, hosted), draw, requests[id(asks[teacher.name])])
    views = ask(run, "generate", {name + suffix: wave for name, wave in waves.items()}, g.shard_size)
    views = {n: ask_again(run, n + suffix, wave, g.shard_size) for n, wave in waves.items()}
    run.need("the pool", views.values())
    told = {t.name: t.ask_system for t in e.teachers if not isinstance(t, FileTeacher)}
    return [
        Said(name, view.id, view.finished, tuple(samples), told[name], (only or {}).get(name))
        for name, view in views.items()
    ]


def who(teacher: ModelTeacher | EndpointTeacher | FileTeacher, hosted: Mapping[str, ModelState]) -> Asked:
    """The model or endpoint to ask for a teacher.

    Raises:
        ValueError: it is a file.
    """
    if isinstance(teacher, ModelTeacher):
        return hosted_teacher(teacher, hosted[teacher.name])
    if isinstance(teacher, EndpointTeacher):
        return teacher
    raise ValueError(f"teacher {teacher.name} is a file and cannot be asked")


@dataclass(frozen=True)
class LackingIn:
    """Runs in a worker. Finds the questions of a slice to which teachers have too few right answers."""

    questions: Sliced
    states: Sliced
    teachers: Sequence[str]
    wanted: int

    def __call__(self, number: int) -> dict[str, list[str]]:
        pool = self.states.read(POOL, number, ["question_id", "teacher", "state"])
        right = pool[pool["state"] == "verified"].groupby(["teacher", "question_id"]).size()
        ids = list(read_slice(self.questions, number))
        few = {t: [q for q in ids if right.get((t, q), 0) < self.wanted] for t in self.teachers}
        return {teacher: ids for teacher, ids in few.items() if ids}


def still_lacking(run: Run, e: Experiment, pool: AnswerPool, sample: int) -> dict[str, list[str]]:
    """For each teacher that can be asked, the ids of the questions to which it has too few right answers."""
    askable = [t.name for t in e.teachers if not isinstance(t, FileTeacher)]
    look = LackingIn(pool.questions, pool.states, askable, e.generate.until_verified)
    tasks = [(f"sample {sample}, {k}", Task(look, (k,))) for k in range(pool.count)]
    found = do_tasks(run, "generate", "what is lacking", tasks, pool.count == 1 or run.mode != "make")
    lacking: dict[str, list[str]] = {}
    for name, _ in tasks:
        for teacher, ids in found[name].items():
            lacking.setdefault(teacher, []).extend(ids)
    return lacking
