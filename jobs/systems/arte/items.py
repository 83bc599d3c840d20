"""The items and reference answers by which students' preferences are found."""

from collections.abc import Mapping, Sequence

from cluster.errors import BadInput
from jobs.experiment.elicit import Elicit
from jobs.files.questions import Question
from jobs.results.outcome import Start, StudentPath
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.stages.ask import Hosted
from jobs.stages.check import Checks
from jobs.stages.pool import verified
from jobs.stages.questions import question_slices, read_slice
from jobs.stages.score import verified_in
from jobs.systems.arte.harvest import hosted_of
from jobs.systems.arte.paths import arm_of, elicit_of, needs_scores, preferring, signal_label
from jobs.systems.arte.prefer import Drafts, Signal, choose_items
from jobs.systems.arte.preferring import Told
from jobs.systems.arte.questions import TaskSet
from jobs.systems.arte.rationales import Answering, answer_all
from jobs.systems.arte.respond import Responses, refuse_no_ability, respond


def signals_of(
    run: Run,
    start: Start,
    tasks: Mapping[str, TaskSet],
    teacher: Hosted,
    drafts: Drafts,
    paths: Sequence[StudentPath],
) -> dict[str, Signal]:
    """How each preference that these paths need is found. In a plan, those whose items do not exist yet are
    left out.

    Raises:
        BadInput: a student cannot learn from a demonstration, or too few items tell anything.
    """
    e, elicit = start.experiment, elicit_of(start.experiment)
    scored = {signal_label(path): path for path in paths if needs_scores(path)}
    responses: Responses | None = None
    references: list[Told] | None = None
    if any(arm_of(p).signal == "icl" for p in scored.values()):
        models = {t.name: hosted_of(start, t.name) for t in e.teachers if t.name in start.hosted}
        workers, needs = e.placement.evaluate_workers, e.placement.needs
        models |= {name: Hosted(state, workers, needs) for name, state in start.students.items()}
        responses = respond(run, e, elicit, models, tasks, drafts)
        if responses is not None:
            told = {preferring(p) for p in scored.values() if arm_of(p).signal == "icl"}
            refuse_no_ability(responses, sorted(told))
    if any(arm_of(p).signal == "influence" for p in scored.values()):
        references = reference_answers(run, start, elicit, tasks, teacher)
    found = {}
    for label, path in scored.items():
        arm, student = arm_of(path), start.students[preferring(path)]
        if (arm.signal == "icl" and responses is None) or (arm.signal == "influence" and references is None):
            continue
        items: dict[str, list[Question]] = {}
        if arm.signal == "icl" and responses is not None:
            for task, own in tasks.items():
                right = responses.right[task] if arm.items == "irt" else None
                items[task] = choose_items(elicit, own.validation, right, e.seed, task)
        found[label] = Signal(arm, student, items, references or ())
    return found


def reference_answers(
    run: Run, start: Start, elicit: Elicit, tasks: Mapping[str, TaskSet], teacher: Hosted
) -> list[Told] | None:
    """Worked answers to validation items, equally many in each style: right answers of the teacher as it was.
    None in a plan, if they do not exist yet.

    Raises:
        BadInput: there is no right one in a style.
    """
    e = start.experiment
    questions = {q.id: q for own in tasks.values() for q in own.validation}
    said = answer_all(run, e, {"reference answers": Answering(teacher, questions, elicit.styles)})
    if "reference answers" not in said:
        return None
    slices = question_slices(run, questions, 1)
    pool = verified(run, Checks(e.verify, e.judge), said["reference answers"], slices, "reference answers")
    found: dict[str, list[Told]] = {style: [] for style in elicit.styles}
    for number in range(pool.count):
        asked, own = read_slice(pool.questions, number), verified_in(pool.read(number))
        for question, style, text in zip(own["question_id"], own["teacher"], own["text"], strict=True):
            found[style].append(Told(asked[question], text))
    none = sorted(style for style, own in found.items() if not own)
    if none:
        raise BadInput(
            "signal influence needs right answers to the validation questions as references",
            f"none in the style {none[0]}, of {pool.size} answers of teacher {teacher.state.name}",
            "some in every style, so that no style is preferred because it alone is there",
            "raise elicit.validation, leave that style out, or take a teacher that answers such questions",
        )
    each = min(max(1, elicit.influence.references // len(found)), *map(len, found.values()))

    def order(told: Told) -> str:
        return digest([e.seed, "reference", question_key(told.question.prompt).hex()])

    return [told for own in found.values() for told in sorted(own, key=order)[:each]]
