"""Asks each teacher some of the questions, and checks what it answers. An answer that the store has is not
asked for again, whoever asked for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import FileTeacher
from jobs.results.outcome import Start
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.slices import slices_for
from jobs.stages.answer_files import take_files
from jobs.stages.answers import asks_of
from jobs.stages.check import Checks
from jobs.stages.gather import Source
from jobs.stages.pool import AnswerPool, verified
from jobs.stages.questions import question_slices
from jobs.stages.teachers import Harvest, guess_answers
from jobs.stages.teachers import asked as asked_teachers

Asked = Mapping[str, frozenset[str]]  # by teacher, the ids of the questions that it is asked


def first_questions(start: Start, count: int, seed: int) -> frozenset[str]:
    """Draw the questions that all teachers are asked. The draw follows from what questions ask, not from
    their ids or their order.
    """
    order = sorted(start.questions.values(), key=lambda q: (question_key(q.prompt), q.id))
    drawn = np.random.default_rng(seed).permutation(len(order))[:count]
    return frozenset(order[k].id for k in drawn)


def together(every: Iterable[Asked]) -> Asked:
    """All that several paths ask, so that it is asked at once."""
    found: dict[str, frozenset[str]] = {}
    for own in every:
        for teacher, ids in own.items():
            found[teacher] = found.get(teacher, frozenset()) | ids
    return found


def harvest_of(e: Experiment) -> Harvest:
    """The teachers that may be asked, and how."""
    return Harvest(e.teachers, e.generate, Checks(e.verify, e.judge), e.seed, e.questions.skip_broken_lines)


def ask_for(run: Run, start: Start, asked: Asked, label: str) -> AnswerPool:
    """Ask each teacher its questions. Returns the checked answers as a pool over all questions. The answers
    of a teacher's file that were not asked for are left out.

    Raises:
        Unmade: in a plan, answers or verdicts are not there yet.
    """
    harvest, questions = harvest_of(start.experiment), start.questions
    samples = range(harvest.generate.samples)
    slices = question_slices(run, questions, slices_for(guess_answers(harvest, len(questions))))
    files = [t for t in harvest.teachers if isinstance(t, FileTeacher)]
    taken = take_files(run, files, slices, harvest.skip_broken)
    sources: list[Source] = [replace(own, only=asked.get(own.teacher, frozenset())) for own in taken]
    asks = {
        t.name: asks_of([questions[i] for i in sorted(asked[t.name])], samples, t.ask_system)
        for t in harvest.askable
        if asked.get(t.name)
    }
    sources += asked_teachers(run, harvest, start.hosted, asks, samples, asked, f", {label}")
    pool = verified(run, harvest.checks, sources, slices, label)
    right = pool.states.counts()["right"]
    accuracy = {name: right.get(name, 0) / max(1, len(ids)) for name, ids in asked.items()}
    return replace(pool, accuracy=accuracy, refused=start.pool.refused)


def lacking(run: Run, start: Start, asked: Asked, label: str, first: frozenset[str]) -> frozenset[str]:
    """The questions outside the first part to which no right answer is there yet."""
    pool = ask_for(run, start, asked, label)
    right: set[str] = set()
    for answers in pool.each():
        right |= set(answers["question_id"][answers["state"] == "verified"].tolist())
    return frozenset(start.questions) - first - right
