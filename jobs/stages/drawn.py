"""The questions that one round of rollouts asks, and the same questions in slices for workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from jobs.files.questions import Question
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.slices import Made, Sliced, make_slices, slice_of, slices_for
from jobs.run.store import digest
from jobs.stages.questions import QUESTIONS, HeldQuestions, read_slice, row_of

VERSION = 1
DRAWN = "drawn"
# About how many rollouts a slice has at most. A teacher's readings of them are large.
ROWS = 2_048


def drawn_questions(questions: Mapping[str, Question], count: int, seed: int, number: int) -> list[Question]:
    """The questions of one round, `count` or all if there are fewer. Each round takes the next part of all
    questions. After the last question the first one follows again. All arms get the same. The order depends
    on the questions' content and the seed.
    """
    order = sorted(questions.values(), key=lambda q: (digest([seed, question_key(q.prompt).hex()]), q.id))
    start = (number - 1) * count
    return [order[(start + k) % len(order)] for k in range(min(count, len(order)))]


def drawn_slices(run: Run, label: str, questions: Sequence[Question], group: int) -> Sliced:
    """Write the questions of a round for workers, with their worked solutions.

    Args:
        group: the number of rollouts of each question, for the number of slices.

    Raises:
        Unmade: in a plan, if there are several slices that are still to be made.
    """
    count = slices_for(len(questions) * group, ROWS)
    held = HeldDrawn([[] for _ in range(count)])
    for place, question in enumerate(questions):
        held.slices[slice_of(question_key(question.prompt), count)].append((place, question))
    content = digest([[repr(row_of(q)), q.solution] for q in questions])
    stage = run.store.stage(DRAWN, VERSION, {"slices": count}, {"content": content})
    sliced = Sliced(stage, (QUESTIONS, DRAWN), count)
    return make_slices(run, DRAWN, label, sliced, held, here=True, questions="questions")


@dataclass(frozen=True)
class HeldDrawn:
    """Makes slices of the drawn questions, which this process holds. The table `drawn` has the questions'
    order and solutions.
    """

    slices: list[list[tuple[int, Question]]]

    def __call__(self, number: int) -> Made:
        own = self.slices[number]
        made = HeldQuestions([[q for _, q in own]])(0)
        rows = [(q.id, place, q.solution) for place, q in own]
        table = pd.DataFrame(rows, columns=["question_id", "place", "solution"])
        return Made({**made.tables, DRAWN: table}, made.counts)


def read_drawn(drawn: Sliced, number: int) -> list[Question]:
    """One slice's questions with their solutions, in the order in which they were drawn."""
    questions, table = read_slice(drawn, number), drawn.read(DRAWN, number)
    told = zip(table["question_id"].tolist(), table["solution"].tolist(), strict=True)
    return [replace(questions[q], solution=solution) for q, solution in told]
