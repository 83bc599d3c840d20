"""Which drafts a student prefers: a score for each draft, by the signal that an arm names."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from cluster.seeds import derive_seed
from jobs.experiment.arms.arte import ArteArm
from jobs.experiment.elicit import Elicit
from jobs.experiment.placement import Placement
from jobs.experiment.schema import Experiment
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.run.keys import answer_key, question_key
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.run.tables import KEY, Owner
from jobs.run.views import View
from jobs.stages.pool import AnswerPool
from jobs.stages.questions import read_slice
from jobs.stages.score import ToScore, score_pool
from jobs.stages.states import ModelState
from jobs.stages.train import NothingToLearn
from jobs.stages.verify import settings_config
from jobs.systems.arte.preferring import COLUMNS, SCORED, InContext, OneStep, Told, values_in
from selection.costs import CostSettings, compute_cost
from selection.preferences import is_chance, most_telling, reliability

VERSION = 1
NAMES = ["answer_id", "question_id", "style", "task", "score", "error", "tokens", "state", "reason"]
SHARD = 16  # drafts, each with all its items
TASKS, QUESTIONS = "within tasks", "within questions"  # where scores are compared


@dataclass(frozen=True)
class Preferred:
    """A student's scores of a pool's drafts.

    Attributes:
        table: one row for each draft: `NAMES`. The score is NaN where there is none.
        values: the values that the scores are means of [R, M], for drafts with a score. None if a score is a
            single number.
        view: the scores where they are stored, for a cost. None if they follow from another table.
    """

    table: pd.DataFrame
    values: np.ndarray | None
    view: View | None = None

    @cached_property
    def reliability(self) -> dict[str, float]:
        """How well scores repeat on other items: differences within tasks, on which pairs of questions rest,
        and within questions, on which pairs of rationales rest. NaN where it is not known.
        """
        if not self.is_measured or self.values is None:
            return {TASKS: math.nan, QUESTIONS: math.nan}
        known = self.table[self.table["score"].notna()]
        return {
            TASKS: reliability(self.values, known["task"].tolist()),
            QUESTIONS: reliability(self.values, known["question_id"].tolist()),
        }

    @property
    def is_measured(self) -> bool:
        """Whether a score is a mean of several values, so that it can be told how well it repeats."""
        return self.values is not None and self.values.shape[1] > 1

    def repeats(self, within: str, least: float) -> bool:
        """Whether differences within tasks or questions repeat well enough, and by more than chance. Yes if
        it cannot be told.
        """
        if not self.is_measured:
            return True
        known, groups = self.table[self.table["score"].notna()], {TASKS: "task", QUESTIONS: "question_id"}
        freedom = len(known) - known[groups[within]].nunique() - 1
        found = self.reliability[within]
        return found >= least and not is_chance(found, freedom)


@dataclass(frozen=True)
class Signal:
    """How one student's preference is found.

    Attributes:
        items: the items of each task, for `icl`.
        references: worked answers, for `influence`.
    """

    arm: ArteArm
    student: ModelState
    items: Mapping[str, Sequence[Question]]
    references: Sequence[Told]


@dataclass(frozen=True)
class Drafts:
    """The drafts of a pool that can be used.

    Attributes:
        rows: questions with their rationales.
        table: the same drafts, columns `NAMES`.
    """

    rows: list[Row]
    table: pd.DataFrame

    @cached_property
    def tasks(self) -> dict[str, str]:
        """The task of each question, by the question's key. It follows from the question, so it is no part of
        an identity.
        """
        keys = (question_key(row.prompt).hex() for row in self.rows)
        return dict(sorted(zip(keys, self.table["task"].tolist(), strict=True)))

    @cached_property
    def keys(self) -> list[bytes]:
        return [answer_key(question_key(row.prompt), row.answer, row.calls) for row in self.rows]


def prefer(
    run: Run, e: Experiment, elicit: Elicit, drafts: Drafts, pool: AnswerPool, signals: Mapping[str, Signal]
) -> dict[str, Preferred]:
    """Score a pool's drafts under several signals. Returns label -> scores. In a plan, signals whose scores
    do not exist yet are left out.
    """
    asked = {label: s for label, s in signals.items() if s.arm.signal in ("icl", "influence")}
    views = ask_students(run, e, elicit, drafts, pool, asked)
    found = {label: _read(drafts, pool, view) for label, view in views.items() if view.is_finished}
    for label, signal in signals.items():
        if signal.arm.signal == "random":
            drawn = [derive_seed(e.seed, "random", row.answer) / 2**63 for row in drafts.rows]
            found[label] = Preferred(drafts.table.assign(score=drawn, error=0.0), None)
    by_cost = {label: s for label, s in signals.items() if s.arm.signal == "scas"}
    students = list({s.student.id: s.student for s in by_cost.values()}.values())
    scored = score_pool(run, students, pool, e.score, e.placement, "of drafts") if students else {}
    for label, signal in by_cost.items():
        scores = scored[signal.student.id]
        if scores.is_finished:
            rows = scores.read()
            usable = rows[rows["state"] == SCORED]
            cost = compute_cost(usable, CostSettings("scas", signal.arm.scas_lambda), {})
            by_id = dict(zip(usable["answer_id"], -cost, strict=True))
            known = [by_id.get(a, math.nan) for a in drafts.table["answer_id"]]
            found[label] = Preferred(drafts.table.assign(score=known, error=0.0), None)
    return {label: found[label] for label in signals if label in found}


def drafts_of(pool: AnswerPool) -> Drafts:
    """Read a pool's usable drafts: those of the first harvest, some thousands.

    Raises:
        NothingToLearn: there is none.
    """
    rows, told = list[Row](), []
    for number in range(pool.count):
        questions = read_slice(pool.questions, number)
        lengths = pool.told(number).set_index("answer_id")["answer_tokens"]
        own = sorted(ToScore(pool).items(number).values(), key=lambda row: row.answer_id)
        rows += own
        told += [
            (
                *(r.answer_id, r.question_id, r.teacher, questions[r.question_id].family),
                *(math.nan, math.nan, int(lengths[r.answer_id]), SCORED, ""),
            )
            for r in own
        ]
    if not rows:
        raise NothingToLearn(
            "no rationale of the first harvest can be used",
            ", ".join(f"{n} {state}" for state, n in pool.by_state.items()) or "none",
            "at least one",
            "look at the rationales: verify.method must find a result in them, and elicit.drafts accept it",
        )
    return Drafts(rows, pd.DataFrame(told, columns=NAMES))


def ask_students(
    run: Run, e: Experiment, elicit: Elicit, drafts: Drafts, pool: AnswerPool, signals: Mapping[str, Signal]
) -> dict[str, View]:
    """Score drafts by items or by influence, in actors. Returns the view of each signal."""
    place: Placement = e.placement
    request, wants = ToScore(pool).request(), {}
    for label, signal in signals.items():
        owner, make = asker_of(e, elicit, drafts, signal)
        wants[label] = Want(
            "prefer",
            label,
            run.view(owner, request),
            make,
            SHARD,
            place.score_workers,
            place.needs,
            COLUMNS,
            count_scores,
            estimate=partial(left_to_prefer, elicit, signal),
            place=f"{place.score_workers} × ({place.needs})",
            counted=["state"],
        )
    make_rows(run, list(wants.values()), "drafts")
    return {label: want.view for label, want in wants.items()}


def asker_of(
    e: Experiment, elicit: Elicit, drafts: Drafts, signal: Signal
) -> tuple[Owner, "partial[InContext] | partial[OneStep]"]:
    """The owner of a signal's scores, and what makes them in an actor."""
    student, gpus = signal.student, e.placement.num_gpus
    identity: dict[str, Any] = {"student": student.id, "rendering": student.rendering}
    named = {"name": f"{student.name}, {signal.arm.signal}", **student.about}
    if signal.arm.signal == "influence":
        warm = warm_drafts(e, drafts, elicit)
        lora = None if e.train.lora is None else asdict(e.train.lora)
        identity |= {"signal": "influence", **elicit.influence.model_dump(), "lora": lora, "seed": e.seed}
        identity |= {"references": content_of(signal.references), "warm": content_of(warm)}
        settings = (student, elicit.influence, tuple(signal.references), tuple(warm), e.train.lora)
        return Owner("preferences", VERSION, identity, named), partial(OneStep, *settings, e.seed, gpus)
    items = {task: tuple(own) for task, own in signal.items.items()}
    shown = {t: [[question_key(q.prompt).hex(), list(q.references)] for q in own] for t, own in items.items()}
    limit = e.evaluate.max_new_tokens
    identity |= {"signal": "icl", "demonstration": elicit.demonstration, "limit": limit}
    identity |= {"items": digest(shown), "verify": settings_config(e.verify)}
    given = (student, elicit, items, drafts.tasks, e.questions.system, e.verify, limit, gpus)
    return Owner("preferences", VERSION, identity, named), partial(InContext, *given)


