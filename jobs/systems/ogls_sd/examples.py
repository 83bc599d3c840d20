"""Writes an arm's training examples from rollouts and the teacher's readings, slice by slice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.experiment.arms.ogls_sd import OglsArm
from jobs.run.run import Run
from jobs.run.slices import Task, do_tasks
from jobs.run.store import Stage
from jobs.run.views import Finished
from jobs.stages.answers import LOGPROBS
from jobs.stages.drawn import read_drawn
from jobs.stages.rollouts import RolledOut
from jobs.stages.states import ModelState
from jobs.stages.train import EXAMPLES
from jobs.systems.ogls_sd.steer import arrays_in, by_key
from jobs.systems.ogls_sd.usable import Decision
from training.data import SUFFIX, Example, join_examples, write_examples
from training.targets import SAMPLED


@dataclass(frozen=True)
class WriteExamples:
    """Runs in a worker. Writes an arm's examples of one slice.

    Attributes:
        decision: which rollouts are trained on.
        said: the teacher's readings. None if the arm needs no teacher.
    """

    arm: OglsArm
    state: ModelState
    decision: Decision
    said: Finished | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays that the arm's objective reads."""
        steered = self.arm.steered
        return () if steered is None else steered.arrays

    def __call__(self, number: int, place: Place, tail: Sequence[str]) -> dict[str, Any]:
        """Write the examples of a slice. Returns their number, and the state and reason of each rollout that
        could not be read.

        Args:
            tail: the rollouts whose last tokens are learned by cross-entropy.
        """
        usable, table = self.decision.of(number), self.decision.rolled.read(number)
        rows: dict[str, dict[str, Any]] = {
            str(row["rollout_id"]): {str(k): v for k, v in row.items()} for row in table.to_dict("records")
        }
        prompts = self._prompts(number, [*usable.trained, *tail], rows)
        columns = ["state", "reason", "tokens", *(c for n in self.names for c in (n, f"{n} contexts"))]
        read = {}
        if self.said is not None:
            keys = [usable.items[i].key for i in usable.trained]
            read = by_key(self.said.rows(keys, columns))
        examples, lost = [], dict[str, list[str]]()
        for identity in usable.trained:
            row, arrays = rows[identity], dict[str, np.ndarray]()
            tokens = row["token_ids"]
            if self.names:
                item = usable.items[identity]
                reading = read[item.key]
                arrays = arrays_in(reading, self.names) if reading["state"] == "read" else {}
                if len(arrays) < len(self.names):
                    lost[identity] = why_lost(str(reading["state"]), str(reading["reason"]))
                    continue
                tokens = item.tokens
                sampled = np.asarray(row[LOGPROBS][: len(tokens)], dtype=np.float32)
                arrays |= {SAMPLED: sampled.reshape(1, -1, 1)}
            weight = 1.0 / len(tokens) if self.arm.normalise == "row" else 1.0
            prompt = prompts[row["question_id"]]
            ids = (*prompt, *tokens)
            examples.append(Example(ids, len(prompt), len(ids), weight, arrays=arrays))
        examples += [self._tail(prompts[rows[i]["question_id"]], rows[i]["token_ids"]) for i in tail]
        write_examples(place, examples)
        return {"examples": len(examples), "lost": lost}

    def _prompts(
        self, number: int, rollouts: Sequence[str], rows: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, tuple[int, ...]]:
        """The token ids of the prompts of these rollouts' questions, by question id."""
        asked, renderer = {rows[i]["question_id"] for i in rollouts}, self.state.renderer()
        questions = read_drawn(self.decision.rolled.questions, number)
        return {q.id: renderer.prompt(q.prompt) for q in questions if q.id in asked}

    def _tail(self, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> Example:
        """The example of a rollout's last tokens."""
        start = max(0, len(tokens) - self.arm.tail_tokens)
        by_row = self.arm.normalise == "row"
        weight = self.arm.tail_weight / (len(tokens) - start) if by_row else self.arm.tail_weight
        ids = (*prompt, *tokens)
        return Example(ids, len(prompt) + start, len(ids), weight)


def write_slices(
    run: Run, label: str, stage: Stage, write: WriteExamples, tail: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Write the examples of all slices as one file. Returns what `WriteExamples` returns, for all of them.

    Args:
        tail: for each slice, the rollouts whose last tokens are learned.
    """
    here = len(tail) == 1
    pieces = [stage.directory / f"piece-{k:05d}{SUFFIX}" for k in range(len(tail))]
    tasks = [
        (f"{label} {k}", Task(write, (k, piece, own)))
        for k, (piece, own) in enumerate(zip(pieces, tail, strict=True))
    ]
    try:
        found = do_tasks(run, "examples", label, tasks, here)
        made = [found[name] for name, _ in tasks]
        count = sum(own["examples"] for own in made)
        if count:
            widths = dict.fromkeys((*write.names, SAMPLED), 1) if write.names else {}
            joined = Task(join_examples, (pieces, stage.part(EXAMPLES), widths))
            do_tasks(run, "examples", f"{label} as one file", [("all", joined)], here)
        return {"examples": count, "lost": {i: why for own in made for i, why in own["lost"].items()}}
    finally:
        for piece in pieces:
            piece.unlink()


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


def tail_of(arm: OglsArm, rolled: RolledOut) -> list[list[str]]:
    """For each slice, the right rollouts that are shorter than the median of all rollouts. Their last tokens
    are learned by cross-entropy. Empty if the arm has no `tail_weight`.
    """
    if not arm.tail_weight:
        return [[] for _ in range(rolled.count)]
    slices = [rolled.told(number) for number in range(rolled.count)]
    median = pd.concat([own["tokens"] for own in slices]).median()
    found = []
    for own in slices:
        is_short = (own["state"] == "right") & (own["tokens"] < median) & (own["tokens"] > 0)
        found.append([str(i) for i in own["rollout_id"][is_short]])
    return found
