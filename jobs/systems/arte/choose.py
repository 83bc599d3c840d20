"""What each path of ARTE learns from. All paths of a student learn from equally many examples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jobs.experiment.arms.select import SelectArm
from jobs.results.outcome import Outcome, SetAside, Start, StudentPath
from jobs.run.run import Run
from jobs.run.slices import Sliced
from jobs.stages.examples import examples_of, settings_for
from jobs.stages.pool import AnswerPool
from jobs.stages.score import Further, PoolScores, score_pool
from jobs.stages.select import Choice, select_answers
from jobs.stages.states import Training
from jobs.stages.train import NothingToLearn
from jobs.systems.arte.harvest import Harvested
from jobs.systems.arte.ledger import ledger_of
from jobs.systems.arte.paths import arm_of, elicit_of, is_aligned, needs_scores, signal_label
from jobs.systems.arte.prefer import Preferred
from jobs.systems.arte.preferring import SCORED
from jobs.systems.arte.questions import TaskSet
from jobs.systems.paths import end_path, path_seed

Tasks = Mapping[str, TaskSet]


@dataclass(frozen=True)
class Material:
    """What a path may choose from.

    Attributes:
        rule: how it chooses.
        scores: the statistics of the pool's rationales under the student.
    """

    own: Harvested
    pool: AnswerPool
    rule: SelectArm
    scores: PoolScores


def trainings_of(
    run: Run,
    start: Start,
    outcome: Outcome,
    tasks: Tasks,
    first: Harvested,
    harvests: Mapping[StudentPath, Harvested | NothingToLearn | None],
    preferred: Mapping[str, Preferred],
) -> dict[StudentPath, Training]:
    """Choose every path's examples and describe its training. In plan mode paths whose inputs do not exist
    yet are left out.

    Args:
        harvests: what each path learns from, or why there is nothing.
    """
    most = elicit_of(start.experiment).examples
    materials, chosen = dict[StudentPath, Material](), dict[StudentPath, Sliced]()
    for path, own in harvests.items():
        if own is None or path in outcome.ended:
            continue
        try:
            if isinstance(own, NothingToLearn):
                raise own
            material = material_of(run, start, path, own, preferred, most)
            choice = None if material is None else choose(run, start, path, material)
            if material is None or choice is None:
                continue
            refuse_nothing(path, material, choice)
        except NothingToLearn as why:
            end_path(run, outcome, path, 1, why)
            continue
        materials[path], chosen[path] = material, choice
    counts = {path: int(choice.counts()["chosen"]) for path, choice in chosen.items()}
    least = fewest_by_student(run, counts, most)
    trainings = {}
    for path, material in materials.items():
        if counts[path] > least[path.student]:
            fewer = material.rule.model_copy(update={"most_questions": least[path.student]})
            materials[path] = material = replace(material, rule=fewer)
            again = choose(run, start, path, material)
            if again is None:
                continue
            chosen[path] = again
        training = training_of(run, start, outcome, path, tasks, first, material, chosen[path])
        if training is not None:
            trainings[path] = training
            outcome.round(path, 1).set_aside = lost_drafts(path, preferred)
    return trainings


def fewest_by_student(run: Run, counts: Mapping[StudentPath, int], most: int | None) -> dict[str, int]:
    """How many examples all paths of a student can have. It is said if one of them has fewer than wanted."""
    least: dict[str, int] = {}
    for path, count in sorted(counts.items(), key=lambda item: item[1]):
        if path.student not in least:
            least[path.student] = count
            if most is not None and count < most:
                run.terminal.say(
                    f"all arms of {path.student} learn from {count} examples: {path.label} has no more"
                )
    return least


def material_of(
    run: Run,
    start: Start,
    path: StudentPath,
    own: Harvested,
    preferred: Mapping[str, Preferred],
    most: int | None,
) -> Material | None:
    """What a path may choose from. None in a plan, if its inputs do not exist yet."""
    e, student = start.experiment, start.students[path.student]
    rule, pool = chooser_of(most, path, own)
    scores = score_pool(run, [student], pool, e.score, e.placement, f"of pool {pool.id[:8]}")[student.id]
    if rule.cost == "preference":
        told = preferred.get(signal_label(path))
        if told is None or told.view is None:
            return None
        scores = replace(scores, further=(Further(told.view, ("score",)),))
    return Material(own, pool, rule, scores) if scores.is_finished else None


def chooser_of(most: int | None, path: StudentPath, own: Harvested) -> tuple[SelectArm, AnswerPool]:
    """How a path chooses, and among which rationales. At most `most` questions are used."""
    arm = arm_of(path)
    given: dict[str, object] = {"name": arm.name, "rule": "random", "most_questions": most}
    if own.styled is None or is_aligned(path) or arm.variant == "original":
        return SelectArm.model_validate(given), own.plain
    if arm.variant == "best_scored" and arm.signal in ("icl", "influence"):
        given |= {"rule": "minimum", "cost": "preference"}
    elif arm.variant == "scas" or (arm.variant == "best_scored" and arm.signal == "scas"):
        given |= {"rule": "minimum", "cost": "scas", "lambda": arm.scas_lambda}
    elif arm.variant == "strongest":
        given["rule"] = "strongest"
    return SelectArm.model_validate(given), own.styled


def choose(run: Run, start: Start, path: StudentPath, material: Material) -> Sliced | None:
    """A path's choice. None in a plan, if it does not exist yet."""
    choice = Choice(material.rule, path_seed(start.experiment, path, 1))
    chosen = select_answers(run, f"{path.label} round 1", choice, material.pool, material.scores)
    return chosen if chosen.is_finished else None


