"""A harvest: questions that a teacher wrote, with rationales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.experiment.elicit import PLAIN
from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import ModelTeacher, ServerTeacher
from jobs.results.outcome import Start, StudentPath
from jobs.run.run import Run
from jobs.stages.ask import Hosted
from jobs.stages.pool import AnswerPool
from jobs.stages.train import NothingToLearn
from jobs.systems.arte.align import Alignment
from jobs.systems.arte.paths import aligned_label, arm_of, elicit_of, is_aligned
from jobs.systems.arte.questions import TaskSet, Written, write_questions
from jobs.systems.arte.rationales import Answering, answer_all, checked, pool_of, truth_of


@dataclass(frozen=True)
class Asked:
    """Who writes the questions, and who answers them.

    Attributes:
        styles: the system texts of styles by name, beside the naive prompt.
        written: the questions, if they exist already.
    """

    writes: Hosted
    answers: Hosted
    styles: Mapping[str, str] = field(default_factory=dict)
    written: "Harvested | None" = None


@dataclass(frozen=True)
class Harvested:
    """Questions that a teacher wrote, with rationales.

    Attributes:
        references: the questions' right results, by id.
        by: how many of these were found in each way.
        styled, plain: the rationales in all styles, and under the naive prompt. `styled` is None without
            styles.
    """

    written: Written
    references: Mapping[str, str]
    by: Mapping[str, int]
    styled: AnswerPool | None
    plain: AnswerPool

    @property
    def usable(self) -> int:
        """How many questions have a right result."""
        return len(self.references)


def hosted_of(start: Start, name: str) -> Hosted:
    """A teacher that this cluster hosts, with its actors."""
    e = start.experiment
    own = next(t for t in e.teachers if t.name == name)
    if not isinstance(own, ModelTeacher | ServerTeacher):
        raise TypeError(f"teacher {name} is not hosted here")
    return Hosted(start.hosted[name], own.replicas, own.needs, is_student=False)


def asked_again(
    teacher: Hosted, first: Harvested, aligned: Mapping[str, Alignment], paths: Sequence[StudentPath]
) -> dict[str, Asked]:
    """Whom to ask in the second harvest, by the label of each path's material."""
    found = {}
    for path in paths:
        way = aligned.get(aligned_label(path, shares_material=True)) if is_aligned(path) else None
        if way is None:
            continue
        variant, now = arm_of(path).variant, way.hosted
        answers = teacher if variant == "question_only" else now
        found[aligned_label(path)] = Asked(
            now, answers, written=first if variant == "rationale_only" else None
        )
    return found


def harvest(
    run: Run, start: Start, tasks: Mapping[str, TaskSet], asked: Mapping[str, Asked]
) -> dict[str, Harvested | NothingToLearn]:
    """Let teachers write questions and answer them. Returns label -> harvest, or why nothing of it can be
    used. In a plan, harvests that are not finished are left out.

    Raises:
        Unmade: in a plan, verdicts are not there yet.
    """
    e: Experiment = start.experiment
    elicit = elicit_of(e)
    writers: dict[str, tuple[str, Hosted]] = {}  # by the writer's weights: paths share what it wrote
    for label, own in asked.items():
        if own.written is None:
            writers.setdefault(own.writes.state.id, (label, own.writes))
    wrote = write_questions(run, e, elicit, dict(writers.values()), tasks, start.held_out)
    written = {
        label: own.written.written if own.written else wrote.get(writers[own.writes.state.id][0])
        for label, own in asked.items()
    }
    answering = {
        label: Answering(own.answers, text.questions, {**own.styles, PLAIN: elicit.plain})
        for label, own in asked.items()
        if (text := written[label]) is not None and text.questions
    }
    said = answer_all(run, e, answering)
    found: dict[str, Harvested | NothingToLearn] = {
        label: no_question(label, text)
        for label, text in written.items()
        if text is not None and not text.questions
    }
    for label, answers in said.items():
        text, own = written[label], asked[label]
        if text is None:
            continue
        truth = truth_of(run, e, elicit, label, text, answers)
        questions = checked(text, truth)
        if not questions:
            found[label] = no_result(label, text, elicit.truth)
            continue
        styled = [one for one in answers if one.teacher != PLAIN]
        plain = [one for one in answers if one.teacher == PLAIN]
        pools = [
            pool_of(run, e, elicit, f"{label}, {name}", questions, some) if some else None
            for name, some in (("styles", styled), (PLAIN, plain))
        ]
        if pools[1] is not None:
            found[label] = Harvested(text, truth.references, truth.by, pools[0], pools[1])
    return found


def no_question(label: str, written: Written) -> NothingToLearn:
    """A harvest without a question."""
    return NothingToLearn(
        f"{label} harvest: no question could be found in what the teacher wrote",
        ", ".join(f"{n} {state}" for state, n in written.ledger().items()) or "no text",
        "texts in which elicit.pattern finds questions",
        "look at the teacher's texts, and change elicit.prompt or elicit.pattern",
    )


def no_result(label: str, written: Written, truth: str) -> NothingToLearn:
    """A harvest of questions without a right result."""
    return NothingToLearn(
        f"{label} harvest: no right result is known of any question that the teacher wrote",
        f"{len(written.questions)} questions, elicit.truth {truth}",
        "at least one",
        "look at the rationales: verify.method must find a result in them",
    )
