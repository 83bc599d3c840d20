"""The pool: every teacher's answers with their verdicts, asked again where more right ones are wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import EndpointTeacher, FileTeacher, ModelTeacher
from jobs.files.questions import Question
from jobs.run.keys import question_key, row_key
from jobs.run.run import Planned, Run
from jobs.run.store import digest
from jobs.stages.answers import Ask, answers_to, asks_of, ids_by_key, request_of
from jobs.stages.ask import Asked, Wave, ask, ask_again, hosted_teacher
from jobs.stages.hosted import Draw
from jobs.stages.states import ModelState
from jobs.stages.take import take_file
from jobs.stages.verify import pool_states, to_check, verdicts_on, with_verdicts


@dataclass
class AnswerPool:
    """All answers with their state before scoring, and what they depend on.

    Attributes:
        answers: by answer_id, which is teacher/question/sample; `answer_key` is of the question and the text.
        id: of all of it, by content.
    """

    answers: pd.DataFrame
    id: str
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
    e, g = experiment, experiment.generate
    asks = asks_by_teacher(e, questions, range(g.samples))
    found = taken(run, e, questions) + asked(run, e, hosted, asks, questions)
    pool = verified(run, e, found, questions, "pool")
    for number in range(g.samples, g.max_samples if g.until_verified else 0):
        lacking = {
            t.name: still_lacking(pool, t.name, questions, g.until_verified, number)
            for t in e.teachers
            if not isinstance(t, FileTeacher)
        }
        lacking = {name: asks for name, asks in lacking.items() if asks}
        if not lacking:
            break
        found += asked(run, e, hosted, lacking, questions, f" sample {number}")
        pool = verified(run, e, found, questions, f"pool with sample {number}")
    accuracy = teacher_accuracy(pool, [t.name for t in e.teachers], len(questions))
    return AnswerPool(pool, digest(pool[["answer_id", "answer_key", "state"]].to_numpy().tolist()), accuracy)


def asks_by_teacher(e: Experiment, questions: Mapping[str, Question], samples: range) -> dict[str, list[Ask]]:
    """Every question for every teacher that can be asked."""
    asks = asks_of(questions.values(), samples)
    return {t.name: asks for t in e.teachers if not isinstance(t, FileTeacher)}


def taken(run: Run, e: Experiment, questions: Mapping[str, Question]) -> list[pd.DataFrame]:
    """The answers of file teachers."""
    broken = run.terminal.say if e.questions.skip_broken_lines else None
    found = []
    for teacher in e.teachers:
        if isinstance(teacher, FileTeacher):
            found.append(take_file(teacher, questions, broken).assign(teacher=teacher.name))
            if run.mode == "plan":
                run.planned.append(Planned("generate", teacher.name, None, "this process"))
    return found


def asked(
    run: Run,
    e: Experiment,
    hosted: Mapping[str, ModelState],
    asks: Mapping[str, Sequence[Ask]],
    questions: Mapping[str, Question],
    suffix: str = "",
) -> list[pd.DataFrame]:
    """What teachers answer to these asks, failed calls asked again where the run was told to.

    Raises:
        Unmade: in a plan, answers are not there yet.
    """
    g = e.generate
    draw = Draw(g.temperature, g.top_p, g.max_new_tokens, e.seed)
    requests = {id(own): request_of(own) for own in asks.values()}  # most often one for all
    waves = {}
    for teacher in e.teachers:
        if teacher.name in asks:
            waves[teacher.name] = Wave(who(teacher, hosted), draw, requests[id(asks[teacher.name])])
    views = ask(run, "generate", {name + suffix: wave for name, wave in waves.items()}, g.shard_size)
    views = {n: ask_again(run, n + suffix, wave, g.shard_size) for n, wave in waves.items()}
    run.need("the pool", views.values())
    ids = ids_by_key(questions.values())
    return [answers_to(view, ids).assign(teacher=name) for name, view in views.items()]


def who(teacher: ModelTeacher | EndpointTeacher | FileTeacher, hosted: Mapping[str, ModelState]) -> Asked:
    """Whom to ask for a teacher.

    Raises:
        ValueError: it is a file.
    """
    if isinstance(teacher, ModelTeacher):
        return hosted_teacher(teacher, hosted[teacher.name])
    if isinstance(teacher, EndpointTeacher):
        return teacher
    raise ValueError(f"teacher {teacher.name} is a file: nobody can be asked")


def verified(
    run: Run, e: Experiment, found: Sequence[pd.DataFrame], questions: Mapping[str, Question], label: str
) -> pd.DataFrame:
    """All answers with their verdicts, ids, keys and states.

    Raises:
        Unmade: in a plan, verdicts are not there yet.
    """
    answers = pd.concat(found, ignore_index=True)
    names = zip(answers["teacher"], answers["question_id"], answers["sample"], strict=True)
    answers["answer_id"] = [f"{teacher}/{question}/{sample}" for teacher, question, sample in names]
    keys = {q.id: question_key(q.text, q.system) for q in questions.values()}
    texts = zip(answers["question_id"], answers["text"], strict=True)
    answers["answer_key"] = [row_key(keys[q], text).hex() if q in keys else "" for q, text in texts]
    checked = to_check(answers, questions)
    verdicts = verdicts_on(run, "verify", label, e.verify, [c for c in checked if c is not None])
    run.need("the pool", [verdicts])
    return pool_states(with_verdicts(answers, checked, verdicts), questions)


def still_lacking(
    answers: pd.DataFrame, teacher: str, questions: Mapping[str, Question], wanted: int, sample: int
) -> list[Ask]:
    """The questions a teacher has fewer than `wanted` right answers to, as asks for its next sample."""
    own = answers[(answers["teacher"] == teacher) & (answers["state"] == "verified")]
    right = own["question_id"].value_counts()
    return [Ask(q.text, q.system, sample) for q in questions.values() if right.get(q.id, 0) < wanted]


def teacher_accuracy(answers: pd.DataFrame, teachers: Sequence[str], questions: int) -> dict[str, float]:
    """Per teacher, the share of all questions its first sample got right; a duplicate text of a right answer
    is right.
    """
    first = answers[(answers["sample"] == 0) & answers["state"].isin(["verified", "duplicate"])]
    return {t: float((first["teacher"] == t).sum()) / questions for t in teachers}