def refuse_nothing(path: StudentPath, material: Material, chosen: Sliced) -> None:
    """End a path that has no rationale to learn from, so that it does not cut the others.

    Raises:
        NothingToLearn: with the states of the rationales.
    """
    if not chosen.counts()["chosen"]:
        raise NothingToLearn(
            f"{path.label}: no rationale is left to learn from",
            ", ".join(f"{n} {state}" for state, n in material.pool.by_state.items()) or "none",
            "at least one",
            "look at the ledger, and at verify.method and elicit.drafts",
        )


def training_of(
    run: Run,
    start: Start,
    outcome: Outcome,
    path: StudentPath,
    tasks: Tasks,
    first: Harvested,
    material: Material,
    chosen: Sliced,
) -> Training | None:
    """Write a path's examples and describe its training. None in a plan, if the examples do not exist yet."""
    e, student, label = start.experiment, start.students[path.student], f"{path.label} round 1"
    own = material.own
    examples = examples_of(run, label, student, chosen, material.pool, e.evaluate, e.score)
    if not examples.is_finished:
        return None
    record = outcome.round(path, 1)
    written = {"first": first.written} | ({} if own.written is first.written else {"second": own.written})
    record.examples = examples
    record.ledger = ledger_of(len(start.questions), tasks, written, chosen, own.usable)
    record.learned = frozenset(
        key for part in chosen.each("chosen", ["answer_id"]) for key in part["answer_id"].tolist()
    )
    record.figures = figures_of(first, material, int(chosen.counts()["chosen"]))
    seed = path_seed(e, path, 1)
    return Training(label, student, examples, seed, settings_for(examples, e.train))


def lost_drafts(path: StudentPath, preferred: Mapping[str, Preferred]) -> list[SetAside]:
    """The drafts without a score, if the path rests on scores."""
    own = preferred.get(signal_label(path)) if needs_scores(path) else None
    if own is None or own.view is None:
        return []
    lost = own.table[own.table["state"] != SCORED]
    rows = zip(lost["answer_id"], lost["state"], lost["reason"], strict=True)
    return [SetAside(f"{path.label}: {row}", "prefer", state, reason) for row, state, reason in rows]


def figures_of(first: Harvested, material: Material, chosen: int) -> dict[str, float]:
    """Numbers about what a path learns from, for the report."""
    own, pool = material.own, material.pool
    known = first.written.questions.keys()
    new = sum(i not in known for i in own.written.questions) if own is not first else 0
    states = pool.by_state
    tokens = sum(float(part["n_answer"].sum()) for part in material.scores.each())
    usable = max(1, states.get("verified", 0))
    return {
        "questions": float(own.usable),
        "of them new in the second harvest": float(new),
        "rationales": float(pool.size),
        "usable": float(states.get("verified", 0)),
        "right": sum(pool.accuracy.values()) / max(1, len(pool.accuracy)),
        "mean tokens": tokens / usable,
        "examples": float(chosen),
    }
