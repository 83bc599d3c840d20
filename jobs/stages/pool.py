"""The pool: the answers of all teachers, with their verdicts and states."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from jobs.files.questions import Refused
from jobs.run.run import Run
from jobs.run.slices import Made, Sliced, joined, make_slices
from jobs.run.store import digest
from jobs.run.views import Finished
from jobs.stages.check import Checks, pool_states
from jobs.stages.gather import GATHER, TURNS, Source, check_gathered, gather, with_verdicts
from jobs.stages.judge import Agreement
from jobs.stages.questions import read_slice

VERSION = 1
POOL = "pool"
STATE_COLUMNS = [
    "answer_id",
    "question_id",
    "teacher",
    "sample",
    "answer_key",
    "state",
    "error",
    "extracted",
    "finish",
    "answer_tokens",
    "usd",
    "characters",
]


@dataclass(frozen=True)
class AnswerPool:
    """All answers with their state before scoring, by slice. Texts are in `gathered`, states in `states`, row
    by row in the same order.

    Attributes:
        id: a digest of the pool's content.
        accuracy: for each teacher the share of all questions that its first sample got right.
        refused: the rows of the training questions' file that are no questions of this run: they are not
            understood, or repeat an earlier row.
        agreement: how the judge agrees with a checked sample, if the experiment asks for one.
    """

    questions: Sliced
    gathered: Sliced
    states: Sliced
    accuracy: Mapping[str, float]
    refused: Sequence[Refused] = ()
    agreement: Agreement | None = None

    @cached_property
    def id(self) -> str:
        refused = [[r.id, r.reason] for r in self.refused]
        return digest([self.states.counts()["content"], refused])

    @property
    def count(self) -> int:
        """The number of slices."""
        return self.states.count

    @property
    def size(self) -> int:
        """The number of answers."""
        return int(self.states.counts()["answers"])

    @property
    def by_state(self) -> dict[str, int]:
        """The number of answers in each state, the most frequent first."""
        counts: Mapping[str, int] = self.states.counts()["states"]
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def read(self, number: int) -> pd.DataFrame:
        """One slice's answers with their texts, ordered by question, teacher and sample."""
        names = ["text", "tool_calls"]
        if self.gathered.counts().get(TURNS):
            said = self.gathered.read(GATHER, number)
        else:
            said = self.gathered.read(GATHER, number, names)
        said = said if TURNS in said else said.assign(turns="")
        return self.states.read(POOL, number).join(said[[*names, TURNS]])

    def told(self, number: int) -> pd.DataFrame:
        """One slice's answers without their texts. `characters` holds the texts' lengths."""
        return self.states.read(POOL, number)

    def each(self) -> Iterator[pd.DataFrame]:
        """The answers slice by slice, without texts."""
        return (self.told(number) for number in range(self.count))

    @property
    def answers(self) -> pd.DataFrame:
        """All answers with their texts, in this process."""
        return joined(self.read(number) for number in range(self.count))


@dataclass(frozen=True)
class PoolSlice:
    """Runs in a worker. Gives every answer of a slice its state before scoring.

    Attributes:
        verdicts: the views of verdicts, by method.
        takes_wrong: whether answers with a wrong result are used like right ones.
    """

    questions: Sliced
    gathered: Sliced
    verdicts: Mapping[str, Finished]
    takes_wrong: bool = False

    def __call__(self, number: int) -> Made:
        answers = with_verdicts(self.gathered.read(GATHER, number), self.verdicts)
        correct = answers["state"] == "correct"
        if self.takes_wrong:
            answers["state"] = answers["state"].replace("wrong", "correct")
        answers = answers.assign(characters=answers["text"].str.len())
        questions = read_slice(self.questions, number)
        pool = pool_states(answers, questions)
        is_right = pool["answer_id"].isin(answers["answer_id"][correct]) if self.takes_wrong else True
        right = pool["state"].isin(["verified", "duplicate"]) & (pool["sample"] == 0) & is_right
        keys, states = pool["answer_key"].tolist(), pool["state"].tolist()
        rows = [list(row) for row in zip(pool["answer_id"].tolist(), keys, states, strict=True)]
        content = digest([rows, sorted(questions)])  # questions without an answer too: the ledger has them
        if self.takes_wrong:  # the states do not tell which answers are right, and a rule may ask
            content = digest([content, answers["answer_id"][correct].tolist()])
        counts = {
            "answers": len(pool),
            "content": content,
            "to_score": digest(sorted({k for k, s in zip(keys, states, strict=True) if s == "verified"})),
            "states": counted(pool["state"]),
            "right": counted(pool["teacher"][right]),
        }
        return Made({POOL: pool[STATE_COLUMNS]}, counts)


def counted(values: pd.Series) -> dict[str, int]:
    """How often each value occurs."""
    return {str(value): int(n) for value, n in values.value_counts().items()}


def verified(
    run: Run,
    checks: Checks,
    sources: Sequence[Source],
    questions: Sliced,
    label: str,
    takes_wrong: bool = False,
) -> AnswerPool:
    """Check all answers; returns them with their verdicts and states.

    Args:
        takes_wrong: whether answers with a wrong result count as verified, for a system that does not filter
            by correctness.

    Raises:
        Unmade: in a plan, verdicts are not there yet.
    """
    gathered = gather(run, label, questions, sources, checks)
    views = check_gathered(run, "verify", "the pool", label, checks, questions, gathered)
    read = {method: view.finished for method, view in views.items()}
    inputs = {"gathered": gathered.stage.id} | {method: view.id for method, view in views.items()}
    config = {"takes_wrong": True} if takes_wrong else {}
    states = Sliced(run.store.stage(POOL, VERSION, config, inputs), (POOL,), questions.count)
    make = PoolSlice(questions, gathered, read, takes_wrong)
    states = make_slices(run, POOL, label, states, make, answers="answers")
    return AnswerPool(questions, gathered, states, {})