def content_of(told: Sequence[Told]) -> str:
    """A digest of worked answers."""
    return digest([[question_key(t.question.prompt).hex(), t.text] for t in told])


def warm_drafts(e: Experiment, drafts: Drafts, elicit: Elicit) -> list[Told]:
    """The drafts that a student's optimizer is warmed up on. They follow from the seed."""
    most = elicit.influence.warm_steps * elicit.influence.batch_size
    order = sorted(drafts.rows, key=lambda r: digest([e.seed, "warm", r.answer_id]))
    return [Told(Question(r.question_id, r.prompt), r.answer) for r in order[:most]]


def left_to_prefer(elicit: Elicit, signal: Signal, rows: Sequence[Row]) -> str:
    """What a plan prints about drafts that have no score yet."""
    if signal.arm.signal == "icl":
        return f"{len(rows):,} drafts, {len(rows) * elicit.items:,} answers"
    return f"{len(rows):,} drafts, as many steps and {len(rows) * len(signal.references):,} reference losses"


def count_scores(rows: pd.DataFrame) -> dict[str, int]:
    """What a view records of its rows."""
    return {"drafts": len(rows), "lost": int((rows["state"] != SCORED).sum())}


def _read(drafts: Drafts, pool: AnswerPool, view: View) -> Preferred:
    """Join scores to the drafts."""
    rows = pd.concat([view.read_slice(number) for number in range(pool.count)], ignore_index=True)
    by_key = {key: k for k, key in enumerate(rows[KEY].tolist())}
    own = rows.iloc[[by_key[key] for key in drafts.keys]].reset_index(drop=True)
    told = {name: own[name] for name in ("score", "error", "state", "reason")}
    table = drafts.table.assign(**told)
    values = [values_in(v) for v in own["values"][own["state"] == SCORED]]
    return Preferred(table, np.stack(values) if values else None, view)


def choose_items(
    elicit: Elicit, validation: Sequence[Question], right_NM: np.ndarray | None, seed: int, task: str
) -> list[Question]:
    """The validation items that tell most, or as many at random.

    Args:
        right_NM: of each respondent and item, 1 where it was right. None for random items.

    Raises:
        BadInput: too few items tell anything, because all respondents answer the others alike.
    """
    if right_NM is None:
        order = sorted(validation, key=lambda q: digest([seed, "items", question_key(q.prompt).hex()]))
        return order[: elicit.items]
    places = most_telling(right_NM, elicit.items)
    if len(places) < elicit.items:
        raise BadInput(
            f"too few validation items of task {task} tell students apart",
            f"{len(places)} of {len(validation)}: all respondents are right or all are wrong on the others",
            f"{elicit.items}, elicit.items",
            "raise elicit.validation, lower elicit.items, or set items: random for the arm",
        )
    return [validation[k] for k in places]
