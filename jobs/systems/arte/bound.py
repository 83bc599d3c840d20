"""What an experiment of ARTE needs, checked before anything is asked, and upper bounds on its work."""

import math

from cluster.errors import BadInput
from jobs.experiment.arms.arte import ALIGNED, ArteArm
from jobs.experiment.elicit import MAJORITY, TAGGED, Elicit
from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import ModelTeacher, ServerTeacher
from jobs.run.run import Planned
from jobs.systems.arte.rationales import load_truth
from jobs.systems.arte.respond import SHOTS
from jobs.systems.record import Bound
from training.batches import count_steps
from training.settings import check_settings


def arms_of(e: Experiment) -> list[ArteArm]:
    return [arm for arm in e.arms if isinstance(arm, ArteArm)]


def check(e: Experiment, questions: int) -> None:
    """Refuse what cannot work.

    Raises:
        BadInput: says what, and what to do.
    """
    if e.elicit is None:
        raise BadInput("arms of kind arte need a section elicit", "none", "what the teacher writes", "add it")
    if e.rounds != 1:
        raise BadInput("arms of kind arte have one round", f"rounds: {e.rounds}", "rounds: 1", "set it")
    check_teacher(e, e.elicit)
    names = {s.name for s in e.students}
    for arm in arms_of(e):
        if arm.aligned_to is not None and arm.aligned_to not in names:
            raise BadInput(
                f"arm {arm.name} is aligned to a student that the experiment does not have",
                arm.aligned_to,
                ", ".join(sorted(names)),
                "name one of its students",
            )
    if e.verify.method in ("judge", "none", "function"):
        raise BadInput(
            "arms of kind arte compare results with one another",
            f"verify.method {e.verify.method}",
            "exact, numeric, choice or math",
            "change verify.method",
        )
    if e.elicit.truth not in (TAGGED, MAJORITY):
        load_truth(e.elicit.truth)
    check_settings(e.elicit.align.train(e.train))


def check_teacher(e: Experiment, elicit: Elicit) -> None:
    """Refuse a teacher that cannot be aligned.

    Raises:
        BadInput: it is unknown, its weights are not here, or its engine would lose what it learns.
    """
    own = next((t for t in e.teachers if t.name == elicit.teacher), None)
    if own is None:
        known = ", ".join(sorted(t.name for t in e.teachers)) or "none"
        raise BadInput("elicit.teacher is no teacher of the experiment", elicit.teacher, known, "name one")
    is_aligned = any(arm.variant in ALIGNED for arm in arms_of(e))
    if not isinstance(own, ModelTeacher | ServerTeacher):
        raise BadInput(
            f"teacher {own.name} cannot be {'aligned' if is_aligned else 'asked in styles'}: its weights are "
            "not here",
            f"kind {own.kind}",
            "a teacher of kind model or server",
            "host it, or use arms that choose among its answers",
        )
    if own.ask_system is not None:
        raise BadInput(
            f"teacher {own.name} has a system text of its own",
            f"ask_system: {own.ask_system[:60]!r}",
            "system texts in elicit.styles and elicit.plain alone",
            "move it there",
        )
    server = own.server
    is_half = own.dtype != "float32" and elicit.align.lora is not None
    if is_aligned and server is not None and is_half and not server.loads_adapters:
        raise BadInput(
            f"the engine of teacher {own.name} would load its adapter merged into {own.dtype}",
            server.command[:200],
            "an engine that keeps the adapter beside the weights",
            "add --enable-lora to the command, and VLLM_ALLOW_RUNTIME_LORA_UPDATING to server.env",
        )


def bound(e: Experiment, questions: int) -> Bound:
    """The most that is written, answered, preferred and aligned."""
    elicit, arms = e.elicit, arms_of(e)
    if elicit is None:
        return Bound([], 0)
    tasks, styles = len(elicit.tasks), len(elicit.styles)
    drafts = tasks * elicit.questions
    aligned = [arm for arm in arms if arm.variant in ALIGNED]
    seconds = len(aligned) * len(e.students) * e.seeds
    calls = math.ceil(elicit.most_calls * elicit.questions / elicit.count) * tasks
    place = f"{e.placement.score_workers} × ({e.placement.needs})"
    work = [
        Planned("write questions", "", f"at most {calls:,} calls", ""),
        Planned("generate", "drafts", f"at most {drafts * (styles + 1):,} rationales", ""),
    ]
    if seconds:
        told = f"at most {drafts * seconds:,} rationales"
        work.append(Planned("write questions again", "", f"at most {calls * seconds:,} calls", ""))
        work.append(Planned("generate again", "by aligned teachers", told, ""))
    asked = {arm.signal for arm in arms if arm.needs_scores}
    items = tasks * elicit.validation
    if "icl" in asked:
        answers = items * SHOTS * (len(e.students) + len(e.teachers))
        work.append(Planned("respond", "to validation items", f"at most {answers:,} answers", place))
    if "influence" in asked:
        work.append(Planned("generate", "reference answers", f"at most {items * styles:,} answers", ""))
    signals = {(arm.signal, arm.items, arm.scas_lambda) for arm in arms if arm.needs_scores}
    for signal, _, _ in sorted(signals):
        rows = drafts * styles * len(e.students)
        each = {
            "icl": f"at most {rows * elicit.items:,} answers of the student",
            "influence": f"at most {rows:,} steps, {rows * elicit.influence.references:,} reference losses",
        }.get(signal, f"at most {rows:,} drafts")
        work.append(Planned("prefer", f"by {signal}", each, place))
    of_question = styles**2 // 4 if elicit.align.per_prompt == "all" else 1
    pairs = drafts * of_question + tasks * min(elicit.align.question_pairs, elicit.questions // 4)
    if seconds:
        work.append(Planned("read pairs", "", f"at most {2 * pairs * seconds:,} texts", ""))
        steps = count_steps(pairs, elicit.align.batch_size, elicit.align.epochs, None)
        said = f"at most {seconds:,} trainings of {steps:,} steps on {pairs:,} pairs"
        work.append(Planned("align", f"teacher {elicit.teacher}", said, ""))
    most = min(drafts, elicit.examples or drafts)
    return Bound(work, count_steps(most, e.train.batch_size, e.train.epochs, e.train.steps))
