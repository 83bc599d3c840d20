"""Rationales: worked answers of teachers under several system texts, and the right results of questions that
a teacher wrote.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd

from cluster.errors import BadInput, describe
from cluster.own_modules import import_module
from jobs.experiment.elicit import MAJORITY, TAGGED, Elicit
from jobs.experiment.schema import Experiment
from jobs.files.questions import Question
from jobs.run.run import Run
from jobs.run.slices import Task, do_tasks, slices_for
from jobs.stages.answers import asks_of, request_of
from jobs.stages.ask import Hosted, Wave, ask
from jobs.stages.check import Checks
from jobs.stages.gather import Said
from jobs.stages.hosted import Draw
from jobs.stages.pool import AnswerPool, verified
from jobs.stages.questions import question_slices
from jobs.systems.arte.questions import Written, with_references
from selection.checking import process_verifier
from selection.verification import VerifySettings, majority

Systems = Mapping[str, str | None]  # the names of styles, with their system texts


@dataclass(frozen=True)
class Answering:
    """Questions to one teacher, each under several system texts."""

    teacher: Hosted
    questions: Mapping[str, Question]
    systems: Systems


def answer_all(
    run: Run, e: Experiment, harvests: Mapping[str, Answering], kind: str = "generate"
) -> dict[str, list[Said]]:
    """Ask teachers for rationales. Returns label -> the answers of each style. In a plan, harvests whose
    answers do not exist yet are left out.

    Args:
        kind: the work as users see it.
    """
    g = e.generate
    draw = Draw(g.temperature, g.top_p, g.max_new_tokens, e.seed)
    waves = {
        label: Wave(
            h.teacher,
            draw,
            request_of(a for text in h.systems.values() for a in asks_of(h.questions.values(), [0], text)),
        )
        for label, h in harvests.items()
    }
    views = ask(run, kind, waves, g.shard_size)
    return {
        label: [
            Said(style, views[label].id, views[label].finished, (0,), text)
            for style, text in h.systems.items()
        ]
        for label, h in harvests.items()
        if views[label].is_finished
    }


def pool_of(
    run: Run,
    e: Experiment,
    elicit: Elicit,
    label: str,
    questions: Mapping[str, Question],
    said: Sequence[Said],
) -> AnswerPool:
    """Check rationales. Returns them as a pool, in which each style counts as a teacher.

    Raises:
        Unmade: in a plan, verdicts are not there yet.
    """
    slices = question_slices(run, questions, slices_for(len(questions) * len(said)))
    takes_wrong = elicit.drafts == "parsed"
    pool = verified(run, Checks(e.verify, e.judge), said, slices, label, takes_wrong)
    right = pool.states.counts()["right"]
    return replace(pool, accuracy={s.teacher: right.get(s.teacher, 0) / max(1, len(questions)) for s in said})


@dataclass(frozen=True)
class Truth:
    """The right results of questions that a teacher wrote.

    Attributes:
        references: by question id.
        by: how many results were found in each way.
    """

    references: dict[str, str]
    by: dict[str, int]


def known_truth(elicit: Elicit, written: Written) -> dict[str, str]:
    """The right results that need no vote, by question id: what the teacher wrote, or a function's.

    Raises:
        BadInput: the function raised, or gave what is no result, for every question.
    """
    if elicit.truth == TAGGED:
        return {identity: tag for identity, tag in written.tagged.items() if tag}
    if elicit.truth == MAJORITY:
        return {}
    function, found, odd = load_truth(elicit.truth), dict[str, str](), list[str]()
    for identity, question in written.questions.items():
        try:
            result = result_of(function(question.text))
        except Exception as error:  # a user's function may raise anything on a text that a model wrote
            odd.append(describe(error))
            continue
        if result:
            found[identity] = result
    if odd and len(odd) == len(written.questions):
        raise BadInput(
            "elicit.truth fails for every question",
            odd[0],
            "a result as text or number, or None",
            elicit.truth,
        )
    return found


def result_of(told: object) -> str:
    """A function's result as text. Empty if it knows none: None, NaN or an empty text.

    Raises:
        TypeError: it is neither a text nor a number.
    """
    if isinstance(told, np.generic):
        told = told.item()
    if told is None or told is pd.NA or (isinstance(told, float) and math.isnan(told)):
        return ""
    if isinstance(told, bool) or not isinstance(told, str | int | float | Fraction | Decimal):
        raise TypeError(f"a result of type {type(told).__name__}, which is no text and no number")
    return str(int(told) if isinstance(told, float) and told.is_integer() else told).strip()


def truth_of(
    run: Run,
    e: Experiment,
    elicit: Elicit,
    label: str,
    written: Written,
    known: Mapping[str, str],
    voters: Sequence[Said],
) -> Truth:
    """The right results of questions: those that are known, and of the others the majority of rationales.

    Args:
        voters: the rationales of the teacher as it was, in all styles.
    """
    how = "the teacher's" if elicit.truth == TAGGED else elicit.truth
    rest = {i: q for i, q in written.questions.items() if i not in known}
    if elicit.truth == TAGGED or not rest or not voters:
        return Truth(dict(known), {how: len(known)})
    task = Task(vote, (rest, tuple(voters), e.verify))
    voted = do_tasks(run, "vote", label, [("all", task)], here=run.mode != "make")["all"]
    return Truth(dict(known) | voted, {how: len(known)} | {MAJORITY: len(voted)})


def vote(questions: Mapping[str, Question], said: Sequence[Said], verify: VerifySettings) -> dict[str, str]:
    """Runs in a worker. The result that more rationales of a question end in than in any other. Results are
    compared in a process of their own, which is ended if it takes too long.
    """
    texts: dict[str, list[str]] = {}
    for own in said:
        table: pd.DataFrame = own.read(questions)
        for question, text, finish in zip(table["question_id"], table["text"], table["finish"], strict=True):
            if finish == "stop":
                texts.setdefault(question, []).append(text)
    with process_verifier(verify) as verifier:

        def same(text: str, result: str) -> bool:
            return verifier.check(text, result).state == "correct"

        found = {question: majority(sorted(own), verify, same) for question, own in texts.items()}
    return {question: result for question, result in found.items() if result is not None}


def load_truth(path: str) -> Callable[[str], object]:
    """Import a function `module:name`, which gets a question's text and returns its result, or None.

    Raises:
        BadInput: it cannot be imported, or is not callable.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name, None)
    except (Exception, SystemExit) as error:  # a user's module may do anything while it is imported
        what = f"{type(error).__name__}: {error}"
        raise BadInput("elicit.truth cannot be imported", what, "a function module:name", path) from error
    if not callable(found):
        raise BadInput(
            f"elicit.truth names no function: {name} in {module}", "", "a function module:name", ""
        )
    try:
        inspect.signature(found).bind("a question")
    except TypeError as error:
        raise BadInput(
            "elicit.truth cannot be called", f"{path}, {error}", "a function (text)", ""
        ) from error
    except ValueError:  # some functions written in C tell no parameters
        pass
    return found  # type: ignore[no-any-return]


def checked(written: Written, truth: Truth) -> dict[str, Question]:
    """The questions whose right result is known."""
    return with_references(written, truth.references)
