"""From teachers to a pool. Models and endpoints are asked, files are read. If more right answers are wanted,
teachers are asked again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from jobs.experiment.stages import Generate
from jobs.experiment.teachers import EndpointTeacher, FileTeacher, ModelTeacher, ServerTeacher, Teacher
from jobs.files.questions import Question, Refused
from jobs.files.rows import guess_rows
from jobs.run.run import Run
from jobs.run.slices import Sliced, Task, do_tasks, slices_for
from jobs.run.tables import Owner
from jobs.stages.answer_files import take_files
from jobs.stages.answers import Ask, asks_of, request_of
from jobs.stages.ask import Asked, Hosted, Wave, ask, ask_again, owner_of
from jobs.stages.check import Checks, to_check
from jobs.stages.gather import Said, Source
from jobs.stages.hosted import Draw
from jobs.stages.judge import Agreement
from jobs.stages.pool import POOL, AnswerPool, verified
from jobs.stages.questions import question_slices, read_slice
from jobs.stages.states import ModelState
from jobs.stages.verify import read_verdicts, verdicts_on

TOKENS_OF_ANSWER = 400  # tokens of the limit that count as one answer of the usual length


@dataclass(frozen=True)
class Harvest:
    """Whom to ask for answers, how, and how they are checked.

    Attributes:
        seed: the seed for sampling answers.
        skip_broken: whether lines that are not JSON are skipped and reported.
    """

    teachers: Sequence[Teacher]
    generate: Generate
    checks: Checks
    seed: int
    skip_broken: bool = False

    @property
    def askable(self) -> list[ModelTeacher | ServerTeacher | EndpointTeacher]:
        """The teachers that can be asked: all but files."""
        return [teacher for teacher in self.teachers if not isinstance(teacher, FileTeacher)]


def build_pool(
    run: Run,
    harvest: Harvest,
    hosted: Mapping[str, ModelState],
    questions: Mapping[str, Question],
    refused: Sequence[Refused] = (),
) -> AnswerPool:
    """Ask all teachers and verify their answers. Ask again if `until_verified` wants more right answers.

    Args:
        hosted: the teachers that this cluster hosts, by name.
        refused: rows that are no questions of this run, for the ledger.

    Raises:
        Unmade: in a plan, answers or verdicts are not there yet.
    """
    g, first = harvest.generate, range(harvest.generate.samples)
    slices = question_slices(run, questions, slices_for(guess_answers(harvest, len(questions))))
    files = [teacher for teacher in harvest.teachers if isinstance(teacher, FileTeacher)]
    sources: list[Source] = [*take_files(run, files, slices, harvest.skip_broken)]
    sources += asked(run, harvest, hosted, asks_by_teacher(harvest, questions, first), first)
    pool = verified(run, harvest.checks, sources, slices, "pool")
    for number in range(g.samples, g.max_samples if g.until_verified else 0):
        lacking = still_lacking(run, harvest, pool, number)
        if not lacking:
            break
        asks = {
            t.name: asks_of([questions[q] for q in lacking[t.name]], [number], t.ask_system)
            for t in harvest.askable
            if t.name in lacking
        }
        only = {name: frozenset(ids) for name, ids in lacking.items()}
        sources += asked(run, harvest, hosted, asks, range(number, number + 1), only, f" sample {number}")
        pool = verified(run, harvest.checks, sources, slices, f"pool with sample {number}")
    right = pool.states.counts()["right"]
    accuracy = {t.name: right.get(t.name, 0) / len(questions) for t in harvest.teachers}
    agreement = judge_agreement(run, harvest.checks, pool, questions)
    return replace(pool, accuracy=accuracy, refused=refused, agreement=agreement)


def guess_answers(harvest: Harvest, questions: int) -> int:
    """Estimate the size of a run, as a number of answers of usual length, to choose its number of slices.
    Files count by their size. Models and endpoints count by their samples and token limits.
    """
    paths = {t.path for t in harvest.teachers if isinstance(t, FileTeacher)}
    rows = (guess_rows(path) for path in paths)
    long = max(1, harvest.generate.max_new_tokens // TOKENS_OF_ANSWER)
    asked = questions * harvest.generate.samples * len(harvest.askable) * long
    return asked + sum(rows)


def judge_agreement(
    run: Run, checks: Checks, pool: AnswerPool, questions: Mapping[str, Question]
) -> Agreement | None:
    """Compare the judge's verdicts on a sample with those of `judge.check_method`. The sample is the answers
    with the smallest keys, which are digests, to questions with a reference.

    Raises:
        Unmade: in a plan, the sample is still to be checked.
    """
    judge = checks.judge
    if judge is None or judge.check_method is None:
        return None
    sample = pd.DataFrame()
    for number in range(pool.count):
        sample = pd.concat([sample, judged_in(pool.read(number), checks, questions)])
        if len(sample) >= judge.check_sample:  # later slices have later keys
            break
    sample = sample.sort_values("answer_key").head(judge.check_sample)
    settings = Checks(checks.verify).of(judge.check_method)
    given = to_check(sample, questions, settings)
    view = verdicts_on(run, "verify", "the judge's sample", settings, given)
    run.need("the pool", [view])
    rights = zip(sample["state"] != "wrong", read_verdicts(view, given), strict=True)
    pairs = [(bool(judge), verdict.state == "correct") for judge, verdict in rights]
    names = {(True, True): "both right", (False, False): "both wrong", (True, False): "judge only"}
    return Agreement(judge.check_method, Counter(names.get(pair, "method only") for pair in pairs))


def judged_in(answers: pd.DataFrame, checks: Checks, questions: Mapping[str, Question]) -> pd.DataFrame:
    """Those of the answers that the judge called right or wrong, and whose question has a reference."""
    told = answers[answers["state"].isin(["verified", "duplicate", "wrong"])]
    by_judge = [
        (questions[q].method or checks.verify.method) == "judge" and bool(questions[q].references)
        for q in told["question_id"]
    ]
    return told[np.array(by_judge, dtype=bool)]


def asks_by_teacher(
    harvest: Harvest, questions: Mapping[str, Question], samples: range
) -> dict[str, list[Ask]]:
    """Every question for every teacher that can be asked, with the teacher's own system text."""
    systems = {t.ask_system for t in harvest.askable}
    told = {system: asks_of(questions.values(), samples, system) for system in systems}
    return {t.name: told[t.ask_system] for t in harvest.askable}


