"""Asks each teacher some of the questions, wave by wave, and checks what it answers. A wave holds what all
paths ask. An answer that the store has is not asked for again, whoever asked for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import FileTeacher
from jobs.files.questions import Question
from jobs.results.outcome import Start
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.slices import Sliced, slices_for
from jobs.stages.answer_files import Taken, take_files
from jobs.stages.answers import asks_of
from jobs.stages.check import Checks
from jobs.stages.gather import Said, Source
from jobs.stages.pool import AnswerPool, verified
from jobs.stages.questions import question_slices
from jobs.stages.score import PoolScores
from jobs.stages.teachers import Harvest, guess_answers
from jobs.stages.teachers import asked as asked_teachers

Asked = Mapping[str, frozenset[str]]  # by teacher, the ids of the questions that it is asked


def first_questions(questions: Mapping[str, Question], count: int, seed: int) -> frozenset[str]:
    """Draw the questions that all teachers are asked, and those that ask the same under other ids. The draw
    follows from what questions ask, not from their ids or their order.
    """
    by_key: dict[bytes, list[str]] = {}
    for question in questions.values():
        by_key.setdefault(question_key(question.prompt), []).append(question.id)
    order = sorted(by_key)
    drawn = np.random.default_rng(seed).permutation(len(order))[:count]
    return frozenset(identity for k in drawn for identity in by_key[order[k]])


def together(every: Iterable[Asked]) -> Asked:
    """All that several paths ask."""
    found: dict[str, frozenset[str]] = {}
    for own in every:
        for teacher, ids in own.items():
            found[teacher] = found.get(teacher, frozenset()) | ids
    return found


def harvest_of(e: Experiment) -> Harvest:
    """The teachers that may be asked, and how."""
    return Harvest(e.teachers, e.generate, Checks(e.verify, e.judge), e.seed, e.questions.skip_broken_lines)


@dataclass
class Asking:
    """What was asked so far in a run.

    Attributes:
        taken: the answers of teachers' files.
        said: the answers to each wave.
        asked: all that was asked, by all paths.
    """

    run: Run
    start: Start
    harvest: Harvest
    slices: Sliced
    taken: list[Taken]
    said: list[Said] = field(default_factory=list)
    asked: Asked = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, start: Start) -> "Asking":
        """Nothing was asked yet. Teachers' files are read."""
        harvest, questions = harvest_of(start.experiment), start.questions
        slices = question_slices(run, questions, slices_for(guess_answers(harvest, len(questions))))
        files = [t for t in harvest.teachers if isinstance(t, FileTeacher)]
        return cls(run, start, harvest, slices, take_files(run, files, slices, harvest.skip_broken))

    def ask(self, wanted: Asked, label: str) -> None:
        """Ask what was not asked before.

        Raises:
            Unmade: in a plan, answers are not there yet.
        """
        samples, questions = range(self.harvest.generate.samples), self.start.questions
        new = {t: ids - self.asked.get(t, frozenset()) for t, ids in wanted.items()}
        asks = {
            t.name: asks_of([questions[i] for i in sorted(new[t.name])], samples, t.ask_system)
            for t in self.harvest.askable
            if new.get(t.name)
        }
        if asks:
            self.said += asked_teachers(
                self.run, self.harvest, self.start.hosted, asks, samples, new, f", {label}"
            )
        self.asked = together([self.asked, wanted])

    def pool(self, asked: Asked, label: str) -> AnswerPool:
        """The checked answers to these of the questions that were asked, as a pool over all questions.

        Raises:
            Unmade: in a plan, verdicts are not there yet.
        """
        sources: list[Source] = [replace(t, only=asked.get(t.teacher, frozenset())) for t in self.taken]
        for own in self.said:
            if ids := (own.only or frozenset()) & asked.get(own.teacher, frozenset()):
                sources.append(replace(own, only=ids))
        pool = verified(self.run, self.harvest.checks, sources, self.slices, label)
        return replace(pool, refused=self.start.pool.refused)


def usable_in(scores: PoolScores, asked: Asked) -> frozenset[str]:
    """The questions with a right answer that could be scored, among those that teachers were asked."""
    found: set[str] = set()
    for own in scores.each():
        there = own[own["state"] == "scored"]
        found |= {
            str(question)
            for question, teacher in zip(there["question_id"], there["teacher"], strict=True)
            if question in asked.get(teacher, frozenset())
        }
    return frozenset(found)


def distinct(questions: Mapping[str, Question], ids: Iterable[str]) -> int:
    """How many different questions these are: the same question under two ids is asked once."""
    return len({question_key(questions[i].prompt) for i in ids})
