"""Rules turn costs into a choice: the verified answers of each question that enter the training set.

Every rule looks at one question at a time and draws from a generator seeded by (seed, question id). So a
choice does not change when other questions are added or removed (except with `round_robin`, a cap and
`most_questions`). Equal costs are ordered by answer id.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from cluster.errors import BadInput

RuleName = Literal["groups", "minimum", "top_k", "softmax", "random", "round_robin", "strongest", "teacher"]
RANKING_RULES = ("groups", "minimum", "top_k", "softmax")
WeightName = Literal["equal", "margin"]
CHOSEN_COLUMNS = ["question_id", "answer_id", "teacher", "cost", "rank", "candidates", "weight"]


@dataclass(frozen=True)
class RuleSettings:
    """The name of a rule, and its parameters: `groups` and `group` (1 is the cheapest), `k` for top-k,
    `teacher` for a fixed teacher.

    `weights` of the k chosen: equal, or by the margin over the first answer left out (LARK's). `temperature`
    of `softmax`, in units of the cost. A question whose cheapest answer costs more than `threshold`, or than
    the `threshold_quantile` of all costs, is left out. `cap`: no teacher answers more than this share of the
    questions that pass the threshold. A teacher that has reached it is no candidate any more.
    `most_questions`: only so many of the questions with a choice are kept. They are drawn by the seed alone,
    so that arms which can answer the same questions keep the same ones. With a cap, with `most_questions`, or
    with `round_robin`, the choice for one question depends on the others.
    """

    name: RuleName = "groups"
    groups: int = 5
    group: int = 1
    k: int = 1
    weights: WeightName = "equal"
    teacher: str | None = None
    temperature: float = 1.0
    threshold: float | None = None
    threshold_quantile: float | None = None
    cap: float | None = None
    compat: Literal["ours", "reference"] = "ours"
    most_questions: int | None = None


def is_sequential(settings: RuleSettings) -> bool:
    """Whether the choice for one question depends on the others."""
    return settings.name == "round_robin" or settings.cap is not None or settings.most_questions is not None


def group_of_rank(rank: int, candidates: int, groups: int, compat: str = "ours") -> int:
    """The group (1-based) of the answer at 1-based `rank` among `candidates` sorted by cost.

    With at least as many candidates as groups this is ceil(rank * G / n), as published. With fewer, the
    published program leaves group 1 empty, and the question vanishes from training. Here each answer is then
    its own group, the cheapest first.

    >>> [group_of_rank(r, 9, 5) for r in range(1, 10)]
    [1, 2, 2, 3, 3, 4, 4, 5, 5]
    >>> group_of_rank(1, 2, 5), group_of_rank(1, 2, 5, "reference")
    (1, 3)
    """
    if candidates < groups and compat == "ours":
        return rank
    return math.ceil(rank * groups / candidates)


def question_generator(seed: int, question_id: str) -> np.random.Generator:
    """The random generator of one question under one seed."""
    digest = hashlib.sha256(f"{seed}/{question_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def choice_weights(costs: Sequence[float], k: int, weights: WeightName) -> list[float]:
    """Weights of the k cheapest, which sum to 1: equal, or by how far each is below the cheapest one left
    out.

    The margin is LARK's (arXiv 2605.30651). With nothing left out, or no margin, the weights are equal.

    >>> choice_weights([-5.0, -3.0, -1.0], 2, "margin")
    [0.6666666666666666, 0.3333333333333333]
    """
    margins = (
        [float(costs[k]) - float(c) for c in costs[:k]] if weights == "margin" and len(costs) > k else []
    )
    total = sum(margins)
    return [m / total for m in margins] if total > 0 else [1.0 / max(1, k)] * k


@dataclass(frozen=True)
class Teachers:
    """What a rule knows about the teachers: the share of questions that each got right, and how often each
    was taken so far.
    """

    accuracy: Mapping[str, float]
    taken: Counter[str]


@dataclass(frozen=True)
class Candidates:
    """The answers to one question, cheapest first. `draw` makes the question's own generator."""

    answer_ids: Sequence[str]
    teachers: Sequence[str]
    costs: Sequence[float]
    draw: Callable[[], np.random.Generator]

    def __len__(self) -> int:
        return len(self.costs)

    def of(self, teacher: str | None) -> list[int]:
        """The places of a teacher's answers."""
        return [i for i, name in enumerate(self.teachers) if name == teacher]

    def one_of(self, places: Sequence[int]) -> list[int]:
        """Draw one of these places. Empty if there are none."""
        if len(places) < 2:
            return list(places)
        return [int(self.draw().choice(places))]

    def without(self, teachers: Collection[str]) -> "Candidates":
        """The candidates without some teachers' answers."""
        kept = [i for i, name in enumerate(self.teachers) if name not in teachers]
        ids, names = ([column[i] for i in kept] for column in (self.answer_ids, self.teachers))
        return Candidates(ids, names, [self.costs[i] for i in kept], self.draw)


Choice = Callable[[Candidates, RuleSettings, Teachers], list[int]]


def _groups(answers: Candidates, s: RuleSettings, teachers: Teachers) -> list[int]:
    n = len(answers)
    return answers.one_of([r for r in range(n) if group_of_rank(r + 1, n, s.groups, s.compat) == s.group])


def _top_k(answers: Candidates, s: RuleSettings, teachers: Teachers) -> list[int]:
    return list(range(min(s.k, len(answers))))


def _minimum(answers: Candidates, s: RuleSettings, teachers: Teachers) -> list[int]:
    return [0]


def _softmax(answers: Candidates, s: RuleSettings, teachers: Teachers) -> list[int]:
    """One draw with probability proportional to exp(-cost / temperature)."""
    cost = np.array(answers.costs, dtype=float)
    weight = np.exp(-(cost - cost.min()) / s.temperature)
    return [int(answers.draw().choice(len(cost), p=weight / weight.sum()))]


def _round_robin(answers: Candidates, s: RuleSettings, teachers: Teachers) -> list[int]:
    """The teachers in turn: of those with an answer to this question, the one that was taken least often so
    far.
    """
    first = min(set(answers.teachers), key=lambda t: (teachers.taken[t], t))
    return answers.one_of(answers.of(first))


def _random(answers: Candidates, s: RuleSettings, teachers: Teachers) -> list[int]:
    return [int(answers.draw().integers(len(answers)))]


def _strongest(answers: Candidates, s: RuleSettings, teachers: Teachers) -> list[int]:
    """The best teacher with a verified answer to this question. Equal accuracies are ordered by name."""
    best = min(set(answers.teachers), key=lambda t: (-teachers.accuracy[t], t))
    return answers.one_of(answers.of(best))


def _teacher(answers: Candidates, s: RuleSettings, teachers: Teachers) -> list[int]:
    """Only this teacher's answers. A question without one is left out."""
    return answers.one_of(answers.of(s.teacher))


RULES: dict[str, Choice] = {
    "groups": _groups,
    "minimum": _minimum,
    "top_k": _top_k,
    "softmax": _softmax,
    "random": _random,
    "round_robin": _round_robin,
    "strongest": _strongest,
    "teacher": _teacher,
}


def choose(
    pool: pd.DataFrame, settings: RuleSettings, seed: int, accuracy: Mapping[str, float]
) -> pd.DataFrame:
    """Choose answers for every question of the pool.

    Args:
        pool: verified answers: question_id, answer_id, teacher, cost.
        settings: the rule.
        seed: of the draws.
        accuracy: the share of the pool's questions that each teacher got right. `strongest` uses it.

    Returns:
        The chosen rows: question_id, answer_id, teacher, cost, rank (1 is the cheapest), candidates, weight
            (a question's
        weights sum to 1), ordered by question id. Questions the rule leaves out are absent.

    Raises:
        BadInput: a parameter out of range.
    """
    check_rule(settings, set(pool["teacher"].unique()) | set(accuracy))
    ceiling = _ceiling(pool, settings)
    by_question = {q: c for q, c in candidates_of(pool, seed) if c.costs[0] <= ceiling}
    room = math.inf if settings.cap is None else max(1, math.floor(settings.cap * len(by_question) + 1e-9))
    teachers = Teachers(accuracy, Counter())
    rows: list[tuple[Any, ...]] = []
    order = sorted(by_question, key=lambda q: _shuffled(seed, q)) if settings.cap is not None else by_question
    for question_id in order:
        answers = by_question[question_id]
        full = {t for t in set(answers.teachers) if teachers.taken[t] >= room}
        ranked = answers.without(full) if full else answers
        if not len(ranked) or ranked.costs[0] > ceiling:  # a cap may have removed the cheaper ones
            continue
        picked = RULES[settings.name](ranked, settings, teachers)
        teachers.taken.update({ranked.teachers[i] for i in picked})
        weights = choice_weights(ranked.costs, len(picked), settings.weights)
        for i, weight in zip(picked, weights, strict=True):
            row = (question_id, ranked.answer_ids[i], ranked.teachers[i], ranked.costs[i])
            rows.append((*row, i + 1, len(ranked), weight))
    if settings.most_questions is not None:
        in_order = sorted({row[0] for row in rows}, key=lambda q: _shuffled(seed, q))
        kept = set(in_order[: settings.most_questions])
        rows = [row for row in rows if row[0] in kept]
    rows.sort(key=lambda r: (r[0], r[4]))
    return pd.DataFrame(rows, columns=CHOSEN_COLUMNS)


def candidates_of(pool: pd.DataFrame, seed: int) -> Iterator[tuple[str, Candidates]]:
    """Every question with its answers, both in order. Equal costs are ordered by answer id."""
    ordered = pool.sort_values(["question_id", "cost", "answer_id"])
    questions = ordered["question_id"].tolist()
    columns = [ordered[name].tolist() for name in ("answer_id", "teacher", "cost")]
    start = 0
    for end in range(1, len(questions) + 1):
        if end == len(questions) or questions[end] != questions[start]:
            question = str(questions[start])
            ids, teachers, costs = (column[start:end] for column in columns)
            yield question, Candidates(ids, teachers, costs, partial(question_generator, seed, question))
            start = end


def _ceiling(pool: pd.DataFrame, settings: RuleSettings) -> float:
    """The largest cost of a cheapest answer. Questions above it are left out."""
    if settings.threshold_quantile is not None and len(pool):
        return float(pool["cost"].quantile(settings.threshold_quantile))
    return math.inf if settings.threshold is None else settings.threshold


def _shuffled(seed: int, question_id: str) -> bytes:
    """A key that sorts questions in an order drawn by the seed, so that the cap does not depend on their
    names.
    """
    return hashlib.sha256(f"order/{seed}/{question_id}".encode()).digest()


def check_rule(settings: RuleSettings, teachers: set[str]) -> None:
    """Refuse parameters that no rule accepts."""
    for name, known in (("compat", ("ours", "reference")), ("weights", ("equal", "margin"))):
        if (value := getattr(settings, name)) not in known:
            raise BadInput(f"{name} is unknown", value, " or ".join(known), "")
    numbers = settings.temperature, settings.threshold, settings.threshold_quantile, settings.cap
    if any(value is not None and math.isnan(value) for value in numbers):
        raise BadInput("a parameter of the rule is no number", numbers, "numbers", "")
    if settings.groups < 1:
        raise BadInput(
            "groups is out of range", settings.groups, "1 or more", "a ranking is cut into so many"
        )
    if not 1 <= settings.group <= settings.groups:
        raise BadInput(
            "group is out of range",
            settings.group,
            f"1 to groups ({settings.groups})",
            "1 is the group of lowest cost",
        )
    if settings.k < 1:
        raise BadInput("k is out of range", settings.k, "1 or more", "")
    if settings.temperature <= 0:
        raise BadInput(
            "temperature is out of range",
            settings.temperature,
            "more than 0",
            "use rule minimum for the cheapest",
        )
    if settings.threshold is not None and settings.threshold_quantile is not None:
        raise BadInput(
            "two thresholds", f"{settings.threshold} and {settings.threshold_quantile}", "one", "remove one"
        )
    if settings.most_questions is not None and settings.most_questions < 1:
        raise BadInput("most_questions is out of range", settings.most_questions, "1 or more", "")
    for name, share in (("threshold_quantile", settings.threshold_quantile), ("cap", settings.cap)):
        if share is not None and not 0 < share <= 1:
            raise BadInput(f"{name} is out of range", share, "more than 0, at most 1", "")
    if settings.weights == "margin" and settings.name != "top_k":
        raise BadInput("margin weights are for rule top_k", settings.name, "top_k", "remove weights")
    if settings.name == "teacher" and settings.teacher not in teachers:
        raise BadInput(
            "the arm names no known teacher",
            settings.teacher,
            ", ".join(sorted(teachers)),
            "set the arm's teacher",
        )
