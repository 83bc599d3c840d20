"""Decides which rollouts an arm learns from, and what the teacher is shown for each.

A decision depends only on rollouts, verdicts and the arm's settings. So it is made again wherever it is
needed, slice by slice. Every rollout is either chosen for training or has a reason why not. The ledger's
state is made later (`ledger.py`): a chosen rollout may lack a reading or a step.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.experiment.arms.ogls_sd import TARGETS, OglsArm
from jobs.files.questions import Question
from jobs.run.run import Run
from jobs.run.slices import Task, do_tasks
from jobs.run.store import digest
from jobs.run.tables import Request, SlicedRequest, request_by_slice
from jobs.stages.drawn import read_drawn
from jobs.stages.rollouts import RolledOut, by_question
from jobs.systems.ogls_sd.steer import ToRead, bare
from selection.steering import ARRAYS, Array, Contexts, Rollout, contexts_of

TRAINED = "trained"
# Targets that share one pass over the wrong rollouts, with the contexts of the rollout's question.
ONE_PASS = ("ogls", "lambda_zero", "positive_only", "positive_mean", "opsd", "opsd_incorrect")


@dataclass
class Usable:
    """The rollouts of one slice that an arm uses.

    Attributes:
        items: the teacher's input for each rollout, by the rollout's id. Empty if the arm needs no teacher.
        why: for each rollout, `trained` or the reason why it is not trained on.
    """

    items: dict[str, ToRead] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> list[str]:
        return [i for i, why in self.why.items() if why == TRAINED]


@dataclass(frozen=True)
class Decision:
    """Decides in a worker which of some rollouts are used, slice by slice. Arms with equal settings decide
    alike.

    Attributes:
        target, exclude_self: the arm's settings.
        read: at most how many tokens of a rollout the teacher reads.
    """

    rolled: RolledOut
    target: str
    exclude_self: bool
    read: int

    @property
    def id(self) -> str:
        """A digest of all that the decision depends on."""
        return digest([self.rolled.id, self.rolled.state.id, self.target, self.exclude_self, self.read])

    def of(self, number: int) -> Usable:
        """Decide about one slice."""
        usable, table = Usable(), self.rolled.read(number)
        questions = read_drawn(self.rolled.questions, number)
        rollouts = by_question(table)
        tokens = dict(zip(table["rollout_id"].tolist(), table["token_ids"].tolist(), strict=True))
        states = dict(zip(table["rollout_id"].tolist(), table["state"].tolist(), strict=True))
        others = contexts_of_others(rollouts, questions) if self.target == "shuffled" else {}
        for question in questions:
            contexts = self._contexts(rollouts[question.id], question.solution, tokens)
            if self.target == "shuffled":
                other = others.get(question.id, NO_OTHER)
                contexts = {i: own if own.why else other for i, own in contexts.items()}
            for identity, own in contexts.items():
                why = own.why or TRAINED
                if why == "no_verdict" or not tokens[identity]:  # the rollout's own state says more
                    why = states[identity] if states[identity] not in ("right", "wrong") else "empty"
                usable.why[identity] = why
                if why == TRAINED and self.target != "rejection_sampling":
                    shows = question.solution if self.target in ONE_PASS else ""
                    read = tokens[identity][: self.read]
                    usable.items[identity] = ToRead(question.prompt, read, shows, own.right, own.wrong)
        return usable

    def told(self, number: int) -> "DecidedSlice":
        """What the driver needs to know of one slice."""
        usable = self.of(number)
        keys = sorted({item.key.hex() for item in usable.items.values()})
        return DecidedSlice(usable.why, digest(keys), len(keys))

    def keys(self, number: int) -> list[bytes]:
        """The keys of what the teacher reads in one slice."""
        return [item.key for item in self.of(number).items.values()]

    def _contexts(
        self, rollouts: Sequence[Rollout], solution: str, tokens: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Contexts]:
        """The contexts for each rollout of one question, as the target needs them."""
        target = self.target
        if target == "rejection_sampling":
            return _own_right(rollouts, tokens)
        if target == "gkd":
            return {r.id: Contexts(why="" if tokens[r.id] else "no_verdict") for r in rollouts}
        if target == "sdpo":
            return {r.id: _sibling(r, rollouts) for r in rollouts}
        # all targets in ONE_PASS use the contexts that ogls needs
        contexts = contexts_of(rollouts, solution, self.exclude_self, "both")
        if target in ("opsd", "opsd_incorrect") and not solution:
            return {i: Contexts(why=own.why or "no_reference") for i, own in contexts.items()}
        if target == "opsd":
            return {
                i: Contexts() if own.why in ("is_right", "all_right") else own for i, own in contexts.items()
            }
        return contexts


@dataclass(frozen=True)
class DecidedSlice:
    """What a decision means for one slice.

    Attributes:
        why: for each rollout, `trained` or the reason why it is not trained on.
        reads: a digest of what the teacher reads.
        readings: the number of rollouts that the teacher reads.
    """

    why: Mapping[str, str]
    reads: str
    readings: int


@dataclass(frozen=True)
class Decided:
    """A decision about all slices, as the driver knows it."""

    decision: Decision
    slices: Sequence[DecidedSlice]

    @property
    def why(self) -> dict[str, str]:
        """For each rollout, `trained` or the reason why it is not trained on."""
        return {rollout: why for own in self.slices for rollout, why in own.why.items()}

    @property
    def readings(self) -> int:
        """How many rollouts the teacher reads."""
        return sum(own.readings for own in self.slices)


def decide(run: Run, label: str, decision: Decision) -> Decided:
    """Decide about all slices."""
    tasks = [(f"{label} {k}", Task(decision.told, (k,))) for k in range(decision.rolled.count)]
    here = len(tasks) == 1 or run.mode != "make"
    found = do_tasks(run, "steer", f"choose rollouts of {label}", tasks, here=here)
    return Decided(decision, [found[name] for name, _ in tasks])


@dataclass(frozen=True)
class ToBeRead:
    """What a teacher reads for several decisions about the same rollouts, slice by slice."""

    decisions: Sequence[Decision]

    def keys(self, number: int) -> list[bytes]:
        """The keys of one slice's readings, sorted and without duplicates."""
        return sorted({key for one in self.decisions for key in one.keys(number)})

    def items(self, number: int) -> dict[bytes, ToRead]:
        """The teacher's input for each reading of one slice."""
        return {item.key: item for one in self.decisions for item in one.of(number).items.values()}


