"""Measures: what some costs need of a student beyond one forward pass over question and answer. The student
reads answers sentence by sentence or without their question, or gradients are taken. Each measure of a
student has a table of its own, which is made only if an arm needs it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cluster.errors import BadInput
from cluster.models.rendering import Renderer
from jobs.experiment.arms.select import SelectArm
from jobs.experiment.placement import Placement
from jobs.experiment.schema import Experiment
from jobs.experiment.stages import Score
from jobs.files.answers import Row
from jobs.run.keys import HALF
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.run.tables import Owner, Request, SlicedRequest, request_by_slice, unusual
from jobs.stages.pool import AnswerPool
from jobs.stages.questions import QUESTIONS
from jobs.stages.score import Further, ToScore, count_scores, left_to_score
from jobs.stages.scorer import TOLD, AnyScorer, ScoreHandler, names_of
from jobs.stages.states import ModelState
from jobs.stages.train import bring_back
from selection.answer_alone import Unconditioned, UnconditionedStatistics
from selection.costs import MEASURE_OF, Measure
from selection.gradients import Gradients, GradientStatistics, SketchStatistics
from selection.scoring import Scorer
from selection.steps import Steps, StepStatistics
from selection.windows import LocalStatistics, Windows

VERSION = 2
RESULTS: dict[Measure, type] = {
    "sentences": LocalStatistics,
    "alone": UnconditionedStatistics,
    "gradient": GradientStatistics,
    "sketch": SketchStatistics,
    "steps": StepStatistics,
}
GRACE_QUESTIONS = 512  # as many as GRACE's program takes; here those with the smallest keys


@dataclass(frozen=True)
class Measuring:
    """A measure and its parameters.

    Attributes:
        window: how many earlier sentences come before each sentence.
        questions: how many questions' answers are measured. None for all.
    """

    name: Measure
    window: int = 0
    questions: int | None = None

    @property
    def takes_gradients(self) -> bool:
        return self.name in ("gradient", "sketch")

    @property
    def label(self) -> str:
        """The measure's name with its parameters, as shown to users."""
        window = f" behind {self.window}" if self.name == "sentences" else ""
        return f"{self.name}{window}"


def measuring_of(arm: SelectArm) -> Measuring | None:
    """The measure that an arm's cost needs. None if one forward pass is enough."""
    name = MEASURE_OF.get(arm.cost or "")
    if name is None:
        return None
    return Measuring(
        name,
        arm.window if name == "sentences" else 0,
        GRACE_QUESTIONS if arm.cost == "grace" else None,
    )


def check_gradients(e: Experiment, questions: int) -> None:
    """Refuse backward passes for more answers than allowed, before any teacher is asked.

    Raises:
        BadInput: there may be more. Says how many.
    """
    g = e.generate
    samples = max(g.samples, g.max_samples if g.until_verified else 1)
    for arm in (arm for arm in e.arms if isinstance(arm, SelectArm)):
        measuring = measuring_of(arm)
        if measuring is not None and measuring.takes_gradients:
            asked = min(questions, measuring.questions or questions)
            refuse_many(
                asked * len(e.teachers) * samples,
                f"{asked:,} questions x {len(e.teachers)} teachers x {samples} answers",
                e.score,
            )


def refuse_many(answers: int, of: str, settings: Score) -> None:
    """Refuse backward passes for this many answers.

    Raises:
        BadInput: these are more than `score.most_gradients`.
    """
    if answers > settings.most_gradients:
        raise BadInput(
            f"gradient_norm and grace take one backward pass for each answer, and there may be {answers:,}",
            of,
            f"at most {settings.most_gradients:,} answers, score.most_gradients",
            "raise it, set limit, or use a cost of one forward pass (scas approximates gradient_norm)",
        )


