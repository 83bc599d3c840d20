"""Which rollouts an arm learns from, what the teacher is shown for each, and the examples that come of it.

A target is a pure function of rollouts, verdicts and the arm's settings; every rollout is trained on or has a
reason why not, which is its state in the ledger.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.experiment.arms import TARGETS, OglsArm
from jobs.experiment.rollouts import Rollouts
from jobs.files.columns import value_at
from jobs.files.questions import Question
from jobs.run.views import Finished
from jobs.stages.rollouts import RolledOut
from jobs.stages.states import ModelState
from jobs.stages.steer import ToRead, arrays_in, bare, by_key
from selection.steering import ARRAYS, Array, Pools, Rollout, pools_of
from training.data import Example, write_examples

TRAINED = "trained"
# Arms whose targets are read off one pass over the wrong rollouts, with the pools of the rollout's question.
VIEWS = ("ogls", "lambda_zero", "positive_only", "positive_mean", "opsd", "opsd_incorrect")


@dataclass
class Taken:
    """What an arm takes of one student's rollouts.

    Attributes:
        items: by rollout, what the teacher reads; none where rollouts are learned from as they are.
        why: by rollout, `trained` or why it is not.
    """

    items: dict[str, ToRead] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> list[str]:
        return [i for i, why in self.why.items() if why == TRAINED]


def solution_of(question: Question, drawn: Rollouts) -> str:
    """The worked solution that a question's row brings; empty where it has none."""
    if drawn.solution_field is None or not question.row:
        return ""
    import json

    found = value_at(json.loads(question.row), drawn.solution_field)
    return found.strip() if isinstance(found, str) else ""


def take(arm: OglsArm, rolled: RolledOut, questions: Sequence[Question], drawn: Rollouts) -> Taken:
    """What an arm takes of the rollouts to these questions."""
    taken = Taken()
    others = contexts_of_others(rolled, questions, drawn) if arm.target == "shuffled" else {}
    tokens = dict(zip(rolled.table["rollout_id"], rolled.table["token_ids"], strict=True))
    states = dict(zip(rolled.table["rollout_id"], rolled.table["state"], strict=True))
    for question in questions:
        rollouts, solution = rolled.of(question.id), solution_of(question, drawn)
        pools = _pools(arm, rollouts, solution, tokens)
        if arm.target == "shuffled":
            pools = {i: own if own.why else others.get(question.id, NOBODY) for i, own in pools.items()}
        for identity, own in pools.items():
            why = own.why or (TRAINED if tokens[identity] else "empty")
            taken.why[identity] = states[identity] if why == "no_verdict" else why
            if why == TRAINED and arm.target != "rejection_sampling":
                read = tokens[identity][: drawn.scored_tokens]
                shows = solution if arm.target in VIEWS else ""
                taken.items[identity] = ToRead(question.prompt, read, shows, own.right, own.wrong)
    return taken


NOBODY = Pools(why="no_other_question")


def _pools(
    arm: OglsArm, rollouts: Sequence[Rollout], solution: str, tokens: Mapping[str, tuple[int, ...]]
) -> dict[str, Pools]:
    """The pools of one question's rollouts under an arm's target."""
    target = arm.target
    if target == "rejection_sampling":
        return _own_right(rollouts, tokens)
    if target == "gkd":
        return {r.id: Pools() for r in rollouts}
    if target == "sdpo":
        return {r.id: _sibling(r, rollouts) for r in rollouts}
    # all views ask for the pools that ogls needs, so that one pass serves them
    pools = pools_of(rollouts, solution, arm.exclude_self, "both")
    if target in ("opsd", "opsd_incorrect") and not solution:
        return {i: Pools(why=own.why or "no_reference") for i, own in pools.items()}
    if target == "opsd":
        return {i: Pools() if own.why in ("is_right", "all_right") else own for i, own in pools.items()}
    return pools


def _own_right(rollouts: Sequence[Rollout], tokens: Mapping[str, tuple[int, ...]]) -> dict[str, Pools]:
    """Right rollouts, each text once."""
    found, seen = {}, set()
    for one in rollouts:
        why = "no_verdict" if one.is_right is None else "" if one.is_right else "is_wrong"
        if not why and tokens[one.id] in seen:
            why = "duplicate"
        seen.add(tokens[one.id])
        found[one.id] = Pools(why=why)
    return found


def _sibling(rollout: Rollout, rollouts: Sequence[Rollout]) -> Pools:
    """The first right sibling but itself, without its reasoning (SDPO, arXiv 2601.20802)."""
    if rollout.is_right is None:
        return Pools(why="no_verdict")
    right = (bare(r.text) for r in rollouts if r.is_right and r.id != rollout.id)
    first = next((text for text in right if text), None)
    return Pools(why="no_right_sibling") if first is None else Pools((first,))


