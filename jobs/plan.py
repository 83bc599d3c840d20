"""What a run would do: per stage what is cached, what remains, and where it would run. Starts no model and no
Ray.

It is the run itself, in the mode that notes instead of making, so it cannot drift from what a run does.
Everything up to the first thing that nobody has made yet is exact; after that counts are upper bounds, marked
with "at most".
"""

import operator
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce

from jobs.experiment.arms import OglsArm
from jobs.experiment.miniature import MINIATURE
from jobs.experiment.schema import Experiment
from jobs.pipeline import begin, look, teach
from jobs.run.run import Planned, Run, Unmade
from jobs.run.unfit import older_layout
from jobs.stages.ask import Left
from jobs.stages.measures import measuring_of
from jobs.stages.reading import SHOWN
from jobs.stages.targets import VIEWS
from jobs.stages.train import train_place
from training.batches import count_steps


@dataclass(frozen=True)
class PlanRow:
    """One line of the plan."""

    stage: str
    cached: str
    remaining: str
    placement: str


def make_plan(run: Run, experiment: Experiment) -> list[PlanRow]:
    """The plan of a run, stage by stage.

    Args:
        run: in the mode `plan`.
    """
    world = experiment.miniature
    questions, held_out = (world.train_questions, world.evaluate_questions) if world else (0, 0)
    over = 0  # rounds that paths will not come to
    with suppress(Unmade):
        looked = look(run, experiment)
        questions, held_out = len(looked.questions), len(looked.held_out)
        ended = teach(run, begin(run, looked)).ended
        over = sum(experiment.rounds - number + 1 for number, _ in ended.values())
    found: dict[str, list[Planned]] = {}
    for planned in run.planned:
        found.setdefault(planned.kind, []).append(planned)
    rows = [_row("miniature world", p) for p in found.get("miniature", [])]
    rows += _ask_rows(experiment, found, questions)
    rows += _score_rows(experiment, found, questions)
    rows += _rollout_rows(experiment, found, questions)
    return rows + _path_rows(experiment, found, questions, held_out, over)


def notes(run: Run) -> list[str]:
    """After a plan: what the store holds that looks as if it could serve and cannot, and why."""
    lines = [f"{p.kind} {p.label}: {p.unfit}" for p in run.planned if p.unfit]
    return [*lines, *filter(None, [older_layout(run.store.root)])]


def _row(name: str, planned: Planned) -> PlanRow:
    left = planned.remaining
    return PlanRow(name, "yes" if left is None else "no", "" if left is None else str(left), planned.place)


def _ask_rows(e: Experiment, found: dict[str, list[Planned]], questions: int) -> list[PlanRow]:
    """What teachers are asked and what is checked of it."""
    asked = found.get("generate", [])
    if not asked:
        answers = questions * len(e.teachers) * e.generate.samples
        names = (
            "the world's models"
            if any(getattr(t, "path", "").startswith(MINIATURE) for t in e.teachers)
            else "teachers"
        )
        return [PlanRow("generate", "no", f"{answers:,} answers of {names}", "see placement")]
    rows = [_row(f"generate {p.label}", p) for p in asked]
    left = [p.remaining for p in asked if isinstance(p.remaining, Left)]
    if len(left) > 1:
        rows.append(PlanRow(f"generate, {len(left)} teachers", "no", str(reduce(operator.add, left)), ""))
    checked = found.get("verify", [])
    rows += [_row(f"judge {p.label}", p) for p in found.get("judge", [])]
    rows += [_row(f"verify {p.label}", p) for p in checked]
    if not checked and "judge" not in found:
        rows.append(PlanRow("verify", "no", "what is still to be asked", "one actor a part"))
    return rows