class MeasureHandler(ScoreHandler):
    """Handler in an actor: loads the student once, and computes one measure of answers under it."""

    def __init__(self, student: ModelState, settings: Score, measuring: Measuring, num_gpus: float) -> None:
        self.measuring = measuring
        super().__init__(student, settings, num_gpus)

    def scorer_of(self, model: Any, renderer: Renderer) -> AnyScorer:
        if self.measuring.takes_gradients:
            return Gradients(model, renderer.special_ids, self.measuring.name == "sketch")
        if self.measuring.name == "steps":
            return Steps(model, renderer.tokenizer, renderer.special_ids)
        settings = self.settings
        scorer = Scorer(model, renderer.special_ids, settings.target_layer, settings.token_budget)
        if self.measuring.name == "sentences":
            return Windows(scorer, renderer.tokenizer, self.measuring.window)
        return Unconditioned(scorer, renderer.header_ids)


def owner_of(student: ModelState, settings: Score, measuring: Measuring) -> Owner:
    """The owner of these rows. It depends on the weights, the rendering, the measure, its window and
    `max_length`.
    """
    read = {"max_length": settings.max_length, "window": measuring.window}
    identity = {"student": student.id, "rendering": student.rendering, "measure": measuring.name}
    identity |= unusual(read, {"max_length": 4096, "window": 0})
    about = {"name": f"{student.name}, {measuring.name}", **student.about, **read}
    return Owner("measures", VERSION, identity, about)


@dataclass(frozen=True)
class FirstToScore:
    """A pool's verified answers to the questions with the smallest keys.

    Attributes:
        last: the key of the last of these questions.
    """

    every: ToScore
    last: bytes

    def keys(self, number: int) -> list[bytes]:
        """The keys of statistics, sorted and without duplicates."""
        return [key for key in self.every.keys(number) if key[:HALF] <= self.last]

    def items(self, number: int) -> dict[bytes, Row]:
        """The answer that is measured under each key."""
        return {key: row for key, row in self.every.items(number).items() if key[:HALF] <= self.last}


def request_of(pool: AnswerPool, measuring: Measuring) -> Request | SlicedRequest:
    """The request of all answers that a measure is computed for."""
    every = ToScore(pool)
    if measuring.questions is None:
        return every.request()
    keys: list[bytes] = []
    for number in range(pool.count):
        keys += sorted(pool.questions.read(QUESTIONS, number, ["key"])["key"].tolist())
        if len(keys) >= measuring.questions:
            break
    first, said = FirstToScore(every, keys[: measuring.questions][-1]), pool.states.counts()
    identity = digest([said["to_score"], first.last.hex()])
    most = said["states"].get("verified", 0)
    return request_by_slice(identity, most, pool.count, first.keys, first.items)


def measure_pool(
    run: Run,
    wanted: Mapping[str, tuple[ModelState, Iterable[Measuring]]],
    pool: AnswerPool,
    settings: Score,
    placement: Placement,
) -> dict[tuple[str, Measuring], Further]:
    """Compute measures of a pool's verified answers under several students.

    Args:
        wanted: students and their measures, by the students' ids.
    """
    pairs = {(i, m): student for i, (student, some) in wanted.items() for m in some}
    requests = {m: request_of(pool, m) for m in {m for _, m in pairs}}
    for measuring, request in requests.items():
        if measuring.takes_gradients and measuring.questions is None:
            rows = request.rows if isinstance(request, SlicedRequest) else len(request.items)
            refuse_many(rows, "verified answers", settings)
    views = {(i, m): run.view(owner_of(s, settings, m), requests[m]) for (i, m), s in pairs.items()}
    students = {i: pairs[i, m] for (i, m), view in views.items() if not view.is_finished}
    bring_back(run, list(students.values()), placement)
    wants = [
        Want(
            "measure",
            f"{m.label} {s.name} {i[:8]}",
            views[i, m],
            partial(MeasureHandler, s, settings, m, placement.num_gpus),
            settings.shard_size,
            placement.score_workers,
            placement.needs,
            [*TOLD, *names_of(RESULTS[m.name])],
            count_scores,
            estimate=partial(left_to_score, s),
            place=f"{placement.score_workers} × ({placement.needs})",
        )
        for (i, m), s in pairs.items()
    ]
    make_rows(run, wants, "answers")
    return {(i, m): Further(view, tuple(names_of(RESULTS[m.name]))) for (i, m), view in views.items()}
