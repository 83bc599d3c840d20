"""From costs to a choice: which verified answers of each question enter the training set.

Every rule looks at one question at a time and draws from a generator seeded by (seed, question id), so a choice does not
change when other questions come or go. Equal costs are ordered by answer id.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from cluster.errors import BadInput

RuleName = Literal["groups", "minimum", "top_k", "random", "strongest", "teacher"]
WeightName = Literal["equal", "margin"]
CHOSEN_COLUMNS = ["question_id", "answer_id", "teacher", "cost", "rank", "candidates", "weight"]


@dataclass(frozen=True)
class RuleSettings:
    """Which rule, and its parameters: `groups` and `group` (1 is the cheapest), `k` for top-k, `teacher` for a fixed one.

    `weights` of the k chosen: equal, or by the margin over the first answer left out (LARK's).
    """

    name: RuleName = "groups"
    groups: int = 5
    group: int = 1
    k: int = 1
    weights: WeightName = "equal"
    teacher: str | None = None
    compat: Literal["ours", "reference"] = "ours"


def group_of_rank(rank: int, candidates: int, groups: int, compat: str = "ours") -> int:
    """The group (1-based) of the answer at 1-based `rank` among `candidates` sorted by cost.

    With at least as many candidates as groups this is ceil(rank * G / n), as published. With fewer, the published program
    leaves group 1 empty and the question vanishes from training; here each answer is its own group, the cheapest first.

    >>> [group_of_rank(r, 9, 5) for r in range(1, 10)]
    [1, 2, 2, 3, 3, 4, 4, 5, 5]
    >>> group_of_rank(1, 2, 5), group_of_rank(1, 2, 5, "reference")
    (1, 3)
    """
    if candidates < groups and compat == "ours":
        return rank
    return math.ceil(rank * groups / candidates)


def question_generator(seed: int, question_id: str) -> np.random.Generator:
    """A generator that belongs to one question under one seed."""
    digest = hashlib.sha256(f"{seed}/{question_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def choice_weights(costs: Sequence[float], k: int, weights: WeightName) -> list[float]:
    """Weights of the k cheapest, which sum to 1: equal, or by how far each is below the cheapest one left out.

    The margin is LARK's (arXiv 2605.30651). With nothing left out, or no margin, the weights are equal.

    >>> choice_weights([-5.0, -3.0, -1.0], 2, "margin")
    [0.6666666666666666, 0.3333333333333333]
    """
    margins = [float(costs[k]) - float(c) for c in costs[:k]] if weights == "margin" and len(costs) > k else []
    total = sum(margins)
    return [m / total for m in margins] if total > 0 else [1.0 / max(1, k)] * k


Choice = Callable[[pd.DataFrame, RuleSettings, np.random.Generator, Mapping[str, float]], list[int]]


def _groups(answers: pd.DataFrame, s: RuleSettings, rng: np.random.Generator, accuracy: Mapping[str, float]) -> list[int]:
    n = len(answers)
    members = [r for r in range(n) if group_of_rank(r + 1, n, s.groups, s.compat) == s.group]
    return [int(rng.choice(members))] if members else []


def _top_k(answers: pd.DataFrame, s: RuleSettings, rng: np.random.Generator, accuracy: Mapping[str, float]) -> list[int]:
    return list(range(min(s.k, len(answers))))


def _minimum(answers: pd.DataFrame, s: RuleSettings, rng: np.random.Generator, accuracy: Mapping[str, float]) -> list[int]:
    return [0]


def _random(answers: pd.DataFrame, s: RuleSettings, rng: np.random.Generator, accuracy: Mapping[str, float]) -> list[int]:
    return [int(rng.integers(len(answers)))]


def _strongest(answers: pd.DataFrame, s: RuleSettings, rng: np.random.Generator, accuracy: Mapping[str, float]) -> list[int]:
    """The best teacher that has a verified answer here; equal accuracies are ordered by name."""
    best = min(set(answers["teacher"]), key=lambda t: (-accuracy[t], t))
    return [int(rng.choice(np.flatnonzero(answers["teacher"] == best)))]


def _teacher(answers: pd.DataFrame, s: RuleSettings, rng: np.random.Generator, accuracy: Mapping[str, float]) -> list[int]:
    """Only this teacher's answers; a question it has no verified answer for is left out."""
    own = np.flatnonzero(answers["teacher"] == s.teacher)
    return [int(rng.choice(own))] if len(own) else []


RULES: dict[str, Choice] = {
    "groups": _groups,
    "minimum": _minimum,
    "top_k": _top_k,
    "random": _random,
    "strongest": _strongest,
    "teacher": _teacher,
}


def choose(pool: pd.DataFrame, settings: RuleSettings, seed: int, accuracy: Mapping[str, float]) -> pd.DataFrame:
    """Choose answers for every question of the pool.

    Args:
        pool: verified answers: question_id, answer_id, teacher, cost.
        settings: the rule.
        seed: of the draws.
        accuracy: share of the pool's questions each teacher got right; used by `strongest`.

    Returns:
        The chosen rows: question_id, answer_id, teacher, cost, rank (1 is the cheapest), candidates, weight (a question's
        weights sum to 1), ordered by question id. Questions the rule leaves out are absent.

    Raises:
        BadInput: a parameter out of range.
    """
    check_rule(settings, set(pool["teacher"]) | set(accuracy))
    rows = []
    for question_id, answers in pool.sort_values(["question_id", "cost", "answer_id"]).groupby("question_id", sort=True):
        ranked = answers.reset_index(drop=True)
        picked = RULES[settings.name](ranked, settings, question_generator(seed, str(question_id)), accuracy)
        weights = choice_weights(ranked["cost"].tolist(), len(picked), settings.weights)
        for i, weight in zip(picked, weights, strict=True):
            row = ranked.iloc[i]
            rows.append((question_id, row["answer_id"], row["teacher"], float(row["cost"]), i + 1, len(ranked), weight))
    return pd.DataFrame(rows, columns=CHOSEN_COLUMNS)


def check_rule(settings: RuleSettings, teachers: set[str]) -> None:
    """Refuse parameters no rule can work with."""
    if settings.groups < 1 or not 1 <= settings.group <= settings.groups:
        raise BadInput("group is out of range", settings.group, f"1 to groups ({settings.groups})", "1 is the group of lowest cost")
    if settings.k < 1:
        raise BadInput("k is out of range", settings.k, "1 or more", "")
    if settings.weights == "margin" and settings.name != "top_k":
        raise BadInput("margin weights are for rule top_k", settings.name, "top_k", "remove weights")
    if settings.name == "teacher" and settings.teacher not in teachers:
        raise BadInput("the arm names no known teacher", settings.teacher, ", ".join(sorted(teachers)), "set the arm's teacher")