def contexts_of_others(rolled: RolledOut, questions: Sequence[Question], drawn: Rollouts) -> dict[str, Pools]:
    """For every question the pools of another one that has both kinds: the same outcomes, other content."""
    whole: dict[str, Pools] = {}
    for question in questions:
        own = pools_of(rolled.of(question.id), solution_of(question, drawn))
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


def arrays_of(arm: OglsArm, together: Sequence[OglsArm]) -> tuple[Array, ...]:
    """The arrays of one pass: all that arms which share it read of it."""
    sharing = together if arm.target in VIEWS else [arm]
    names = {name for a in sharing if a.target in VIEWS or a is arm for name in TARGETS[a.target] if name}
    if arm.target in VIEWS:
        names.add("h0")  # tells by how much contexts move the teacher
    return tuple(name for name in ARRAYS if name in names)


@dataclass(frozen=True)
class WriteExamples:
    """In a worker: writes an arm's examples from rollouts and what the teacher said of them.

    Attributes:
        rows: rollout -> (question's place, tokens).
        tail: rollouts whose ends are learned by cross-entropy.
    """

    arm: OglsArm
    state: ModelState
    questions: Sequence[Question]
    rows: Mapping[str, tuple[int, tuple[int, ...]]]
    items: Mapping[str, ToRead]
    said: Finished | None
    tail: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    def __call__(self, place: Place) -> dict[str, int]:
        """Write them; returns by state how many rollouts could not be read after all."""
        prompts = [self.state.renderer().prompt(q.prompt) for q in self.questions]
        steered = self.arm.steered
        names = () if steered is None else steered.arrays
        read = {} if self.said is None else self._read(names)
        examples, lost = [], Counter[str]()
        for identity, (question, tokens) in self.rows.items():
            prompt, arrays = prompts[question], dict[str, np.ndarray]()
            if steered is not None:
                row = read[self.items[identity].key]
                arrays = arrays_in(row, names) if row["state"] == "read" else {}
                if len(arrays) < len(names):
                    lost[str(row["state"])] += 1
                    continue
                tokens = self.items[identity].tokens
            weight = 1.0 / len(tokens) if self.arm.normalise == "row" else 1.0
            examples.append(self._example(prompt, tokens, weight, arrays))
        for question, tokens in self.tail.values():
            start = max(0, len(tokens) - self.arm.tail_tokens)
            ids = (*prompts[question], *tokens)
            span = len(prompts[question]) + start, len(ids)
            examples.append(Example(ids, *span, self.arm.tail_weight))
        write_examples(place, examples)
        return {"examples": len(examples), **lost}

    def _read(self, names: Sequence[str]) -> dict[bytes, dict[str, object]]:
        columns = ["state", "tokens", *(c for n in names for c in (n, f"{n} contexts"))]
        if self.said is None:
            return {}
        return by_key(self.said.rows([item.key for item in self.items.values()], columns))

    @staticmethod
    def _example(
        prompt: tuple[int, ...], tokens: tuple[int, ...], weight: float, arrays: Mapping[str, np.ndarray]
    ) -> Example:
        ids = (*prompt, *tokens)
        return Example(ids, len(prompt), len(ids), weight, arrays=arrays)


def tail_of(arm: OglsArm, rolled: RolledOut) -> list[str]:
    """Right rollouts shorter than the median of all, whose ends are learned by cross-entropy."""
    if not arm.tail_weight:
        return []
    lengths = rolled.table["token_ids"].map(len)
    short = (rolled.table["state"] == "right") & (lengths < lengths.median()) & (lengths > 0)
    return [str(i) for i in rolled.table["rollout_id"][short]]


def ledger_of(taken: Taken, lost: Mapping[str, int], questions: int, drawn: int, group: int) -> pd.DataFrame:
    """Counts of final states of a round's questions and rollouts.

    Args:
        lost: rollouts that were to be trained on and could not be read, by state.
        questions: of the run; `drawn` of them in this round.

    Raises:
        RuntimeError: the totals do not add up.
    """
    states = Counter(taken.why.values())
    for state, count in lost.items():
        states[TRAINED] -= count
        states[state] += count
    if sum(states.values()) != drawn * group:
        raise RuntimeError(f"{sum(states.values())} rollouts have a state, of {drawn * group}")
    best = Counter[str]()
    by_question: dict[str, set[str]] = {}
    for identity, why in taken.why.items():
        by_question.setdefault(identity.rpartition("/")[0], set()).add(why)
    for reasons in by_question.values():
        best["learned_from" if TRAINED in reasons else min(reasons)] += 1
    best["not_drawn"] = questions - drawn
    rows = [("question", state, n) for state, n in best.items() if n]
    rows += [("rollout", state, n) for state, n in states.items() if n]
    return pd.DataFrame(rows, columns=["kind", "state", "count"])
