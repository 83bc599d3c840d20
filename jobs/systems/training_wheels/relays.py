"""Answers of a student that may ask its teacher for a token, as rows: one table for each student, teacher and
way of calling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cluster.models.relay import Calls
from cluster.placement import Needs
from jobs.experiment.placement import Placement
from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import ModelTeacher
from jobs.files.questions import Question
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.tables import Owner, Request, unusual
from jobs.run.views import View
from jobs.stages.answers import count_answers, within
from jobs.stages.hosted import Draw
from jobs.stages.states import ModelState
from jobs.stages.train import bring_back
from jobs.systems.training_wheels.handler import READ, RELAYED, TOLD, Asking, RelayHandler

VERSION = 1


def asking_of(questions: Sequence[Question], sentence: str, samples: int) -> Request:
    """Every question, so many times, under one sentence."""
    asks = [Asking(q.prompt, sentence, k) for q in questions for k in range(samples)]
    return Request({one.key: one for one in asks})


@dataclass(frozen=True)
class Relays:
    """Answers of one student, with one teacher, under one way of calling.

    Attributes:
        help_id: the student's help token, which is left out where both models are compared.
        draw: how both models' tokens are drawn.
        is_read: whether both models read the answers again, for `READ`.
        needs: the resources of an actor that holds both models.
    """

    student: ModelState
    teacher: ModelState
    help_id: int
    calls: Calls
    draw: Draw
    is_read: bool
    request: Request
    needs: Needs

    @property
    def columns(self) -> list[str]:
        return [*TOLD, *RELAYED, *(READ if self.is_read else [])]

    def view(self, run: Run) -> View:
        calls = unusual(asdict(self.calls), asdict(Calls()))
        # the seed always: calls are drawn where tokens are the likeliest, too
        drawn = {**self.draw.identity(), "seed": self.draw.seed, "read": self.is_read}
        identity = {"student": self.student.id, "teacher": self.teacher.id, "calls": calls, **drawn}
        about = {"name": self.student.name, "teacher": self.teacher.name, **identity}
        return run.view(Owner("relay", VERSION, identity, about), self.request, within(self.draw.limit))


def needs_of(e: Experiment, teacher: str) -> Needs:
    """The resources of an actor that holds a student and this teacher."""
    own = next((t.needs for t in e.teachers if isinstance(t, ModelTeacher) and t.name == teacher), Needs(0.0))
    other = e.placement.needs
    return Needs(
        max(own.num_cpus, other.num_cpus),
        max(own.num_gpus, other.num_gpus),
        own.memory_gib + other.memory_gib,
        tuple(sorted({*own.labels, *other.labels})),
    )


def relays(
    run: Run, kind: str, wanted: Mapping[str, Relays], shard_size: int, placement: Placement
) -> dict[str, View]:
    """Make the answers that do not exist yet. Returns label -> view."""
    views = {label: one.view(run) for label, one in wanted.items()}
    distinct = {v.id for v in views.values() if not v.is_finished}
    workers = 1 if len(distinct) >= placement.evaluate_workers else placement.evaluate_workers
    lacking = [wanted[label].student for label, view in views.items() if not view.is_finished]
    bring_back(run, lacking, placement)
    wants = [
        Want(
            kind,
            label,
            views[label],
            partial(
                RelayHandler,
                one.student,
                one.teacher,
                one.help_id,
                one.calls,
                one.draw,
                one.is_read,
                one.needs,
            ),
            shard_size,
            workers,
            one.needs,
            one.columns,
            count_relays,
            estimate=lambda left: f"{len(left):,} answers",
            place=f"{workers} × ({one.needs}), both models",
            counted=[*COUNTED, *(READ_COUNTED if one.is_read else [])],
        )
        for label, one in wanted.items()
    ]
    make_rows(run, wants, "answers")
    return views


COUNTED = ["finish", "prompt_tokens", "answer_tokens", "usd", "by_teacher", "processed"]
READ_COUNTED = ["help", "kl", "overlap"]
PARTS = 5  # of decisions, by how far the student is from its teacher


def count_relays(rows: pd.DataFrame) -> dict[str, Any]:
    """The counts of answers, of their decisions and of calls, and of the tokens that teachers read.

    If the answers were read again, also means over decisions: KL from the teacher, overlap with it, and the
    probability of a call in each fifth of the decisions, by their KL.
    """
    found = {
        **count_answers(rows),
        "decisions": int(sum(len(own) for own in rows["by_teacher"])),
        "calls": int(sum(sum(own) for own in rows["by_teacher"])),
        "processed": int(rows["processed"].sum()),
    }
    if "kl" not in rows or not found["decisions"]:
        return found
    calls, kl, overlap = (np.concatenate([np.asarray(v, float) for v in rows[c]]) for c in READ_COUNTED)
    if len(calls) == len(kl) > 0:
        found |= {"kl": float(kl.mean()), "overlap": float(overlap.mean())}
        parts = np.array_split(np.argsort(kl, kind="stable"), PARTS)
        found |= {f"help {k + 1}": float(calls[part].mean()) for k, part in enumerate(parts) if len(part)}
    return found


def call_share(counts: Mapping[str, Any]) -> float:
    """Calls per decision, by a view's counts. NaN if there is no decision."""
    return counts["calls"] / counts["decisions"] if counts["decisions"] else float("nan")
