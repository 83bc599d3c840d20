"""Decides which rollouts an arm learns from and what the teacher is shown for each, and writes the examples.

A target depends only on rollouts, verdicts and the arm's settings. Every rollout is either trained on or has
a reason why not. That reason is its state in the ledger.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.experiment.arms.ogls_sd import TARGETS, OglsArm
from jobs.experiment.rollouts import Rollouts
from jobs.files.questions import Question
from jobs.run.views import Finished
from jobs.stages.rollouts import RolledOut
from jobs.stages.states import ModelState
from jobs.stages.train import NothingToLearn
from jobs.systems.ogls_sd.steer import ToRead, arrays_in, bare, by_key
from selection.steering import ARRAYS, Array, Pools, Rollout, pools_of
from training.data import Example, write_examples
from training.targets import SAMPLED

TRAINED, TAIL = "trained", "tail_trained"
NO_STEP = "no_step_left"  # the rollout was usable, but no step of the round drew it
LEFT, CONTEXTS_OUT = "not drawn by a step", "contexts left out"  # names of a round's numbers
# Targets that share one pass over the wrong rollouts, with the pools of the rollout's question.
VIEWS = ("ogls", "lambda_zero", "positive_only", "positive_mean", "opsd", "opsd_incorrect")


@dataclass
class Taken:
    """The rollouts of one student that an arm uses.

    Attributes:
        items: the teacher's input for each rollout, by the rollout's id. Empty if the arm needs no teacher.
        why: for each rollout, `trained` or the reason why it is not trained on.
    """

    items: dict[str, ToRead] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> list[str]:
        return [i for i, why in self.why.items() if why == TRAINED]


def take(arm: OglsArm, rolled: RolledOut, questions: Sequence[Question], drawn: Rollouts) -> Taken:
    """Decide which of the rollouts to these questions an arm uses."""
    taken = Taken()
    others = contexts_of_others(rolled, questions) if arm.target == "shuffled" else {}
    tokens = dict(zip(rolled.table["rollout_id"], rolled.table["token_ids"], strict=True))
    states = dict(zip(rolled.table["rollout_id"], rolled.table["state"], strict=True))
    for question in questions:
        rollouts, solution = rolled.of(question.id), question.solution
        pools = _pools(arm, rollouts, solution, tokens)
        if arm.target == "shuffled":
            pools = {i: own if own.why else others.get(question.id, NOBODY) for i, own in pools.items()}
        for identity, own in pools.items():
            why = own.why or TRAINED
            if why == "no_verdict" or not tokens[identity]:  # the rollout's own state says more
                why = states[identity] if states[identity] not in ("right", "wrong") else "empty"
            taken.why[identity] = why
            if why == TRAINED and arm.target != "rejection_sampling":
                read = tokens[identity][: drawn.scored_tokens]
                shows = solution if arm.target in VIEWS else ""
                taken.items[identity] = ToRead(question.prompt, read, shows, own.right, own.wrong)
    return taken


NOBODY = Pools(why="no_other_question")


def _pools(
    arm: OglsArm, rollouts: Sequence[Rollout], solution: str, tokens: Mapping[str, tuple[int, ...]]
) -> dict[str, Pools]:
    """The pools for each rollout of one question, as the arm's target needs them."""
    target = arm.target
    if target == "rejection_sampling":
        return _own_right(rollouts, tokens)
    if target == "gkd":
        return {r.id: Pools(why="" if tokens[r.id] else "no_verdict") for r in rollouts}
    if target == "sdpo":
        return {r.id: _sibling(r, rollouts) for r in rollouts}
    # all targets in VIEWS use the pools that ogls needs, so that they share one pass
    pools = pools_of(rollouts, solution, arm.exclude_self, "both")
    if target in ("opsd", "opsd_incorrect") and not solution:
        return {i: Pools(why=own.why or "no_reference") for i, own in pools.items()}
    if target == "opsd":
        return {i: Pools() if own.why in ("is_right", "all_right") else own for i, own in pools.items()}
    return pools


def _own_right(rollouts: Sequence[Rollout], tokens: Mapping[str, tuple[int, ...]]) -> dict[str, Pools]:
    """Accept the right rollouts. Of several with the same tokens only the first is accepted."""
    found, seen = {}, set()
    for one in rollouts:
        why = "no_verdict" if one.is_right is None else "" if one.is_right else "is_wrong"
        if not why and tokens[one.id] in seen:
            why = "duplicate"
        seen.add(tokens[one.id])
        found[one.id] = Pools(why=why)
    return found


