"""The pool: every teacher's answers with their verdicts, asked again where more right ones are wanted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import EndpointTeacher, FileTeacher, ModelTeacher
from jobs.files.questions import Question, Refused
from jobs.run.keys import answer_key, question_key
from jobs.run.run import Planned, Run
from jobs.run.store import digest
from jobs.stages.answers import Ask, answers_to, asks_of, ids_by_key, request_of
from jobs.stages.ask import Asked, Wave, ask, ask_again, hosted_teacher
from jobs.stages.check import Checks, check_answers, pool_states, to_check
from jobs.stages.hosted import Draw
from jobs.stages.judge import Agreement
from jobs.stages.states import ModelState
from jobs.stages.take import take_file
from jobs.stages.verify import read_verdicts, verdicts_on


@dataclass
class AnswerPool:
    """All answers with their state before scoring, and what they depend on.

    Attributes:
        answers: by answer_id, which is teacher/question/sample; `answer_key` is of the question and the text.
        id: of all of it, by content.
        refused: the rows of the training questions' file of which no question could be made.
        agreement: of the judge with a checked sample, where one was asked for.
    """

    answers: pd.DataFrame
    id: str
    accuracy: dict[str, float]
    refused: Sequence[Refused] = ()
    agreement: Agreement | None = None


def build_pool(
    run: Run,
    experiment: Experiment,
    hosted: Mapping[str, ModelState],
    questions: Mapping[str, Question],
    refused: Sequence[Refused] = (),
) -> AnswerPool:
    """Ask all teachers, verify, and ask again where `until_verified` wants more right answers.

    Args:
        hosted: the teachers that this cluster hosts, by name.
        refused: rows of which no question could be made, for the ledger.

    Raises:
        Unmade: in a plan, answers or verdicts are not there yet.
    """
    e, g = experiment, experiment.generate
    asks = asks_by_teacher(e, questions, range(g.samples))
    found = taken(run, e, questions) + asked(run, e, hosted, asks, questions)
    pool = verified(run, e, found, questions, "pool")
    for number in range(g.samples, g.max_samples if g.until_verified else 0):
        lacking = {
            t.name: still_lacking(pool, t.name, questions, g.until_verified, number, t.ask_system)
            for t in e.teachers
            if not isinstance(t, FileTeacher)
        }
        lacking = {name: asks for name, asks in lacking.items() if asks}
        if not lacking:
            break
        found += asked(run, e, hosted, lacking, questions, f" sample {number}")
        pool = verified(run, e, found, questions, f"pool with sample {number}")
    accuracy = teacher_accuracy(pool, [t.name for t in e.teachers], len(questions))
    content: list[Any] = pool[["answer_id", "answer_key", "state"]].to_numpy().tolist()
    content += [[r.id, r.reason] for r in refused]
    return AnswerPool(pool, digest(content), accuracy, refused, judge_agreement(run, e, pool, questions))


def judge_agreement(
    run: Run, e: Experiment, pool: pd.DataFrame, questions: Mapping[str, Question]
) -> Agreement | None:
    """How the judge's verdicts on a sample compare with those of `judge.check_method`: on the answers with
    the first keys, which are digests, of questions that have a reference.

    Raises:
        Unmade: in a plan, the sample is still to be checked.
    """
    if e.judge is None or e.judge.check_method is None:
        return None
    by_judge = [q.id for q in questions.values() if (q.method or e.verify.method) == "judge" and q.references]
    told = pool[pool["question_id"].isin(by_judge) & pool["state"].isin(["verified", "duplicate", "wrong"])]
    sample = told.sort_values("answer_key").head(e.judge.check_sample)
    settings = Checks(e.verify).of(e.judge.check_method)
    given = to_check(sample, questions, settings)
    view = verdicts_on(run, "verify", "the judge's sample", settings, given)
    run.need("the pool", [view])
    rights = zip(sample["state"] != "wrong", read_verdicts(view, given), strict=True)
    pairs = [(bool(judge), verdict.state == "correct") for judge, verdict in rights]
    names = {(True, True): "both right", (False, False): "both wrong", (True, False): "judge only"}
    return Agreement(e.judge.check_method, Counter(names.get(pair, "method only") for pair in pairs))


def asks_by_teacher(e: Experiment, questions: Mapping[str, Question], samples: range) -> dict[str, list[Ask]]:
    """Every question for every teacher that can be asked, with what each is told before it."""
    askable = [t for t in e.teachers if not isinstance(t, FileTeacher)]
    told = {
        system: asks_of(questions.values(), samples, system) for system in {t.ask_system for t in askable}
    }
    return {t.name: told[t.ask_system] for t in askable}


def taken(run: Run, e: Experiment, questions: Mapping[str, Question]) -> list[pd.DataFrame]:
    """The answers of file teachers."""
    broken = run.terminal.say if e.questions.skip_broken_lines else None
    found = []
    for teacher in e.teachers:
        if isinstance(teacher, FileTeacher):
            found.append(take_file(teacher, questions, broken, run.terminal.say).assign(teacher=teacher.name))
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
    told = {t.name: t.ask_system for t in e.teachers if not isinstance(t, FileTeacher)}
    ids = {system: ids_by_key(questions.values(), system) for system in {told[name] for name in views}}
    return [answers_to(view, ids[told[name]]).assign(teacher=name) for name, view in views.items()]


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
    keys = {q.id: question_key(q.prompt) for q in questions.values()}
    said = zip(answers["question_id"], answers["text"], answers["tool_calls"], strict=True)
    answers["answer_key"] = [answer_key(keys[q], *what).hex() if q in keys else "" for q, *what in said]
    told = check_answers(run, "verify", "the pool", label, Checks(e.verify, e.judge), answers, questions)
    return pool_states(told.answers, questions)


def still_lacking(
    answers: pd.DataFrame,
    teacher: str,
    questions: Mapping[str, Question],
    wanted: int,
    sample: int,
    system: str | None = None,
) -> list[Ask]:
    """The questions a teacher has fewer than `wanted` right answers to, as asks for its next sample.

    Args:
        system: what the teacher is told beside what questions say.
    """
    own = answers[(answers["teacher"] == teacher) & (answers["state"] == "verified")]
    right = own["question_id"].value_counts()
    few = [q for q in questions.values() if right.get(q.id, 0) < wanted]
    return asks_of(few, [sample], system)


def teacher_accuracy(answers: pd.DataFrame, teachers: Sequence[str], questions: int) -> dict[str, float]:
    """Per teacher, the share of all questions its first sample got right; a duplicate text of a right answer
    is right.
    """
    first = answers[(answers["sample"] == 0) & answers["state"].isin(["verified", "duplicate"])]
    return {t: float((first["teacher"] == t).sum()) / questions for t in teachers}
