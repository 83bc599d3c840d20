"""The stage `route`: what the first questions tell about whom to ask the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cluster.seeds import derive_seed
from jobs.experiment.arms.route import RouteArm
from jobs.files.questions import Question
from jobs.results.outcome import StudentPath
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.slices import Task, do_tasks, joined
from jobs.run.store import Stage, digest, write_table
from jobs.stages.questions import read_slice
from jobs.stages.score import PoolScores
from jobs.stages.states import ModelState
from jobs.systems.paths import arm_as
from jobs.systems.route.asking import Asked
from selection.costs import compute_cost
from selection.routing import Routing, route, values_of, words_of

VERSION = 1
ROUTES = "routes"


@dataclass(frozen=True)
class Routed:
    """Whom a path asks the questions outside its first part.

    Attributes:
        first: the ids of the first questions.
    """

    stage: Stage
    arm: RouteArm
    first: frozenset[str]

    @property
    def told(self) -> Mapping[str, Any]:
        """What the first questions told: `gain`, `low`, `high`, `can_tell`, `best`, `ridge`, `means`."""
        return dict(self.stage.manifest()["about"])

    @property
    def chooses(self) -> bool:
        """Whether teachers are chosen by question."""
        return self.arm.by == "router" and bool(self.told["can_tell"] or self.arm.force)

    def next_asked(self, asked: Asked, questions: frozenset[str], number: int) -> Asked:
        """Add the teacher in place `number` of each of these questions to those that are asked."""
        table = self.stage.read(ROUTES)
        own = table[(table["place"] == number) & table["question_id"].isin(questions)]
        further = {str(t): frozenset(part.tolist()) for t, part in own.groupby("teacher")["question_id"]}
        return {t: ids | further.get(t, frozenset()) for t, ids in asked.items()}


def learn_routes(
    run: Run,
    path: StudentPath,
    student: ModelState,
    teachers: Sequence[str],
    scores: PoolScores,
    first: frozenset[str],
    seed: int,
) -> Routed | None:
    """Learn from the answers to the first questions, once. None in a plan, if it was not done yet.

    Args:
        scores: of all answers to first questions, also those of other paths.
    """
    arm = arm_as(path, RouteArm)
    config = {
        "by": arm.by,
        "learnability": arm.learnability,
        "cost": [arm.cost, arm.scas_lambda, arm.length_exponent],
        "tries": arm.tries,
        "force": arm.force,
        "seed": seed if arm.by == "random" else 0,
        "teachers": sorted(teachers),
    }
    pool = scores.pool
    inputs = {"scores": scores.id, "pool": pool.id, "questions": pool.questions.id}
    stage = run.store.stage("route", VERSION, config, inputs | {"first": digest(sorted(first))})
    run.note("route", path.label, stage)
    with run.claimed([stage]):
        if not stage.is_finished and run.mode == "make":
            task = Task(write_routes, (stage, arm, student, tuple(sorted(teachers)), scores, first, seed))
            told = do_tasks(run, "route", path.label, [(path.label, task)])[path.label]
            stage.finish([ROUTES], about=told, rows=stage.count_rows(ROUTES))
    return Routed(stage, arm, first) if stage.is_finished else None


def write_routes(
    stage: Stage,
    arm: RouteArm,
    student: ModelState,
    teachers: tuple[str, ...],
    scores: PoolScores,
    first: frozenset[str],
    seed: int,
) -> dict[str, Any]:
    """Runs in a worker. Writes for each other question the teachers in the order in which they are asked
    (columns question_id, place, teacher, expected), as many as may be tried. Returns what was learned.
    """
    pool = scores.pool
    questions = {i: q for k in range(pool.count) for i, q in read_slice(pool.questions, k).items()}
    keys = {i: question_key(q.prompt) for i, q in questions.items()}
    ids = sorted(questions, key=lambda i: (keys[i], i))
    told = list({keys[i]: i for i in ids if i in first}.values())  # of questions that ask the same, one
    places = {i: k for k, i in enumerate(ids)}
    values = values_on(scores, arm, told, teachers)
    rest = [i for i in ids if i not in first]
    words = words_under(student, [questions[i] for i in ids])
    found = route(words, [places[i] for i in told], [places[i] for i in rest], values, teachers)
    order = order_of(found, arm, rest, seed)
    rows = [
        (i, place, teachers[int(t)], float(found.expected[k, int(t)]))
        for k, i in enumerate(rest)
        for place, t in enumerate(order[k][: arm.tries])
    ]
    columns = ["question_id", "place", "teacher", "expected"]
    write_table(stage.part(ROUTES), pd.DataFrame(rows, columns=columns))
    return {
        "gain": found.gain,
        "low": found.low,
        "high": found.high,
        "can_tell": found.can_tell,
        "best": found.best,
        "ridge": found.ridge,
        "means": dict(zip(teachers, found.means.tolist(), strict=True)),
    }


def values_on(scores: PoolScores, arm: RouteArm, first: list[str], teachers: tuple[str, ...]) -> np.ndarray:
    """The values of all teachers' answers to the first questions, [Q, T]. Of several samples the mean is
    taken. An answer that is not there, or could not be scored, has no value.
    """
    each, kept = [], set(first)
    for number in range(scores.pool.count):
        answers = scores.pool.told(number)
        answers = answers[answers["question_id"].isin(kept)]
        scored = scores.slice(number)
        usable = scored[(scored["state"] == "scored") & scored["question_id"].isin(kept)]
        usable = usable.reset_index(drop=True)
        costs = compute_cost(usable, arm.cost_settings) if len(usable) else pd.Series(dtype=float)
        by_id = dict(zip(usable["answer_id"].tolist(), costs.tolist(), strict=True))
        each.append(answers.assign(cost=[by_id.get(i, np.nan) for i in answers["answer_id"].tolist()]))
    every = joined(each)
    right = every["state"].isin(["verified", "duplicate"]).to_numpy(bool)
    # a teacher's later samples with the same text are not scored again
    costs_of_texts = every.groupby("answer_key")["cost"].transform("first")
    known = every["cost"].where(every["cost"].notna(), costs_of_texts).to_numpy(float)
    every["value"] = values_of(right[:, None], known[:, None], arm.learnability)[:, 0]
    means = every.groupby(["question_id", "teacher"])["value"].mean().unstack(fill_value=0)
    return means.reindex(index=first, columns=list(teachers), fill_value=0.0).to_numpy(float)


def words_under(student: ModelState, questions: list[Question]) -> Any:
    """The words of questions, all their turns, in the student's tokens."""
    tokenizer = student.renderer().tokenizer
    texts = ["\n".join(turn.content for turn in q.prompt.turns) for q in questions]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return words_of(ids, [q.family for q in questions])


def order_of(found: Routing, arm: RouteArm, questions: list[str], seed: int) -> np.ndarray:
    """The teachers of each question in the order in which they are asked, as numbers [Q, T]."""
    count = len(found.teachers)
    if arm.by == "random":
        draws = np.random.default_rng(derive_seed(seed, 1)).random((len(questions), count))
        return draws.argsort(axis=1)
    if arm.by == "router" and (found.can_tell or arm.force):
        return (-found.expected).argsort(axis=1, kind="stable")
    return np.tile((-found.means).argsort(kind="stable"), (len(questions), 1))