def _score_rows(e: Experiment, found: dict[str, list[Planned]], questions: int) -> list[PlanRow]:
    """What students are asked of the pool; an upper bound while the pool is not known."""
    scored = found.get("score", [])
    measured = [_row(f"measure {p.label}", p) for p in found.get("measure", [])]
    if scored:
        return [*(_row(f"score {p.label}", p) for p in scored), *measured]
    g = e.generate
    samples = max(g.samples, g.max_samples if g.until_verified else 1)
    most = questions * len(e.teachers) * samples * len(e.students)
    place = f"{e.placement.score_workers} × ({e.placement.needs})"
    further = {m.label for m in map(measuring_of, e.arms) if m is not None}
    rows = [PlanRow(f"measure {name}, round 1", "no", f"at most {most:,} answers", place) for name in further]
    return [PlanRow("score, round 1", "no", f"at most {most:,} answers", place), *sorted(rows, key=str)]


def _rollout_rows(e: Experiment, found: dict[str, list[Planned]], questions: int) -> list[PlanRow]:
    """What students are asked for their own rollouts, and what teachers read of them; an upper bound while
    nothing is known.
    """
    rows = [
        _row(f"check reading: {p.label}", p) for p in found.get("evaluate", []) if p.label.endswith(SHOWN)
    ]
    for kind in ("roll out", "steer"):
        rows += [_row(f"{kind} {p.label}", p) for p in found.get(kind, [])]
    arms = [arm for arm in e.arms if isinstance(arm, OglsArm)]
    if rows or not arms:
        return rows
    drawn, place = e.drawn, f"{e.placement.evaluate_workers} × ({e.placement.needs})"
    one, later = min(drawn.questions, questions) * drawn.group * len(e.students), (e.rounds - 1) * e.seeds
    steered = [arm for arm in arms if arm.steered is not None]
    passes = {
        ("pools" if a.target in VIEWS else a.target, a.exclude_self, a.honest, a.teacher) for a in steered
    }
    asked, read = one * (1 + later * len(arms)), one * (len(passes) + later * len(steered))
    said = f"at most {asked:,} rollouts of at most {drawn.max_new_tokens:,} tokens"
    shown = f"at most {read:,} rollouts, each after at most {drawn.group + 1} solutions"
    return [
        PlanRow("roll out, all rounds", "no", said, place),
        *([PlanRow("steer, all rounds", "no", shown, place)] if read else []),
    ]


def _path_rows(
    e: Experiment, found: dict[str, list[Planned]], questions: int, held_out: int, over: int
) -> list[PlanRow]:
    """Trainings and evaluations of all paths and rounds: those that are there, and the most that the others
    take.

    Args:
        over: rounds of paths that have ended for want of anything to learn from.
    """
    trainings = len(e.students) * len(e.arms) * e.seeds * e.rounds - over
    evaluations = trainings + len(e.students)
    of_paths = [p for p in found.get("evaluate", []) if not p.label.endswith(SHOWN)]
    trained = sum(p.remaining is None for p in found.get("train", []))
    judged = sum(p.remaining is None for p in of_paths)
    steps = count_steps(questions, e.train.batch_size, e.train.epochs, e.train.steps)
    if any(isinstance(arm, OglsArm) for arm in e.arms):
        steps = max(steps, e.drawn.steps_per_round)
    left = trainings - trained
    text = f"{left} trainings of at most {steps:,} steps" if left else ""
    p = e.placement
    place = train_place(p, e.train)
    rows = [PlanRow("train, all rounds", f"{trained} of {trainings}", text, place)]
    left = evaluations - judged
    samples = e.evaluate.samples if e.evaluate.metric == "accuracy" else 1
    known = [p.remaining for p in of_paths if isinstance(p.remaining, int)]
    rows_left = sum(known) + (left - len(known)) * held_out * samples
    tokens = rows_left * e.evaluate.max_new_tokens if e.evaluate.metric == "accuracy" else 0
    text = f"{left} students × {held_out:,} questions" if left else ""
    text += f", {rows_left:,} of them to ask" if rows_left != left * held_out else ""
    text += f", at most {tokens:,} tokens" if tokens else ""
    place = f"{p.evaluate_workers} × ({p.needs})"
    return [*rows, PlanRow("evaluate", f"{judged} of {evaluations}", text, place)]
