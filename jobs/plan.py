"""The plan of a run: for each stage what is cached, what remains, and where it would run. It starts no model
and no Ray.

A plan is the run itself in a mode that records work and does not do it. So it cannot differ from a run.
Everything before the first missing result is exact. After that, counts are upper bounds, marked "at most".
"""

import operator
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby

from jobs.experiment.miniature import MINIATURE
from jobs.experiment.schema import Experiment
from jobs.files.questions import rows_of
from jobs.pipeline import begin, harvest_of, look, teach
from jobs.run.mismatch import older_layout
from jobs.run.run import Planned, Run, Unmade
from jobs.stages.ask import Left
from jobs.stages.train import train_place
from jobs.systems.record import systems_of

SUMMED = ("train", "evaluate")  # added up over paths and rounds, in one row each at the end


@dataclass(frozen=True)
class PlanRow:
    """One line of the plan."""

    stage: str
    cached: str
    remaining: str
    placement: str


@dataclass(frozen=True)
class Extent:
    """The size of a run, as far as a plan can know it.

    Attributes:
        questions, held_out: the numbers of training and held-out questions.
        over: the number of rounds that will not happen, because paths have ended.
    """

    questions: int = 0
    held_out: int = 0
    over: int = 0


def make_plan(run: Run, experiment: Experiment) -> list[PlanRow]:
    """Make the plan of a run. Its rows are in the order of the stages. Trainings and evaluations of all paths
    are added up in the last two rows.

    Args:
        run: a run in the mode `plan`.
    """
    extent = extent_of(run, experiment)
    rows = [*_rows(run.planned), *_rows_to_come(run, experiment, extent)]
    return [*rows, *_path_rows(run.planned, experiment, extent)]


def extent_of(run: Run, e: Experiment) -> Extent:
    """Go through the run until a result is missing, and record its stages in `run.planned`."""
    world = e.miniature
    if world is None:
        extent = Extent()
    else:
        files = e.questions
        extent = Extent(
            rows_of(world.train_questions, files.train_rows),
            rows_of(world.evaluate_questions, files.evaluate_rows),
        )
    with suppress(Unmade):
        looked = look(run, e)
        extent = Extent(len(looked.questions), len(looked.held_out))
        ended = teach(run, begin(run, looked)).ended
        over = sum(e.rounds - number + 1 for number, _ in ended.values())
        extent = replace(extent, over=over)
    return extent


def notes(run: Run) -> list[str]:
    """Lines after the plan: existing rows and stages that look usable and are not, with the reason."""
    lines = [f"{p.kind} {p.label}: {p.unfit}" for p in run.planned if p.unfit]
    return [*lines, *filter(None, [older_layout(run.store.root)])]


def _rows(planned: Sequence[Planned]) -> Iterator[PlanRow]:
    """The rows of the recorded stages, in order. If several teachers are to be asked, a row with their sum
    follows.
    """
    for kind, group in groupby((p for p in planned if p.kind not in SUMMED), key=lambda p: p.kind):
        own = list(group)
        yield from (_row(p) for p in own)
        left = [p.remaining for p in own if isinstance(p.remaining, Left)]
        if len(left) > 1:
            yield PlanRow(f"{kind}, all {len(left)}", "no", str(reduce(operator.add, left)), "")


def _row(planned: Planned) -> PlanRow:
    left, name = planned.remaining, " ".join(filter(None, (planned.kind, planned.label)))
    return PlanRow(name, "yes" if left is None else "no", "" if left is None else str(left), planned.place)


def _rows_to_come(run: Run, e: Experiment, extent: Extent) -> Iterator[PlanRow]:
    """Rows of stages that the plan could not reach: teachers' answers, their checks, and the systems' upper
    bounds.
    """
    systems, kinds = systems_of(e).values(), {p.kind for p in run.planned}
    if harvest_of(e).teachers:
        if "generate" not in kinds:
            answers = extent.questions * len(e.teachers) * e.generate.samples
            is_world = any(getattr(t, "path", "").startswith(MINIATURE) for t in e.teachers)
            whose = "the world's models" if is_world else "teachers"
            yield PlanRow("generate", "no", f"{answers:,} answers of {whose}", "see placement")
        if not kinds & {"verify", "judge"}:
            yield PlanRow("verify", "no", "what is still to be asked", "one actor per part")
    for system in systems:
        yield from (_row(p) for p in system.bound(e, extent.questions).work if p.kind not in kinds)


def _path_rows(planned: Sequence[Planned], e: Experiment, extent: Extent) -> list[PlanRow]:
    """Two rows for all paths and rounds: existing trainings and evaluations, and upper bounds on the rest."""
    trainings = len(e.students) * len(e.arms) * e.seeds * e.rounds - extent.over
    evaluations = trainings + len(e.students)
    of_paths = [p for p in planned if p.kind == "evaluate"]
    trained = sum(p.remaining is None for p in planned if p.kind == "train")
    judged = sum(p.remaining is None for p in of_paths)
    steps = max(system.bound(e, extent.questions).steps for system in systems_of(e).values())
    left = trainings - trained
    text = f"{left} trainings of at most {steps:,} steps" if left else ""
    p = e.placement
    place = train_place(p, e.train)
    rows = [PlanRow("train, all rounds", f"{trained} of {trainings}", text, place)]
    left = evaluations - judged
    samples = e.evaluate.samples if e.evaluate.metric == "accuracy" else 1
    known = [p.remaining for p in of_paths if isinstance(p.remaining, int)]
    rows_left = sum(known) + (left - len(known)) * extent.held_out * samples
    tokens = rows_left * e.evaluate.max_new_tokens if e.evaluate.metric == "accuracy" else 0
    text = f"{left} students × {extent.held_out:,} questions" if left else ""
    text += f", {rows_left:,} of them to ask" if rows_left != left * extent.held_out else ""
    text += f", at most {tokens:,} tokens" if tokens else ""
    place = f"{p.evaluate_workers} × ({p.needs})"
    return [*rows, PlanRow("evaluate", f"{judged} of {evaluations}", text, place)]
