"""A third system in one file: what a newcomer writes to add a kind of arm. It learns from the references
themselves, each repeated; tokens that the student knows count less. Nothing else knows of it but the entry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import pandas as pd
import torch

from cluster.models.messages import Prompt
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.schema import Experiment
from jobs.experiment.section import Name, Section
from jobs.experiment.teachers import Teacher
from jobs.results import outcome as results
from jobs.results.outcome import Outcome, Round, Start
from jobs.run.run import Planned, Run
from jobs.run.store import digest
from jobs.stages.states import Training
from jobs.stages.train import examples_stage, write_examples_of
from jobs.systems.paths import path_seed, train_and_judge
from jobs.systems.record import Bound, System
from training.batches import IGNORED
from training.data import Example, write_examples
from training.objectives.chunked import chunked_loss
from training.objectives.objective import Objective, hidden_states, token_mass

LEDGER = ["kind", "state", "count"]


class ToyArm(Section):
    system: ClassVar[str] = "tests.toy_system"
    kind: Literal["toy"]
    name: Name
    times: int = 2
    gamma: float = 1.0

    def check(self, teachers: Sequence[Teacher]) -> None:
        pass


@dataclass(frozen=True)
class Focal:
    """Cross-entropy times (1 - p)^gamma, of a token whose probability is p."""

    name: ClassVar[str] = "focal"
    gamma: float

    def make(self) -> Objective:
        return Objective(self.loss, token_mass)

    def loss(self, head: Any, _: Any, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        hidden = hidden_states(head, batch)
        labels = batch["labels"][:, 1:]
        there = labels != IGNORED
        labels_N = labels[there]

        def loss_of(logits: torch.Tensor, part: slice) -> torch.Tensor:
            losses = torch.nn.functional.cross_entropy(logits, labels_N[part], reduction="none")
            return ((1 - torch.exp(-losses)) ** self.gamma * losses).sum()

        loss = hidden.sum() * 0.0 + chunked_loss(head, hidden[:, :-1][there], loss_of)
        return loss, {"focal": loss.detach()}


def repeat(renderer: Renderer, rows: Sequence[tuple[Prompt, str]], place: Place) -> dict[str, int]:
    said = [renderer.conversation(prompt, text) for prompt, text in rows]
    write_examples(place, [Example(s.ids, s.prompt_length, s.answer_end) for s in said])
    return {"examples": len(rows)}


def teach(run: Run, start: Start, outcome: Outcome, paths: Any, on_result: Any = None, _: Any = None) -> None:
    e, now = start.experiment, {path: start.students[path.student] for path in paths}
    for number in range(1, e.rounds + 1):
        trainings = {}
        for path, state in now.items():
            arm, label = path.arm, f"{path.label} round {number}"
            assert isinstance(arm, ToyArm)
            rows = [(q.prompt, q.reference) for q in start.questions.values()] * arm.times
            stage = examples_stage(run.store, "toy", state.rendering, digest([str(row) for row in rows]))
            run.planned.append(Planned("repeat", label, None if stage.is_finished else len(rows), "here"))
            write_examples_of(run, label, stage, partial(repeat, state.renderer(), rows))
            ledger = pd.DataFrame([("question", "repeated", len(start.questions))], columns=LEDGER)
            figures = {"references": float(len(rows))}
            outcome.rounds[path, number] = Round(examples=stage, ledger=ledger, figures=figures)
            if stage.is_finished:
                seed = path_seed(e, path, number)
                trainings[path] = Training(label, state, stage, seed, e.train, objective=Focal(arm.gamma))
        now = train_and_judge(run, start, outcome, now, trainings, number, on_result)


def sections(outcome: Outcome) -> Iterable[results.Section]:
    rows = [{"arm": p.arm.name, **own.figures} for (p, _), own in outcome.rounds.items() if own.figures]
    yield results.Section("toy", "References", "How many were learned from.", pd.DataFrame(rows))


def bound(e: Experiment, questions: int) -> Bound:
    return Bound([Planned("repeat", "in all rounds", f"at most {questions:,} references", "here")], 2)


SYSTEM = System(teach, bound, takes_pool=False, sections=sections)
