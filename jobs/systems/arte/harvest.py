"""A harvest: questions that a teacher wrote, with rationales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.experiment.elicit import PLAIN, TAGGED, Elicit
from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import ModelTeacher, ServerTeacher
from jobs.results.outcome import Start, StudentPath
from jobs.run.run import Run
from jobs.stages.ask import Hosted
from jobs.stages.gather import Said
from jobs.stages.pool import AnswerPool
from jobs.stages.train import NothingToLearn
from jobs.systems.arte.align import Alignment
from jobs.systems.arte.paths import aligned_label, arm_of, elicit_of, is_aligned
from jobs.systems.arte.questions import TaskSet, Written, write_questions
from jobs.systems.arte.rationales import Answering, answer_all, checked, known_truth, pool_of, truth_of


@dataclass(frozen=True)
class Asked:
    """Who writes the questions, and who answers them.

    Attributes:
        voter: the teacher as it was, whose rationales in all styles vote on results that are not known.
        is_first: whether the rationales in all styles are part of the harvest.
        written: the harvest whose questions are taken, if they exist already.
    """

    writes: Hosted
    answers: Hosted
    voter: Hosted
    is_first: bool = False
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
        taken = first if variant == "rationale_only" else None
        found[aligned_label(path)] = Asked(now, answers, teacher, written=taken)
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
    again = "" if any(own.is_first for own in asked.values()) else " again"
    writers: dict[str, tuple[str, Hosted]] = {}  # by the writer's weights: paths share what it wrote
    for label, own in asked.items():
        if own.written is None:
            writers.setdefault(own.writes.state.id, (label, own.writes))
    kind = f"write questions{again}"
    wrote = write_questions(run, e, elicit, dict(writers.values()), tasks, start.held_out, kind)
    written = {
        label: own.written.written if own.written else wrote.get(writers[own.writes.state.id][0])
        for label, own in asked.items()
    }
    there = {label: text for label, text in written.items() if text is not None and text.questions}
    known = {
        label: dict(old.references) if (old := asked[label].written) else known_truth(elicit, text)
        for label, text in there.items()
    }
    plain = {PLAIN: elicit.plain}
    every: Mapping[str, str | None] = {**elicit.styles, **plain}
    answering = {
        label: Answering(asked[label].answers, text.questions, every if asked[label].is_first else plain)
        for label, text in there.items()
    }
    said = answer_all(run, e, answering, f"generate{again}")
    voters = votes(run, e, elicit, asked, there, known, said)
    found: dict[str, Harvested | NothingToLearn] = {
        label: no_question(label, text)
        for label, text in written.items()
        if text is not None and not text.questions
    }
    for label, answers in said.items():
        text, own = there[label], asked[label]
        if label not in voters:
            continue
        truth = truth_of(run, e, elicit, label, text, known[label], voters[label])
        questions = checked(text, truth)
        if not questions:
            found[label] = no_result(label, text, elicit.truth)
            continue
        pools = [
            pool_of(run, e, elicit, f"{label}, {name}", questions, some) if some else None
            for name, some in (
                ("styles", [one for one in answers if one.teacher != PLAIN]),
                (PLAIN, [one for one in answers if one.teacher == PLAIN]),
            )
        ]
        if pools[1] is not None:
            found[label] = Harvested(text, truth.references, truth.by, pools[0], pools[1])
    return found


def votes(
    run: Run,
    e: Experiment,
    elicit: Elicit,
    asked: Mapping[str, Asked],
    written: Mapping[str, Written],
    known: Mapping[str, Mapping[str, str]],
    said: Mapping[str, list[Said]],
) -> dict[str, list[Said]]:
    """The rationales that vote on results that are not known: those of the teacher as it was, in all styles
    and under the naive prompt, whoever wrote the questions. So all harvests are checked alike.
    """
    found, further = dict[str, list[Said]](), dict[str, Answering]()
    for label, text in written.items():
        rest = {i: q for i, q in text.questions.items() if i not in known[label]}
        if elicit.truth == TAGGED or not rest or asked[label].written is not None:
            found[label] = []
        elif asked[label].is_first:
            found |= {label: said[label]} if label in said else {}
        else:
            systems = {**elicit.styles, PLAIN: elicit.plain}
            further[label] = Answering(asked[label].voter, rest, systems)
    return found | answer_all(run, e, further, "vote")


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