def _sibling(rollout: Rollout, rollouts: Sequence[Rollout]) -> Pools:
    """The first other right rollout to the same question, without its reasoning (SDPO, arXiv 2601.20802)."""
    if rollout.is_right is None:
        return Pools(why="no_verdict")
    right = (bare(r.text) for r in rollouts if r.is_right and r.id != rollout.id)
    first = next((text for text in right if text), None)
    return Pools(why="no_right_sibling") if first is None else Pools((first,))


def contexts_of_others(rolled: RolledOut, questions: Sequence[Question]) -> dict[str, Pools]:
    """For each question, the pools of a different question that has both right and wrong solutions. So the
    shown outcomes are the same, and the content is unrelated. Without such a question the entry is missing.
    """
    whole: dict[str, Pools] = {}
    for question in questions:
        own = pools_of(rolled.of(question.id), question.solution)
        both = next((pools for pools in own.values() if not pools.why), None)
        if both is not None:
            whole[question.id] = both
    order = list(whole)
    found = {}
    for k, question in enumerate(questions):
        rest = [q for q in order if q != question.id]
        if rest:
            found[question.id] = whole[rest[k % len(rest)]]
    return found


def arrays_of(arm: OglsArm) -> tuple[Array, ...]:
    """The arrays that the teacher computes for an arm. All targets in `VIEWS` share one pass, which computes
    all arrays. So a further arm of that kind needs no further pass.
    """
    if arm.target in VIEWS:
        return ARRAYS
    return tuple(name for name in ARRAYS if name in TARGETS[arm.target])


@dataclass(frozen=True)
class WriteExamples:
    """Runs in a worker. Writes an arm's examples from rollouts and the teacher's readings.

    Attributes:
        rows: for each rollout, the index of its question and its tokens.
        logprobs: for each rollout, the log-probabilities of its tokens when they were sampled.
        tail: the rollouts whose last tokens are learned by cross-entropy, in the form of `rows`.
    """

    arm: OglsArm
    state: ModelState
    questions: Sequence[Question]
    rows: Mapping[str, tuple[int, tuple[int, ...]]]
    items: Mapping[str, ToRead]
    said: Finished | None
    logprobs: Mapping[str, Sequence[float]]
    tail: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    def __call__(self, place: Place) -> dict[str, Any]:
        """Write the examples. Returns their number, and the state and reason of each rollout that could not
        be read.
        """
        asked = {question for question, _ in (*self.rows.values(), *self.tail.values())}
        renderer = self.state.renderer()
        prompts = {k: renderer.prompt(self.questions[k].prompt) for k in asked}
        steered = self.arm.steered
        names = () if steered is None else steered.arrays
        read = {} if self.said is None else self._read(names)
        examples, lost = [], dict[str, list[str]]()
        for identity, (question, tokens) in self.rows.items():
            arrays = dict[str, np.ndarray]()
            if steered is not None:
                row = read[self.items[identity].key]
                arrays = arrays_in(row, names) if row["state"] == "read" else {}
                if len(arrays) < len(names):
                    lost[identity] = why_lost(str(row["state"]), str(row["reason"]))
                    continue
                tokens = self.items[identity].tokens
                sampled = np.asarray(self.logprobs[identity][: len(tokens)], dtype=np.float32)
                arrays |= {SAMPLED: sampled.reshape(1, -1, 1)}
            weight = 1.0 / len(tokens) if self.arm.normalise == "row" else 1.0
            examples.append(self._example(prompts[question], tokens, weight, arrays))
        for question, tokens in self.tail.values():
            start = max(0, len(tokens) - self.arm.tail_tokens)
            ids = (*prompts[question], *tokens)
            span = len(prompts[question]) + start, len(ids)
            by_row = self.arm.normalise == "row"
            weight = self.arm.tail_weight / (len(tokens) - start) if by_row else self.arm.tail_weight
            examples.append(Example(ids, *span, weight))
        widths = dict.fromkeys(names, self._width(examples, names)) | ({SAMPLED: 1} if names else {})
        write_examples(place, examples, widths if examples else {})
        return {"examples": len(examples), "lost": lost}

    @staticmethod
    def _width(examples: Sequence[Example], names: Sequence[str]) -> int:
        """The width D of the arrays. 1 if no example has one."""
        return next((e.arrays[n].shape[2] for e in examples for n in names if n in e.arrays), 1)

    def _read(self, names: Sequence[str]) -> dict[bytes, dict[str, object]]:
        columns = ["state", "reason", "tokens", *(c for n in names for c in (n, f"{n} contexts"))]
        if self.said is None:
            return {}
        return by_key(self.said.rows([item.key for item in self.items.values()], columns))

    @staticmethod
    def _example(
        prompt: tuple[int, ...], tokens: tuple[int, ...], weight: float, arrays: Mapping[str, np.ndarray]
    ) -> Example:
        ids = (*prompt, *tokens)
        return Example(ids, len(prompt), len(ids), weight, arrays=arrays)


