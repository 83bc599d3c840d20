"""ARTE (arXiv 2406.19227), for arms of kind `arte`: elicit, ask, verify, prefer, align, elicit and ask again,
train, evaluate.

A teacher writes questions, and answers each in several styles. The student's preference among these drafts
is found. Preferred and other texts become pairs, and DPO moves the teacher towards what this student prefers.
The aligned teacher writes and answers anew, and the student learns from that. Other variants are controls.
`docs/arte.md` says what is published, what we chose, and what the results were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.experiment.arms.select import SelectArm
from jobs.results.outcome import OnResult, Outcome, Start, StudentPath
from jobs.run.run import Run
from jobs.stages.examples import examples_of, settings_for
from jobs.stages.pool import AnswerPool
from jobs.stages.score import Further, PoolScores, score_pool
from jobs.stages.select import Choice, select_answers
from jobs.stages.states import Training
from jobs.stages.train import NothingToLearn, train_students
from jobs.systems.arte.align import (
    Alignment,
    alignment_of,
    held_out_figures,
    make_pairs,
    read_texts,
    refuse_unreliable,
    write_pairs,
)
from jobs.systems.arte.harvest import Asked, Harvested, asked_again, harvest, hosted_of
from jobs.systems.arte.items import signals_of
from jobs.systems.arte.ledger import ledger_of
from jobs.systems.arte.paths import aligned_label, arm_of, elicit_of, is_aligned, signal_label
from jobs.systems.arte.prefer import Drafts, Preferred, drafts_of, prefer
from jobs.systems.arte.questions import TaskSet, split_tasks
from jobs.systems.arte.sections import of_alignments, of_preferences
from jobs.systems.paths import end_path, path_seed, train_and_judge

Tasks = Mapping[str, TaskSet]


def teach(
    run: Run,
    start: Start,
    outcome: Outcome,
    paths: Sequence[StudentPath],
    on_result: OnResult | None = None,
    by_epoch: bool = False,
) -> None:
    """Take the students of these paths through the one round of this method.

    In plan mode a path stops at the first result that does not exist yet.

    Args:
        on_result: called after the round.
        by_epoch: has no effect here.
    """
    e, elicit = start.experiment, elicit_of(start.experiment)
    tasks = split_tasks(elicit, start.questions, e.seed)
    teacher = hosted_of(start, elicit.teacher)
    first = harvest(run, start, tasks, {"first": Asked(teacher, teacher, elicit.styles)}).get("first")
    if isinstance(first, NothingToLearn):
        raise first
    if first is None or first.styled is None:
        return
    drafts = drafts_of(first.styled)
    signals = signals_of(run, start, tasks, teacher, drafts, paths)
    preferred = prefer(run, e, elicit, drafts, first.styled, signals)
    aligned = align_all(run, start, outcome, tasks, first, drafts, preferred, paths)
    second = harvest(run, start, tasks, asked_again(teacher, first, aligned, paths))
    trainings = {}
    for path in paths:
        own = second.get(aligned_label(path)) if is_aligned(path) else first
        if own is None or path in outcome.ended:
            continue
        try:
            if isinstance(own, NothingToLearn):
                raise own
            training = training_of(run, start, outcome, path, tasks, first, own, preferred)
        except NothingToLearn as why:
            end_path(run, outcome, path, 1, why)
            continue
        if training is not None:
            trainings[path] = training
    now = {path: start.students[path.student] for path in trainings}
    train_and_judge(run, start, outcome, now, trainings, 1, on_result)
    outcome.sections += [*of_preferences(preferred), *of_alignments(aligned)]


def align_all(
    run: Run,
    start: Start,
    outcome: Outcome,
    tasks: Tasks,
    first: Harvested,
    drafts: Drafts,
    preferred: Mapping[str, Preferred],
    paths: Sequence[StudentPath],
) -> dict[str, Alignment]:
    """Align the teacher to each preference. Paths with the same preference, way and seed share it. Returns
    label -> alignment. A path whose scores do not repeat, or give no pair, ends.
    """
    e, elicit = start.experiment, elicit_of(start.experiment)
    teacher = hosted_of(start, elicit.teacher)
    ways, made = dict[str, Alignment](), {}
    for path in paths:
        scores = preferred.get(signal_label(path))
        label = aligned_label(path, shares_material=True)
        if not is_aligned(path) or scores is None:
            continue
        try:
            refuse_unreliable(path.label, elicit, scores)
        except NothingToLearn as why:
            end_path(run, outcome, path, 1, why)
            continue
        if label not in ways:
            seed, is_shuffled = path_seed(e, path, 1), arm_of(path).variant == "shuffled"
            given = first.written, first.references, drafts, scores, is_shuffled, seed
            pairs = make_pairs(e, elicit, tasks, *given)
            ways[label] = Alignment(label, pairs, arm_of(path).variant == "chosen_sft", seed)
    read = read_texts(run, e, {label: (teacher, way.pairs.every) for label, way in ways.items()})
    for label, way in ways.items():
        if not read[label].is_finished:
            continue
        try:
            examples = write_pairs(run, teacher.state, way, read[label])
        except NothingToLearn as why:
            for path in paths:
                if is_aligned(path) and aligned_label(path, shares_material=True) == label:
                    end_path(run, outcome, path, 1, why)
            continue
        if examples.is_finished:
            made[label] = alignment_of(e, elicit, teacher.state, examples, way)
    stages = train_students(run, list(made.values()), e.placement, "align")
    done = {}
    for (label, training), stage in zip(made.items(), stages, strict=True):
        if stage.is_finished:
            state = teacher.state.after(stage, training)
            hosted = replace(teacher, state=state, is_student=True)
            done[label] = replace(ways[label], teacher=hosted, trained=stage)
    held = {label: (way.hosted, way.pairs.held_out) for label, way in done.items()}
    later = read_texts(run, e, held)
    return {
        label: replace(way, figures=held_out_figures(read[label], later[label], way, elicit.align.beta))
        for label, way in done.items()
        if later[label].is_finished
    }


def training_of(
    run: Run,
    start: Start,
    outcome: Outcome,
    path: StudentPath,
    tasks: Tasks,
    first: Harvested,
    own: Harvested,
    preferred: Mapping[str, Preferred],
) -> Training | None:
    """Choose a path's examples and describe its training. In plan mode returns None if its inputs do not
    exist yet.

    Raises:
        NothingToLearn: no rationale is left to learn from.
    """
    e, student, label = start.experiment, start.students[path.student], f"{path.label} round 1"
    rule, pool = chooser_of(e.elicit.examples if e.elicit else None, path, own)
    scores = score_pool(run, [student], pool, e.score, e.placement)[student.id]
    if rule.cost == "preference":
        told = preferred.get(signal_label(path))
        if told is None or told.view is None:
            return None
        scores = replace(scores, further=(Further(told.view, ("score",)),))
    if not scores.is_finished:
        return None
    seed = path_seed(e, path, 1)
    chosen = select_answers(run, label, Choice(rule, seed), pool, scores)
    if not chosen.is_finished:
        return None
    examples = examples_of(run, label, student, chosen, pool, e.evaluate)
    if not examples.is_finished:
        return None
    record = outcome.round(path, 1)
    written = {"first": first.written} | ({} if own.written is first.written else {"second": own.written})
    record.examples = examples
    record.ledger = ledger_of(len(start.questions), tasks, written, chosen, own.usable)
    record.learned = frozenset(
        key for part in chosen.each("chosen", ["answer_id"]) for key in part["answer_id"].tolist()
    )
    record.figures = figures_of(first, own, pool, scores, chosen.counts()["chosen"])
    return Training(label, student, examples, seed, settings_for(examples, e.train))


def chooser_of(most: int | None, path: StudentPath, own: Harvested) -> tuple[SelectArm, AnswerPool]:
    """How a path chooses, and among which rationales. At most `most` questions are used."""
    arm = arm_of(path)
    plain = SelectArm(name=arm.name, rule="random", most_questions=most)
    if own.styled is None or is_aligned(path) or arm.variant == "original":
        return plain, own.plain
    if arm.variant == "best_scored" and arm.signal in ("icl", "influence"):
        return SelectArm(name=arm.name, rule="minimum", cost="preference", most_questions=most), own.styled
    if arm.variant == "scas" or (arm.variant == "best_scored" and arm.signal == "scas"):
        given = {"rule": "minimum", "cost": "scas", "lambda": arm.scas_lambda, "most_questions": most}
        return SelectArm.model_validate({"name": arm.name, **given}), own.styled
    rule = "strongest" if arm.variant == "strongest" else "random"
    return SelectArm(name=arm.name, rule=rule, most_questions=most), own.styled


def figures_of(
    first: Harvested, own: Harvested, pool: AnswerPool, scores: PoolScores, chosen: int
) -> dict[str, float]:
    """Numbers about what a path learns from, for the report."""
    known = first.written.questions.keys()
    new = sum(i not in known for i in own.written.questions) if own is not first else 0
    states = pool.by_state
    tokens = sum(float(part["n_answer"].sum()) for part in scores.each())
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
