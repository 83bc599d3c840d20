"""The pool: every teacher's answers with their verdicts, asked again where more right ones are wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import EndpointTeacher, FileTeacher, ModelTeacher
from jobs.files.questions import Question
from jobs.run.run import Run
from jobs.run.store import Stage, digest_rows
from jobs.stages.answers import Ask, Asks
from jobs.stages.ask import Asking, Hosted, ask_again, ask_waves, wave_of
from jobs.stages.states import ModelState
from jobs.stages.take import take_file
from jobs.stages.verify import join_pool, verify_answers
from selection.verification import VerifySettings


@dataclass
class AnswerPool:
    """All answers with their state before scoring, and what they depend on."""

    answers: pd.DataFrame
    ids: dict[str, str]
    accuracy: dict[str, float]


def build_pool(
    run: Run, experiment: Experiment, hosted: Mapping[str, ModelState], questions: Mapping[str, Question]
) -> AnswerPool:
    """Ask all teachers, verify, and ask again where `until_verified` wants more right answers.

    Args:
        hosted: the teachers that this cluster hosts, by name.

    Raises:
        Unmade: in a plan, answers or verdicts are not there yet.
    """
    e, asking = experiment, Asking(experiment.generate, experiment.seed)
    asked: dict[str, Hosted | EndpointTeacher] = {}
    for teacher in e.teachers:
        if isinstance(teacher, ModelTeacher):
            asked[teacher.name] = Hosted(teacher, hosted[teacher.name])
        elif isinstance(teacher, EndpointTeacher):
            asked[teacher.name] = teacher
    files = [t for t in e.teachers if isinstance(t, FileTeacher)]
    stages = {t.name: take_file(run, t, questions, e.questions.skip_broken_lines) for t in files}
    first = Asks(
        Ask(q.id, q.text, q.system, s) for q in questions.values() for s in range(e.generate.samples)
    )
    waves = {name: wave_of(run.store, who, asking, first) for name, who in asked.items()}
    ask_waves(run, waves)
    again = [more for name, wave in waves.items() for more in ask_again(run, name, wave)]
    stages.update({name: wave.stage for name, wave in [*waves.items(), *again]})
    verified = verify_made(run, e.verify, stages, questions)
    for number in range(e.generate.samples, e.generate.max_samples if e.generate.until_verified else 0):
        answers = join_pool(list(stages.values()), list(verified.values()), questions)
        lacking = {
            f"{name} sample {number}": wave_of(run.store, who, asking, asks)
            for name, who in asked.items()
            if (asks := still_lacking(answers, name, questions, e.generate.until_verified, number))
        }
        if not lacking:
            break
        ask_waves(run, lacking)
        further = {name: wave.stage for name, wave in lacking.items()}
        stages |= further
        verified |= verify_made(run, e.verify, further, questions)
    answers = join_pool(list(stages.values()), list(verified.values()), questions)
    accuracy = teacher_accuracy(answers, [t.name for t in e.teachers], len(questions))
    return AnswerPool(answers, pool_ids(questions, verified), accuracy)


def verify_made(
    run: Run, settings: VerifySettings, stages: Mapping[str, Stage], questions: Mapping[str, Question]
) -> dict[str, Stage]:
    """Verify the answers that are there: all of them, but in a plan.

    Raises:
        Unmade: in a plan, answers or verdicts are not there yet.
    """
    made = {name: stage for name, stage in stages.items() if stage.is_finished}
    verified = verify_answers(run, settings, made, questions)
    run.need("the pool", [*stages.values(), *verified.values()])
    return verified


def pool_ids(questions: Mapping[str, Question], verified: Mapping[str, Stage]) -> dict[str, str]:
    """What a pool depends on: the questions' texts and every verify stage."""
    content = digest_rows((q.id, q.text, q.system) for q in questions.values())
    return {
        "questions": content,
        **{f"generate {name}": stage.id for name, stage in sorted(verified.items())},
    }


def still_lacking(
    answers: pd.DataFrame, teacher: str, questions: Mapping[str, Question], wanted: int, sample: int
) -> list[Ask]:
    """The questions a teacher has fewer than `wanted` right answers to, as asks for its next sample."""
    right = answers[(answers["teacher"] == teacher) & (answers["state"] == "verified")][
        "question_id"
    ].value_counts()
    return [Ask(q.id, q.text, q.system, sample) for q in questions.values() if right.get(q.id, 0) < wanted]


def teacher_accuracy(answers: pd.DataFrame, teachers: Sequence[str], questions: int) -> dict[str, float]:
    """Per teacher, the share of all questions its first sample got right; a duplicate text of a right answer
    is right.
    """
    first = answers[(answers["sample"] == 0) & answers["state"].isin(["verified", "duplicate"])]
    return {t: float((first["teacher"] == t).sum()) / questions for t in teachers}
