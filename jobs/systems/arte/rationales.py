"""Rationales: worked answers of teachers under several system texts, and the right results of questions that
a teacher wrote.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cluster.errors import BadInput
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
from selection.verification import VerifySettings, majority

Systems = Mapping[str, str | None]  # the names of styles, with their system texts


@dataclass(frozen=True)
class Answering:
    """Questions to one teacher, each under several system texts."""

    teacher: Hosted
    questions: Mapping[str, Question]
    systems: Systems


def answer_all(run: Run, e: Experiment, harvests: Mapping[str, Answering]) -> dict[str, list[Said]]:
    """Ask teachers for rationales. Returns label -> the answers of each style. In a plan, harvests whose
    answers do not exist yet are left out.
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
    views = ask(run, "generate", waves, g.shard_size)
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


def truth_of(
    run: Run, e: Experiment, elicit: Elicit, label: str, written: Written, said: Sequence[Said]
) -> Truth:
    """Find the right results: those that the teacher wrote, a function's, or the majority of the
    rationales.
    """
    if elicit.truth == TAGGED:
        return Truth(
            {i: tag for i, tag in written.tagged.items() if tag}, {"the teacher's": len(written.tagged)}
        )
    known: dict[str, str] = {}
    if elicit.truth != MAJORITY:
        check = load_truth(elicit.truth)
        known = {i: str(found) for i, q in written.questions.items() if (found := check(q.text)) is not None}
    rest = {i: q for i, q in written.questions.items() if i not in known}
    voted: dict[str, str] = {}
    if rest:
        task = Task(vote, (rest, tuple(said), e.verify))
        voted = do_tasks(run, "vote", label, [("all", task)], here=True)["all"]
    return Truth(known | voted, {elicit.truth: len(known)} | {MAJORITY: len(voted)})


def vote(questions: Mapping[str, Question], said: Sequence[Said], verify: VerifySettings) -> dict[str, str]:
    """Runs in a worker. The result that more rationales of a question end in than in any other."""
    texts: dict[str, list[str]] = {}
    for own in said:
        table: pd.DataFrame = own.read(questions)
        for question, text, finish in zip(table["question_id"], table["text"], table["finish"], strict=True):
            if finish == "stop":
                texts.setdefault(question, []).append(text)
    found = {question: majority(sorted(own), verify) for question, own in texts.items()}
    return {question: result for question, result in found.items() if result is not None}


def load_truth(path: str) -> Callable[[str], object]:
    """Import a function `module:name`, which gets a question's text and returns its result, or None.

    Raises:
        BadInput: it cannot be imported, or is not callable.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name, None)
    except ImportError as error:
        raise BadInput("elicit.truth cannot be imported", error, "a function module:name", "") from error
    if not callable(found):
        raise BadInput(
            f"elicit.truth names no function: {name} in {module}", "", "a function module:name", ""
        )
    return found  # type: ignore[no-any-return]


def checked(written: Written, truth: Truth) -> dict[str, Question]:
    """The questions whose right result is known."""
    return with_references(written, truth.references)