def why_lost(state: str, reason: str) -> list[str]:
    """The state and reason of a rollout that lacks an array of its target, from the state and reason of its
    reading. If the reading itself succeeded, its reason begins with the rollout's state. Reasons of an
    earlier version have no such beginning and always mean `too_long`.

    >>> why_lost("read", "unrenderable: no context of h_s"), why_lost("read", "no context of h_s")
    (['unrenderable', 'no context of h_s'], ['too_long', 'no context of h_s'])
    >>> why_lost("quarantined", "ValueError: x")
    ['quarantined', 'ValueError: x']
    """
    if state != "read":
        return [state, reason]
    lacking, separator, rest = reason.partition(": ")
    return [lacking, rest] if separator else ["too_long", reason]


def tail_of(arm: OglsArm, rolled: RolledOut) -> list[str]:
    """The right rollouts that are shorter than the median of all rollouts. Their last tokens are learned by
    cross-entropy. Empty if the arm has no `tail_weight`.
    """
    if not arm.tail_weight:
        return []
    lengths = rolled.table["token_ids"].map(len)
    short = (rolled.table["state"] == "right") & (lengths < lengths.median()) & (lengths > 0)
    return [str(i) for i in rolled.table["rollout_id"][short]]


def final_states(
    taken: Taken, lost: Mapping[str, Sequence[str]], tail: Iterable[str], drawn: Collection[str]
) -> dict[str, str]:
    """The final state of every rollout of a round.

    Args:
        lost: the state and reason of each rollout that should have been learned from and could not be read.
        tail: the right rollouts whose last tokens are learned.
        drawn: the rollouts that the round's steps draw.
    """
    why = taken.why | {i: state for i, (state, _) in lost.items()} | dict.fromkeys(tail, TAIL)
    return {i: NO_STEP if state in (TRAINED, TAIL) and i not in drawn else state for i, state in why.items()}


def ledger_of(why: Mapping[str, str], questions: int, drawn: int, group: int) -> pd.DataFrame:
    """Count the final states of a round's questions and rollouts.

    Args:
        why: the final state of each rollout.
        questions: the number of questions of the run.
        drawn: how many of them were drawn in this round.
        group: the number of rollouts per drawn question.

    Raises:
        RuntimeError: the totals do not add up.
    """
    if len(why) != drawn * group:
        raise RuntimeError(f"{len(why)} rollouts have a state, of {drawn * group}")
    by_question: dict[str, set[str]] = {}
    for identity, state in why.items():
        by_question.setdefault(identity.rpartition("/")[0], set()).add(state)
    best = Counter("learned_from" if {TRAINED, TAIL} & own else min(own) for own in by_question.values())
    best["not_drawn"] = questions - drawn
    rows = [("question", state, n) for state, n in best.items() if n]
    rows += [("rollout", state, n) for state, n in Counter(why.values()).items()]
    return pd.DataFrame(rows, columns=["kind", "state", "count"])


def refuse_nothing(label: str, reasons: Sequence[str], is_something: bool) -> None:
    """End a path if its round has nothing to learn from.

    Args:
        reasons: why each rollout was not used.
        is_something: whether there is something to learn from. Then nothing happens.

    Raises:
        NothingToLearn: there is nothing. Counts the rollouts by reason.
    """
    if is_something:
        return
    told = ", ".join(f"{reasons.count(why)} {why}" for why in dict.fromkeys(reasons))
    raise NothingToLearn(
        f"{label}: no rollout is left to learn from",
        told,
        "at least one",
        "more rollouts (rollouts.questions, rollouts.group), or worked solutions (rollouts.solution_field)",
    )