def request_of(decided: Iterable[Decided]) -> Request | SlicedRequest:
    """The request of all readings for decisions about the same rollouts. A reading's key begins with its
    question's, so each slice is a range of keys.
    """
    every = list({own.decision.id: own for own in decided}.values())
    read = ToBeRead([own.decision for own in every])
    identity = digest(sorted([told.reads for told in own.slices] for own in every))
    rows = sum(own.readings for own in every)
    return request_by_slice(identity, rows, every[0].decision.rolled.count, read.keys, read.items)


NO_OTHER = Contexts(why="no_other_question")


def _own_right(rollouts: Sequence[Rollout], tokens: Mapping[str, tuple[int, ...]]) -> dict[str, Contexts]:
    """Accept the right rollouts. Of several with the same tokens only the first is accepted."""
    found, seen = {}, set()
    for one in rollouts:
        why = "no_verdict" if one.is_right is None else "" if one.is_right else "is_wrong"
        if not why and tokens[one.id] in seen:
            why = "duplicate"
        seen.add(tokens[one.id])
        found[one.id] = Contexts(why=why)
    return found


def _sibling(rollout: Rollout, rollouts: Sequence[Rollout]) -> Contexts:
    """The first other right rollout to the same question, without its reasoning (SDPO, arXiv 2601.20802)."""
    if rollout.is_right is None:
        return Contexts(why="no_verdict")
    right = (bare(r.text) for r in rollouts if r.is_right and r.id != rollout.id)
    first = next((text for text in right if text), None)
    return Contexts(why="no_right_sibling") if first is None else Contexts((first,))


def contexts_of_others(
    rollouts: Mapping[str, Sequence[Rollout]], questions: Sequence[Question]
) -> dict[str, Contexts]:
    """For each question of a slice, the contexts of another question of the same slice. That question must
    have right and wrong contexts. So the teacher sees right and wrong texts, but about another question.
    There is no entry if there is no such question.
    """
    whole: dict[str, Contexts] = {}
    for question in questions:
        own = contexts_of(rollouts[question.id], question.solution)
        both = next((one for one in own.values() if not one.why), None)
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
    """The arrays that the teacher computes for an arm. All targets in `ONE_PASS` share one pass, which
    computes all arrays. So a further arm of that kind needs no further pass.
    """
    if arm.target in ONE_PASS:
        return ARRAYS
    return tuple(name for name in ARRAYS if name in TARGETS[arm.target])