def draw_of(harvest: Harvest) -> Draw:
    """How teachers' answers are drawn."""
    g = harvest.generate
    return Draw(g.temperature, g.top_p, g.max_new_tokens, harvest.seed)


def endpoints_of(harvest: Harvest) -> list[tuple[EndpointTeacher, Owner]]:
    """The endpoints that are asked, each with the owner of its answers."""
    draw = draw_of(harvest)
    return [(t, owner_of(t, draw)) for t in harvest.askable if isinstance(t, EndpointTeacher)]


def asked(
    run: Run,
    harvest: Harvest,
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
    g, draw = harvest.generate, draw_of(harvest)
    requests = {id(own): request_of(own) for own in asks.values()}  # most often one for all
    waves = {}
    for teacher in harvest.askable:
        if teacher.name in asks:
            waves[teacher.name] = Wave(who(teacher, hosted), draw, requests[id(asks[teacher.name])])
    views = ask(run, "generate", {name + suffix: wave for name, wave in waves.items()}, g.shard_size)
    views = {n: ask_again(run, n + suffix, wave, g.shard_size) for n, wave in waves.items()}
    run.need("the pool", views.values())
    told = {t.name: t.ask_system for t in harvest.askable}
    return [
        Said(name, view.id, view.finished, tuple(samples), told[name], (only or {}).get(name))
        for name, view in views.items()
    ]


def who(teacher: ModelTeacher | ServerTeacher | EndpointTeacher, hosted: Mapping[str, ModelState]) -> Asked:
    """The model or endpoint to ask for a teacher."""
    if isinstance(teacher, EndpointTeacher):
        return teacher
    return Hosted(hosted[teacher.name], teacher.replicas, teacher.needs, is_student=False)


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


def still_lacking(run: Run, harvest: Harvest, pool: AnswerPool, sample: int) -> dict[str, list[str]]:
    """For each teacher that can be asked, the ids of the questions to which it has too few right answers."""
    askable = [teacher.name for teacher in harvest.askable]
    look = LackingIn(pool.questions, pool.states, askable, harvest.generate.until_verified)
    tasks = [(f"sample {sample}, {k}", Task(look, (k,))) for k in range(pool.count)]
    found = do_tasks(
        run,
        "generate",
        "find questions with too few right answers",
        tasks,
        pool.count == 1 or run.mode != "make",
    )
    lacking: dict[str, list[str]] = {}
    for name, _ in tasks:
        for teacher, ids in found[name].items():
            lacking.setdefault(teacher, []).extend(ids)
    return lacking
