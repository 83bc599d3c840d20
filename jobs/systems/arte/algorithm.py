"""ARTE (arXiv 2406.19227), for arms of kind `arte`: elicit, ask, verify, prefer, align, elicit and ask again,
train, evaluate.

A teacher writes questions, and answers each in several styles. The student's preference among these drafts
is found. Preferred and other texts become pairs, and DPO moves the teacher towards what this student prefers.
The aligned teacher writes and answers anew, and the student learns from that. Other variants are controls.
`docs/arte.md` says what is published, what we chose, and what the results were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.results.outcome import OnResult, Outcome, Start, StudentPath
from jobs.run.run import Run
from jobs.stages.states import check_student
from jobs.stages.train import NothingToLearn, train_students
from jobs.systems.arte.align import (
    Alignment,
    alignment_of,
    held_out_figures,
    make_pairs,
    readable,
    refuse_unreliable,
    write_pairs,
)
from jobs.systems.arte.choose import Tasks, trainings_of
from jobs.systems.arte.drift import with_drift
from jobs.systems.arte.harvest import Asked, Harvested, asked_again, harvest, hosted_of
from jobs.systems.arte.items import signals_of
from jobs.systems.arte.paths import aligned_label, arm_of, elicit_of, is_aligned, signal_label
from jobs.systems.arte.prefer import Drafts, Preferred, drafts_of, prefer
from jobs.systems.arte.questions import split_tasks
from jobs.systems.arte.sections import of_alignments, of_preferences
from jobs.systems.arte.texts import read_texts
from jobs.systems.paths import end_path, path_seed, train_and_judge


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
    teacher = hosted_of(start, elicit.teacher)
    check_student(teacher.state, None, elicit.align.lora)
    tasks = split_tasks(elicit, start.questions, e.seed, e.verify.method)
    asked = {"first": Asked(teacher, teacher, teacher, is_first=True)}
    first = harvest(run, start, tasks, asked).get("first")
    if isinstance(first, NothingToLearn):
        raise first
    if first is None or first.styled is None:
        return
    drafts = drafts_of(first.styled)
    signals = signals_of(run, start, tasks, teacher, drafts, paths)
    preferred = prefer(run, e, elicit, drafts, first.styled, signals)
    aligned = align_all(run, start, outcome, tasks, first, drafts, preferred, paths)
    second = harvest(run, start, tasks, asked_again(teacher, first, aligned, paths))
    aligned = with_drift(run, start, teacher, aligned, second, paths)
    materials = {p: second.get(aligned_label(p)) if is_aligned(p) else first for p in paths}
    trainings = trainings_of(run, start, outcome, tasks, first, materials, preferred)
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
    read = read_texts(run, e, {label: (teacher, way.pairs.rows) for label, way in ways.items()})
    for label, way in ways.items():
        if not read[label].is_finished:
            continue
        ways[label] = way = replace(way, pairs=readable(way.pairs, read[label]))
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
    held = {
        f"{label}, aligned": (way.hosted, [row for pair in way.pairs.held_out for row in pair.rows])
        for label, way in done.items()
    }
    later = read_texts(run, e, held)
    return {
        label: replace(way, figures=held_out_figures(read[label], after, way, elicit.align.beta))
        for (label, way), after in zip(done.items(), later.values(), strict=True)
        if after.is_finished
    }
