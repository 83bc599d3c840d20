"""Where trained rows come from: for every question what all teachers answered, with verdict and cost, what
each arm took of it and why, and which state of the student scored it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from jobs.files.questions import Question
from jobs.results.outcome import Outcome, StudentPath
from jobs.run.slices import Sliced
from jobs.run.store import digest
from jobs.stages.questions import read_slice
from jobs.stages.select import known_teacher_costs, with_costs

MOST_ANSWERS = 20_000  # whose texts are told, those of the first questions by key
MOST_COSTS = 400_000  # numbers beside them
MOST_CHARACTERS = 60_000_000


@dataclass(frozen=True)
class CostColumn:
    """One cost under one state of a student, as some arms chose by it.

    Attributes:
        label: of the cost and its settings.
        state: which weights scored, for people.
        student: whose.
        round: in which it was chosen by.
    """

    label: str
    state: str
    student: str
    round: int


@dataclass(frozen=True)
class PathColumn:
    """One path's choice in one round.

    Attributes:
        cost: number of its cost column; None for an arm that reads none.
        rule: in words.
        trained: id of the training that learned from it.
    """

    label: str
    student: str
    arm: str
    seed: int
    round: int
    cost: int | None
    rule: str
    trained: str


@dataclass
class Answer:
    """One answer; `costs` are by the number of a cost column, None where it has none."""

    id: str
    teacher: str
    text: str
    calls: str
    state: str
    why: str
    extracted: str
    costs: list[float | None]


@dataclass
class Traced:
    """One question with everything that became of it.

    Attributes:
        chosen: by the number of a path: what it took, as (answer id, rank, candidates, weight).
    """

    id: str
    family: str
    turns: list[dict[str, Any]]
    references: tuple[str, ...]
    answers: list[Answer] = field(default_factory=list)
    chosen: dict[int, list[tuple[str, int, int, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    """What is told of a run's first questions.

    Attributes:
        left_out: questions of which nothing is told, since there are more than fit.
    """

    costs: list[CostColumn]
    paths: list[PathColumn]
    questions: list[Traced]
    left_out: int


def lineage_of(
    outcome: Outcome,
    most_answers: int = MOST_ANSWERS,
    most_costs: int = MOST_COSTS,
    most_characters: int = MOST_CHARACTERS,
) -> Lineage:
    """Trace the questions of a run; where they are many those of its first slices, of the last of them those
    whose ids come first.
    """
    columns, of_path = cost_columns(outcome)
    paths = path_columns(outcome, of_path)
    pool, traced = outcome.start.pool, list[Traced]()
    for number in range(pool.count):
        room = Room(most_answers, most_costs // max(1, len(columns)), most_characters)
        told = first_questions(pool.told(number), list(read_slice(pool.questions, number)), room, not traced)
        traced += trace_slice(outcome, number, columns, of_path, told)
        if len(told) < len(read_slice(pool.questions, number)):
            break
        most_answers, most_costs, most_characters = room.left(len(columns))
    left = len(outcome.start.questions) - len(traced)
    return Lineage([column for column, _, _ in columns], paths, traced, left)


@dataclass
class Room:
    """How much may still be told: answers, answers whose costs are told, characters."""

    answers: int
    costed: int
    characters: int

    def takes(self, answers: int, characters: int) -> bool:
        """Whether a question with so much fits; it is counted then."""
        if answers > min(self.answers, self.costed) or characters > self.characters:
            return False
        self.answers, self.costed = self.answers - answers, self.costed - answers
        self.characters -= characters
        return True

    def left(self, columns: int) -> tuple[int, int, int]:
        """What is left, as the limits that it was made from."""
        return self.answers, self.costed * max(1, columns), self.characters


def first_questions(answers: pd.DataFrame, questions: list[str], room: Room, takes_one: bool) -> list[str]:
    """Of a slice's questions, in order, those that there is room for.

    Args:
        takes_one: the first is told whatever its size.
    """
    by = answers.groupby("question_id")["characters"].agg(["size", "sum"]).to_dict("index")
    found: list[str] = []
    for question in sorted(questions):
        own = by.get(question, {"size": 0, "sum": 0})
        if not room.takes(int(own["size"]), int(own["sum"])) and (found or not takes_one):
            break
        found.append(question)
    return found


Chooser = tuple[StudentPath, int]
Columns = list[tuple[CostColumn, StudentPath, int]]


def cost_columns(outcome: Outcome) -> tuple[Columns, dict[Chooser, int]]:
    """The costs by which paths chose, each once: arms of one cost share it under one state."""
    columns: Columns = []
    known: dict[str, int] = {}
    of_path = {}
    for path, number, scores, _ in outcome.choices():
        settings = path.choosing.cost_settings
        if settings is None:
            continue
        key = digest([scores.id, repr(settings)])
        if key not in known:
            known[key] = len(columns)
            label = f"{settings.name}" + (f" λ {settings.scas_lambda:g}" if settings.name == "scas" else "")
            state = "before training" if number == 1 else f"{path.label} after round {number - 1}"
            columns.append((CostColumn(label, state, path.student, number), path, number))
        of_path[path, number] = known[key]
    return columns, of_path


def path_columns(outcome: Outcome, of_path: Mapping[Chooser, int]) -> list[PathColumn]:
    """Every path's choice of every round."""
    found = []
    for path, number, *_ in outcome.choices():
        trained = outcome.trained(path, number)
        found.append(
            PathColumn(
                path.label,
                path.student,
                path.arm.name,
                path.seed,
                number,
                of_path.get((path, number)),
                rule_in_words(path),
                "" if trained is None else trained.id,
            )
        )
    return found


