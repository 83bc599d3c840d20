"""Answers as paths of decisions, which the objective learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.files.questions import Question
from jobs.run.store import digest
from jobs.run.tables import KEY
from jobs.run.views import Finished
from jobs.stages.states import ModelState
from training.data import Example, write_examples
from training.path_settings import DECISION, NOT_DECIDED, PATH, PATH_COLUMNS, STATE_ONLY

VERSION = 1
COLUMNS = ["path", "by_teacher", "finish", "error", "own_logprobs", "teacher_logprobs"]


@dataclass(frozen=True)
class Rewards:
    """How decisions are rewarded.

    Attributes:
        prices: of a call, by budget.
        counts_call: whether a call's reward has the teacher's log-probability of its token.
        floor: the least reward of a token.
    """

    prices: Mapping[int, float]
    counts_call: bool
    floor: float


@dataclass(frozen=True)
class Written:
    """An answer and who wrote which token.

    Attributes:
        tokens: of the answer, its end token included.
        by_teacher: for each token, whether the student called for it.
        teacher_logprobs: ln p of each token under the teacher.
        is_cut: whether it was cut at the limit, which is no end.
        is_own: whether it is the student's own rollout.
    """

    tokens: Sequence[int]
    by_teacher: Sequence[bool]
    teacher_logprobs: Sequence[float]
    is_cut: bool
    is_own: bool


def path_of(
    prompt: Sequence[int], written: Written, budget: int, rewards: Rewards, help_id: int
) -> Example | None:
    """An answer as an example. None if it has no decision to learn from."""
    ids, rows = list(prompt), list[tuple[float, ...]]()
    may_call, last = float(budget > 0), len(written.tokens) - 1
    told = zip(written.tokens, written.by_teacher, written.teacher_logprobs, strict=True)
    for k, (token, called, logprob) in enumerate(told):
        part = STATE_ONLY if written.is_cut and k == last else DECISION
        if called:
            reward = (logprob if rewards.counts_call else 0.0) - rewards.prices[budget]
            ids.append(help_id)
            rows.append((reward, part, 1.0, may_call, written.is_own))
            ids.append(token)
            rows.append((0.0, NOT_DECIDED, 0.0, 0.0, written.is_own))
        else:
            ids.append(token)
            rows.append((max(logprob, rewards.floor), part, 0.0, may_call, written.is_own))
    if not any(row[1] == DECISION for row in rows):
        return None
    array = np.array(rows, dtype=np.float32).reshape(1, len(rows), len(PATH_COLUMNS))
    return Example(tuple(ids), len(prompt), len(ids), arrays={PATH: array})


def cloned_calls(own_logprobs: Sequence[float], budget: int, positions: str, seed: int) -> list[bool]:
    """Where a teacher's answer gets calls: at a share of its tokens, those that the student finds least
    likely, or random ones.

    >>> cloned_calls([-1.0, -3.0, -0.1, -2.0, -0.5], 40, "weakest", 0)
    [False, True, False, True, False]
    """
    rng = np.random.default_rng(seed)
    share = len(own_logprobs) * budget / 100
    count = int(share) + int(rng.random() < share - int(share))  # short answers get calls now and then
    if positions == "random":
        chosen = rng.permutation(len(own_logprobs))[:count]
    else:
        chosen = np.argsort(own_logprobs, kind="stable")[:count]
    wanted = set(chosen.tolist())
    return [k in wanted for k in range(len(own_logprobs))]


@dataclass(frozen=True)
class Entry:
    """An answer that becomes an example.

    Attributes:
        question: the question's id.
        key: the answer's.
        budget: the budget that it stands for.
        seed: of its calls, if they are placed at random.
    """

    question: str
    key: bytes
    budget: int
    seed: int = 0


@dataclass(frozen=True)
class Source:
    """Answers that become examples.

    Attributes:
        id, said: of their view.
        is_own: whether they are the student's own rollouts, which are paths already. In a teacher's answers
            calls still have to be placed.
    """

    id: str
    said: Finished
    entries: Sequence[Entry]
    is_own: bool


@dataclass(frozen=True)
class WritePaths:
    """Writes examples, possibly in a worker. Returns the states of the answers, in their order, and the
    reason of each that failed.

    Attributes:
        sentences: of each budget.
        positions: where cloned answers call.
    """

    state: ModelState
    questions: Mapping[str, Question]
    sources: Sequence[Source]
    sentences: Mapping[int, str]
    rewards: Rewards
    help_id: int
    positions: str

    def __call__(self, place: Place) -> tuple[list[str], dict[int, str]]:
        renderer, examples = self.state.renderer(), list[Example]()
        states, reasons = list[str](), dict[int, str]()
        for source in self.sources:
            rows = source.said.rows(sorted({entry.key for entry in source.entries}), COLUMNS)
            by_key = {row[KEY]: {str(k): v for k, v in row.items()} for row in rows.to_dict("records")}
            for entry in source.entries:
                row = by_key[entry.key]
                made = self._example(renderer, source.is_own, row, entry)
                if row["finish"] == "failed":
                    reasons[len(states)] = str(row["error"])
                states.append(made if isinstance(made, str) else "usable")
                if not isinstance(made, str):
                    examples.append(made)
        write_examples(place, examples, {PATH: len(PATH_COLUMNS)})
        return states, reasons

    @property
    def id(self) -> str:
        """A digest of everything that the examples follow from, beside the student's rendering."""
        sources = [
            [s.id, s.is_own, [[e.key.hex(), e.budget, e.seed] for e in s.entries]] for s in self.sources
        ]
        rewards = [sorted(self.rewards.prices.items()), self.rewards.counts_call, self.rewards.floor]
        return digest(
            [VERSION, sources, sorted(self.sentences.items()), rewards, self.help_id, self.positions]
        )

    def _example(
        self, renderer: Renderer, is_own: bool, row: Mapping[str, Any], entry: Entry
    ) -> Example | str:
        """An answer's example, or the state in which it ends without one."""
        if row["finish"] == "failed":
            return "failed"
        if not np.isfinite([*row["own_logprobs"], *row["teacher_logprobs"]]).all():
            return "impossible"  # one of the models cannot write it at all
        by_teacher = [bool(called) for called in row["by_teacher"]]
        path = [int(i) for i in row["path"]]
        tokens = without_calls(path, by_teacher) if is_own else path
        if not is_own:
            by_teacher = cloned_calls(list(row["own_logprobs"]), entry.budget, self.positions, entry.seed)
        is_cut = row["finish"] == "length"
        written = Written(tokens, by_teacher, list(row["teacher_logprobs"]), is_cut, is_own)
        prompt = renderer.prompt(self.questions[entry.question].prompt.told(self.sentences[entry.budget]))
        found = path_of(prompt, written, entry.budget, self.rewards, self.help_id)
        return "empty" if found is None else found


def without_calls(path: Sequence[int], by_teacher: Sequence[bool]) -> list[int]:
    """The written tokens of a path: a help token stands before each token of the teacher.

    >>> without_calls([7, 1, 2, 7, 3], [True, False, True])
    [1, 2, 3]
    """
    tokens, at = [], 0
    for called in by_teacher:
        at += called
        tokens.append(path[at])
        at += 1
    return tokens
