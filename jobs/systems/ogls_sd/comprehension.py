"""Checks that a student makes use of solutions in its prompt. If it does not, OGLS-SD's targets are noise."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cluster.errors import BadInput
from jobs.experiment.arms.ogls_sd import OglsArm
from jobs.experiment.schema import Experiment
from jobs.files.questions import Question
from jobs.run.run import Run
from jobs.run.store import Stage
from jobs.run.views import View
from jobs.stages.evaluate import Judging, evaluate_students
from jobs.stages.states import ModelState
from jobs.systems.ogls_sd.steer import moved_by_solutions, shown

SHOWN = ("shown solutions", "shown nothing")


def check_reading(
    run: Run,
    e: Experiment,
    students: Mapping[str, ModelState],
    questions: Iterable[Question],
    judging: Judging,
) -> None:
    """Check, before any training, that the students make use of solutions. Each student answers some
    questions twice: with the worked solution in the prompt, and without. Nothing is checked if no arm needs
        solutions, if `check_questions` is 0, if no question has a solution, or if students are judged by
        loss.

    Raises:
        BadInput: a student is not right more often with the solution than without; or `solution_field` is set
            and no question has a worked solution.
    """
    drawn = e.drawn
    steers = [a for a in e.arms if isinstance(a, OglsArm) and a.steered is not None and a.target != "gkd"]
    every = list(questions)
    known = [(q, q.solution) for q in every if q.solution]
    if drawn.solution_field is not None and not known:
        raise BadInput(
            "no question has a worked solution",
            f"rollouts.solution_field {drawn.solution_field}",
            "a field of the questions' file that holds a text",
            "name another field, or none",
        )
    if drawn.solution_field is not None and run.mode == "make":
        run.terminal.say(f"{len(known):,} of {len(every):,} questions have a worked solution")
    some = known[: drawn.check_questions]
    if not steers or not drawn.check_questions:
        return
    if not some or e.evaluate.metric != "accuracy":
        why = "students are judged by loss" if some else "no question has a worked solution"
        run.terminal.say(f"the check that students use solutions (check_questions) is skipped: {why}")
        return
    told = [replace(q, prompt=shown(q.prompt, drawn.template, s)) for q, s in some]
    asked = {SHOWN[0]: told, SHOWN[1]: [q for q, _ in some]}
    with_, without = (
        evaluate_students(
            run,
            {f"{n} {how}": s for n, s in students.items()},
            own,
            judging,
            e.placement,
            "check reading:",
        )
        for how, own in asked.items()
    )
    for name in students:
        pair = with_[f"{name} {SHOWN[0]}"], without[f"{name} {SHOWN[1]}"]
        if not all(stage.is_finished for stage in pair):
            continue
        helped, alone = values_of_both(*pair)
        if not helped > alone:
            raise BadInput(
                f"{name} does not use solutions: with one in the prompt it is not right more often",
                f"{helped:.1%} of {len(some)} questions, {alone:.1%} without",
                "more with a solution in the prompt",
                "a student that can, another rollouts.template, or rollouts.check_questions=0",
            )


def check_vocabularies(readers: Mapping[str, tuple[ModelState, ModelState]]) -> None:
    """Refuse a teacher whose vocabulary differs from the student's, before any model is asked.

    Args:
        readers: for each path, its teacher and its student.

    Raises:
        BadInput: the vocabularies differ. Gives the size of both.
    """
    for label, (teacher, student) in readers.items():
        if teacher.id == student.id:
            continue
        words, own = (s.renderer().tokenizer.get_vocab() for s in (teacher, student))
        if words != own:
            raise BadInput(
                f"{label}: the teacher {teacher.name} has another vocabulary than the student",
                f"{len(words):,} tokens",
                f"the student's {len(own):,}, with the same ids",
                "choose a teacher of the same family",
            )


def values_of_both(one: Stage, other: Stage) -> tuple[float, float]:
    """The means of two evaluations, over the questions that have a value in both. NaN if there is no such
    question.
    """
    values = [stage.read().set_index("question_id")["value"].dropna() for stage in (one, other)]
    both = values[0].index.intersection(values[1].index)
    return float(values[0][both].mean()), float(values[1][both].mean())


def refuse_unmoved(label: str, view: View, e: Experiment) -> None:
    """Stop if the shown solutions hardly change the teacher's predictions, because every target would be
    noise.

    Raises:
        BadInput: the change is below `rollouts.least_kl`. Gives it in nats per token.
    """
    kl = moved_by_solutions(view.manifest()["counts"])
    if e.drawn.check_questions and kl == kl and kl < e.drawn.least_kl:
        raise BadInput(
            f"{label}: solutions in the prompt hardly change what the teacher says",
            f"{kl:.4f} nats per token",
            f"at least {e.drawn.least_kl:g}, rollouts.least_kl",
            "a student that can read solutions, or another rollouts.template",
        )
