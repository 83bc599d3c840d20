"""Ranks teachers by what their answers cost one student, on questions that all of them answered.

A teacher's cost is the mean over questions of the mean over its answers to a question. Questions are drawn
again, with replacement, for everything that is said about chance. No model is needed here.

Shapes: T teachers, Q questions, B draws, P pairs of teachers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from selection.drawn_means import (
    EQUAL,
    FEW_QUESTIONS,
    Draws,
    beyond,
    bounds,
    furthest,
    interval,
    questions_to_tell,
    rounding,
)


@dataclass(frozen=True)
class Matched:
    """Costs of teachers on the questions that all of them answered.

    Attributes:
        values: by cost, [T, Q]; lower is better.
        tokens: [T, Q], answer tokens, mean over a teacher's answers to a question.
        logs: [T, Q], the same of their natural logarithm.
        left_out: further costs that some teacher lacks on some of these questions, and on how many.
        unmatched: how many questions a teacher answered that some other did not.
        instead: a teacher whose absence would leave the most questions, and how many these are.
    """

    teachers: tuple[str, ...]
    questions: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    tokens: np.ndarray
    logs: np.ndarray
    unmatched: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)
    instead: tuple[str, int] | None = None


def match(answers: pd.DataFrame, costs: Sequence[str], further: Sequence[str] = ()) -> Matched:
    """The costs on the questions that every teacher answered.

    Args:
        answers: one row an answer: `question_id`, `teacher`, `n_answer` (tokens, at least 1) and a column
            for each cost.
        costs: an answer of which one of them is NaN counts as none.
        further: costs that an answer may lack. One that a teacher lacks on a whole question is left out.

    Raises:
        BadInput: fewer than two teachers, or no question that all of them answered.
    """
    known = answers[answers[[*costs, "n_answer"]].notna().all(axis=1)]
    known = known.assign(_log=np.log(known["n_answer"].astype(float).clip(lower=1.0)))
    teachers = tuple(sorted(answers["teacher"].unique()))
    if len(teachers) < 2:
        raise BadInput(
            "nothing to rank", f"answers of {', '.join(teachers) or 'nobody'}", "two teachers or more", ""
        )
    answered = {str(t): set(known.loc[known["teacher"] == t, "question_id"]) for t in teachers}
    shared = set.intersection(*answered.values())
    instead = _left_out(answered) if len(teachers) > 2 else None
    if not shared:
        remedy = ""
        if instead is not None and instead[1]:
            remedy = f"leave out {instead[0]}: then {instead[1]:,} questions are answered by all"
        got = ", ".join(f"{t} {len(q):,}" for t, q in answered.items())
        raise BadInput(
            "no question that all teachers answered",
            f"questions with a cost: {got}",
            "the same questions, under the same ids, for all teachers",
            remedy,
        )
    questions = tuple(sorted(shared))
    columns = [*costs, *further, "n_answer", "_log"]
    means = known[known["question_id"].isin(shared)].groupby(["teacher", "question_id"])[columns].mean()

    def table(name: str) -> np.ndarray:
        return means[name].unstack().loc[list(teachers), list(questions)].to_numpy(float)

    tables = {cost: table(cost) for cost in [*costs, *further]}
    lacking = {cost: int(np.isnan(own).any(axis=0).sum()) for cost, own in tables.items()}
    return Matched(
        teachers,
        questions,
        {cost: levelled(own) for cost, own in tables.items() if not lacking[cost]},
        table("n_answer"),
        table("_log"),
        {t: len(q) - len(shared) for t, q in answered.items()},
        {cost: count for cost, count in lacking.items() if count},
        instead if instead is not None and instead[1] > len(shared) else None,
    )


def levelled(values_TQ: np.ndarray) -> np.ndarray:
    """The same values with those of one question made equal that differ by rounding alone. Two teachers with
    the same answers would be told apart by it otherwise.
    """
    order_TQ = values_TQ.argsort(axis=0, kind="stable")
    sorted_TQ = np.take_along_axis(values_TQ, order_TQ, axis=0)
    close = EQUAL * np.abs(values_TQ).max(axis=0)
    for t in range(1, len(sorted_TQ)):
        is_same = sorted_TQ[t] - sorted_TQ[t - 1] <= close
        sorted_TQ[t] = np.where(is_same, sorted_TQ[t - 1], sorted_TQ[t])
    found = np.empty_like(values_TQ)
    np.put_along_axis(found, order_TQ, sorted_TQ, axis=0)
    return found


def _left_out(answered: Mapping[str, set[str]]) -> tuple[str, int]:
    """The teacher without which most questions are answered by all others, and how many."""
    counts = {t: len(set.intersection(*(q for other, q in answered.items() if other != t))) for t in answered}
    return max(counts.items(), key=lambda item: item[1])


def order_table(matched: Matched, draws: int, seed: int) -> pd.DataFrame:
    """The teachers in the order of every cost.

    Returns:
        Columns `cost`, `place` (from 1; equal teachers share one), `teacher`, `mean`, `low`, `high`;
        `is_first` (the share of draws in which it is first, NaN with fewer than ten questions);
        `behind`, `behind_low`, `behind_high` (mean less the first teacher's, paired over questions, the
        interval of this pair alone); `told` (from the first, for all pairs together); `questions_to_tell` it
        from the first in that way; and the same at equal length (`at_equal_length`).
    """
    found, drawn = [], Draws(len(matched.questions), draws, seed)
    evens = at_equal_length(matched, drawn)
    for (cost, values_TQ), means_BT in zip(
        matched.values.items(), drawn.means(*matched.values.values()), strict=True
    ):
        means_T = values_TQ.mean(axis=1)
        order = ordered(values_TQ, matched.teachers)
        first, shares = order[0], first_shares(means_BT)
        most = furthest(values_TQ, means_BT)
        told_T = beyond(values_TQ, first, most)
        shares = shares if len(matched.questions) >= FEW_QUESTIONS else np.full(len(shares), math.nan)
        level_T = levelled(means_T[:, None])[:, 0]
        for t in order:
            low, high = bounds(values_TQ[t], means_BT[:, t])
            behind = bounds(values_TQ[t] - values_TQ[first], means_BT[:, t] - means_BT[:, first])
            tell = math.nan if t == first else questions_to_tell(values_TQ[t] - values_TQ[first], most)
            found.append(
                {
                    "cost": cost,
                    "place": int((level_T < level_T[t]).sum()) + 1,
                    "teacher": matched.teachers[t],
                    "mean": means_T[t],
                    "low": low,
                    "high": high,
                    "is_first": shares[t],
                    "behind": means_T[t] - means_T[first],
                    "behind_low": behind[0],
                    "behind_high": behind[1],
                    "told": bool(told_T[t]),
                    "questions_to_tell": tell,
                    **evens[cost].loc[t].to_dict(),
                }
            )
    return pd.DataFrame(found)


def ordered(values_TQ: np.ndarray, teachers: Sequence[str]) -> list[int]:
    """The teachers' numbers, the lowest mean first; of equal ones by name. Means that differ by rounding are
    equal.
    """
    means_T = levelled(values_TQ.mean(axis=1)[:, None])[:, 0]
    return sorted(range(len(means_T)), key=lambda t: (means_T[t], teachers[t]))


def first_shares(means_BT: np.ndarray) -> np.ndarray:
    """The share of draws in which each teacher is first. Teachers that are equal share a draw.

    >>> first_shares(np.array([[1.0, 2.0], [1.0, 1.0]])).tolist()
    [0.75, 0.25]
    """
    is_first = firsts(means_BT)
    return np.asarray((is_first / is_first.sum(axis=1, keepdims=True)).mean(axis=0))


def firsts(means_BT: np.ndarray) -> np.ndarray:
    """Whether each teacher is first in each draw, alone or with others, [B, T]."""
    return np.asarray(means_BT - means_BT.min(axis=1, keepdims=True) <= rounding(means_BT))


def at_equal_length(matched: Matched, drawn: Draws) -> dict[str, pd.DataFrame]:
    """For each cost the teachers as if all answers were equally long: a teacher's effect beside the logarithm
    of an answer's tokens, in a linear model with an effect of each question and each teacher.

    Returns:
        For each cost, by teacher, `even_place` and `even_behind` with `even_low` and `even_high`, behind the
        first of this order. NaN where length explains nothing, because within a teacher it does not vary.
    """
    x_TQ = matched.logs - matched.logs.mean(axis=0)
    ys = [values_TQ - values_TQ.mean(axis=0) for values_TQ in matched.values.values()]
    tables = [x_TQ, x_TQ**2, *ys, *(x_TQ * y_TQ for y_TQ in ys)]
    whole, again = [table.mean(axis=1)[None] for table in tables], drawn.means(*tables)
    found = {}
    for k, cost in enumerate(matched.values):
        at = (0, 1, 2 + k, 2 + len(ys) + k)
        whole_1T, effects_BT = (_effects(*(own[i] for i in at)) for own in (whole, again))
        found[cost] = _even(matched, whole_1T[0], effects_BT, cost in ("shortest", "longest"))
    return found


def _even(matched: Matched, whole_T: np.ndarray, effects_BT: np.ndarray, is_length: bool) -> pd.DataFrame:
    """The table of `at_equal_length` for one cost.

    Args:
        is_length: the cost is the length itself, so nothing is left beside it.
    """
    names, rows = ["even_place", "even_behind", "even_low", "even_high"], {}
    if np.isnan(whole_T).any() or is_length:
        return pd.DataFrame(np.nan, index=range(len(matched.teachers)), columns=names)
    order = sorted(range(len(whole_T)), key=lambda t: (whole_T[t], matched.teachers[t]))
    level_T = levelled(whole_T[:, None])[:, 0]
    for t in order:
        behind_B = effects_BT[:, t] - effects_BT[:, order[0]]
        span = (math.nan, math.nan)
        if len(matched.questions) >= FEW_QUESTIONS:
            span = interval(behind_B[~np.isnan(behind_B)], len(matched.questions))
        place = int((level_T < level_T[t]).sum()) + 1
        rows[t] = [place, whole_T[t] - whole_T[order[0]], *span]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)


def _effects(x_BT: np.ndarray, xx_BT: np.ndarray, y_BT: np.ndarray, xy_BT: np.ndarray) -> np.ndarray:
    """The teachers' effects beside length, from means of what is left within questions. [B, T]."""
    shared_B = (xy_BT - x_BT * y_BT).sum(axis=1)
    varied_B = (xx_BT - x_BT**2).sum(axis=1)
    varied_B = np.where(varied_B > 1e-9, varied_B, np.nan)
    return np.asarray(y_BT - (shared_B / varied_B)[:, None] * x_BT)