def rule_in_words(path: StudentPath) -> str:
    """Why an arm takes what it takes, in one sentence."""
    arm = path.choosing
    cost = arm.cost or ""
    words = {
        "groups": f"drawn from group {arm.group} of {arm.groups} by {cost}",
        "minimum": f"the lowest {cost}",
        "top_k": f"the {arm.k} lowest by {cost}",
        "softmax": f"drawn, the lower {cost} the likelier",
        "random": "drawn at random",
        "round_robin": "the teacher taken least often so far",
        "strongest": "the strongest teacher with a right answer here",
        "teacher": f"only {arm.teacher} is taken",
    }[arm.rule]
    limits = [
        f"no teacher above {arm.cap:.0%}" if arm.cap is not None else "",
        f"at most {arm.most_questions} questions" if arm.most_questions is not None else "",
        "costs below a threshold" if arm.threshold is not None or arm.threshold_quantile is not None else "",
    ]
    return "; ".join([words, *filter(None, limits)])


def trace_slice(
    outcome: Outcome, number: int, columns: Columns, of_path: Mapping[Chooser, int], told: list[str]
) -> Iterator[Traced]:
    """Some questions of one slice."""
    pool = outcome.start.pool
    questions = read_slice(pool.questions, number)
    kept = set(told)
    answers = pool.read(number)
    answers = answers[answers["question_id"].isin(kept)]
    costs = [_costs(outcome, path, n, number, kept) for _, path, n in columns]
    unscored = unscored_of(outcome, number)
    chosen = [_chosen(sliced, number) for *_, sliced in outcome.choices()]
    by_question = dict(list(answers.groupby("question_id", sort=False)))
    for identity in told:
        question = questions[identity]
        traced = Traced(identity, question.family, turns_of(question), question.references)
        if identity in by_question:
            traced.answers = [
                answer_of(row, [column.get(str(row["answer_id"])) for column in costs], unscored)
                for row in by_question[identity].to_dict("records")
            ]
        traced.chosen = {k: own[identity] for k, own in enumerate(chosen) if identity in own}
        yield traced


def turns_of(question: Question) -> list[dict[str, Any]]:
    """The turns of a question as plain values, with its tools as a turn of their own."""
    turns = question.prompt.for_template()
    tools = [{"role": "tools", "content": question.prompt.tools}] if question.prompt.tools else []
    return [*tools, *turns]


def answer_of(row: Mapping[Any, Any], costs: list[float | None], unscored: Mapping[str, str]) -> Answer:
    """One answer of the pool."""
    identity = str(row["answer_id"])
    said = (str(row["teacher"]), str(row["text"]), str(row["tool_calls"] or ""), str(row["state"]))
    why = str(row["error"] or "") or unscored.get(identity, "")
    return Answer(identity, *said, why, str(row["extracted"] or ""), costs)


def unscored_of(outcome: Outcome, number: int) -> dict[str, str]:
    """Verified answers of a slice that could not be scored under some student, and why."""
    found: dict[str, str] = {}
    seen = set()
    for path, _, scores, _ in outcome.choices():
        if scores.id not in seen:
            seen.add(scores.id)
            table = scores.slice(number)
            bad = table[table["state"] != "scored"]
            columns = (bad[c].tolist() for c in ("answer_id", "state", "reason"))
            for answer, state, reason in zip(*columns, strict=True):
                found.setdefault(str(answer), f"under {path.student} {state}: {reason}")
    return found


def _costs(
    outcome: Outcome, path: StudentPath, round_number: int, number: int, questions: set[str]
) -> dict[str, float]:
    scores, chosen = outcome.scores(path, round_number), outcome.chosen(path, round_number)
    if scores is None or chosen is None:
        return {}
    known = known_teacher_costs(path.choosing, outcome.start.pool, scores, chosen.stage)
    table = scores.slice(number)
    table = table[table["question_id"].isin(questions)].reset_index(drop=True)
    costed = with_costs(table, path.choosing, known)
    return dict(zip(costed["answer_id"].tolist(), costed["cost"].tolist(), strict=True))


def _chosen(sliced: Sliced, number: int) -> dict[str, list[tuple[str, int, int, float]]]:
    table = sliced.read("chosen", number, ["question_id", "answer_id", "rank", "candidates", "weight"])
    found: dict[str, list[tuple[str, int, int, float]]] = {}
    rows = table.itertuples(index=False, name=None)
    for question, answer, rank, candidates, weight in rows:
        found.setdefault(str(question), []).append((str(answer), int(rank), int(candidates), float(weight)))
    return found
