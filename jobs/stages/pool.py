"""The pool: every teacher's answers with their verdicts, asked again where more right ones are wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from jobs.experiment.schema import EndpointTeacher, FileTeacher, ModelTeacher
from jobs.files.datasets import Question
from jobs.run.context import Context
from jobs.run.store import Stage, digest_rows
from jobs.stages.answers import Ask, Asks
from jobs.stages.ask import ask_again, ask_waves, plan_wave
from jobs.stages.take import take_file
from jobs.stages.verify import join_pool, verify_answers


@dataclass
class AnswerPool:
    """All answers with their state before scoring, and what they depend on."""

    answers: pd.DataFrame
    ids: dict[str, str]
    accuracy: dict[str, float]


def build_pool(context: Context, questions: Mapping[str, Question]) -> AnswerPool:
    """Ask all teachers, verify, and ask again where `until_verified` wants more right answers."""
    e = context.experiment
    askable = [t for t in e.teachers if isinstance(t, ModelTeacher | EndpointTeacher)]
    stages = {t.name: take_file(context, t, questions) for t in e.teachers if isinstance(t, FileTeacher)}
    first = Asks(
        Ask(q.id, q.text, q.system, s) for q in questions.values() for s in range(e.generate.samples)
    )
    waves = {t.name: plan_wave(context, t, first, t.name) for t in askable}
    ask_waves(context, list(waves.values()))
    waves.update([again for name, wave in list(waves.items()) for again in ask_again(context, name, wave)])
    stages.update({name: wave.stage for name, wave in waves.items()})
    verified = verify_answers(context, stages, questions)
    for number in range(e.generate.samples, e.generate.max_samples if e.generate.until_verified else 0):
        answers = join_pool(list(stages.values()), list(verified.values()), questions)
        again = {}
        for teacher in askable:
            asks = still_lacking(answers, teacher.name, questions, e.generate.until_verified, number)
            name = f"{teacher.name} sample {number}"
            if asks:
                again[name] = plan_wave(context, teacher, asks, name)
        if not again:
            break
        ask_waves(context, list(again.values()))
        stages.update({name: wave.stage for name, wave in again.items()})
        verified.update(
            verify_answers(context, {name: wave.stage for name, wave in again.items()}, questions)
        )
    answers = join_pool(list(stages.values()), list(verified.values()), questions)
    return AnswerPool(
        answers,
        pool_ids(questions, verified),
        teacher_accuracy(answers, [t.name for t in e.teachers], len(questions)),
    )


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
