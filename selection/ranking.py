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
from scipy import stats

from cluster.errors import BadInput

LEVEL = 0.05
POWER = 0.8  # of the number of questions that would tell two teachers apart
SIZES = (10, 30, 100, 300, 1000)  # of the nested parts whose orders are compared
DRAWS_AT_ONCE = 200
FEW_FAMILIES = 4  # with fewer, families are not drawn again
FEW_TO_DRAW = 20  # with fewer, draws are too narrow for all pairs of teachers together
FEW_QUESTIONS = 10  # with fewer, percentiles of drawn means are too narrow, and Student's t is taken
EQUAL = 1e-6  # costs of one question that differ by less, of the largest, differ by rounding alone


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


class Draws:
    """Means of teachers over questions that are drawn again. The draws are the same for every cost.

    Args:
        draws: B, how many.
        size: how many questions a draw has; by default as many as there are.
    """

    def __init__(self, questions: int, draws: int, seed: int, size: int | None = None) -> None:
        self.questions, self.draws, self.seed, self.size = questions, draws, seed, size or questions

    def means(self, *values_TQ: np.ndarray) -> list[np.ndarray]:
        """The means of several tables in the same draws: [B, T] of each."""
        rng, stacked = np.random.default_rng(self.seed), np.concatenate(values_TQ)
        parts = []
        for start in range(0, self.draws, DRAWS_AT_ONCE):
            many = min(DRAWS_AT_ONCE, self.draws - start)
            drawn = rng.integers(self.questions, size=(many, self.size))
            drawn += np.arange(many)[:, None] * self.questions
            weights_BQ = np.bincount(drawn.ravel(), minlength=many * self.questions).reshape(many, -1)
            parts.append(weights_BQ @ stacked.T / self.size)
        return np.split(np.concatenate(parts), len(values_TQ), axis=1)


def interval(draws_B: np.ndarray, questions: int) -> tuple[float, float]:
    """A 95 % interval from means of drawn questions: percentiles that are moved out as far as Student's t is
    wider than what percentiles of so few questions give (the expanded percentile interval, arXiv 1411.5279).
    NaN with a single question.
    """
    if questions < 2:
        return math.nan, math.nan
    wide = math.sqrt(questions / (questions - 1)) * stats.t.ppf(1 - LEVEL / 2, questions - 1)
    share = float(stats.norm.cdf(-wide))
    low, high = np.quantile(draws_B, [share, 1 - share])
    return float(low), float(high)


def bounds(values_Q: np.ndarray, draws_B: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of the mean over questions: `interval`, or Student's t with few questions, because a
    drawn mean does not leave the range of what was seen.

    Args:
        draws_B: the same mean in every draw.
    """
    count = len(values_Q)
    if count >= FEW_QUESTIONS:
        return interval(draws_B, count)
    if count < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf(1 - LEVEL / 2, count - 1) * values_Q.std(ddof=1) / math.sqrt(count))
    return float(values_Q.mean()) - half, float(values_Q.mean()) + half


def told_from(values_TQ: np.ndarray, means_BT: np.ndarray, first: int) -> np.ndarray:
    """Whether each teacher is told from the first one, [T], at 95 % for all pairs of teachers together: the
    first one was picked because it came out first.
    """
    return beyond(values_TQ, first, furthest(values_TQ, means_BT))


def beyond(values_TQ: np.ndarray, first: int, most: float) -> np.ndarray:
    """Whether each teacher is more than so many standard errors behind the first one, [T]. None is if that is
    NaN.
    """
    means_T = values_TQ.mean(axis=1)
    if math.isnan(most):
        return np.zeros(len(means_T), dtype=bool)
    return np.asarray(means_T - means_T[first] > most * _errors(values_TQ)[first])


def furthest(values_TQ: np.ndarray, means_BT: np.ndarray) -> float:
    """How many standard errors apart chance takes any pair of teachers in 95 of 100 cases: the largest
    studentised difference of a draw (the bootstrap's max-T), widened as Student's t is. Draws of few
    questions do not show it, so there Student's t counts, corrected for the number of pairs. NaN with a
    single question, 0 if all teachers are equal.
    """
    count, means_T = values_TQ.shape[1], values_TQ.mean(axis=1)
    if count < 2:
        return math.nan
    one, other = np.triu_indices(len(means_T), 1)
    error_P = _errors(values_TQ)[one, other]
    moved_BP = (means_BT[:, one] - means_BT[:, other]) - (means_T[one] - means_T[other])
    known = error_P > rounding(means_T)
    if not known.any():
        return 0.0
    largest_B = (np.abs(moved_BP[:, known]) / error_P[known]).max(axis=1)
    most = float(np.quantile(largest_B, 1 - LEVEL))
    most *= float(stats.t.ppf(1 - LEVEL / 2, count - 1) / stats.norm.ppf(1 - LEVEL / 2))
    if count < FEW_TO_DRAW:
        most = max(most, float(stats.t.ppf(1 - LEVEL / 2 / known.sum(), count - 1)))
    return most


def _errors(values_TQ: np.ndarray) -> np.ndarray:
    """The standard error of each pair's difference, [T, T]."""
    covariance = np.atleast_2d(np.cov(values_TQ))
    variance = np.diag(covariance)
    apart_TT = np.maximum(variance[:, None] + variance - 2 * covariance, 0)
    return np.asarray(np.sqrt(apart_TT / values_TQ.shape[1]))


def rounding(means: np.ndarray) -> float:
    """Means that differ by less differ by rounding alone."""
    return 1e-3 * EQUAL * float(np.abs(means).max())


def questions_to_tell(differences_Q: np.ndarray, most: float | None = None) -> float:
    """How many questions would tell a difference from 0 in 80 % of cases by Student's t, if it is what was
    seen. Infinite if nothing was seen; NaN with a single question.

    Args:
        most: how many standard errors a difference has to be from 0, by these questions (`furthest`). By
            default as many as Student's t asks of a single pair.

    >>> questions_to_tell(np.array([1.0, 0.0, 1.0, 2.0]))  # mean 1, variance 2/3; by the normal law 5.2
    8.0
    """
    if len(differences_Q) < 2:
        return math.nan
    level = LEVEL if most is None else 2 * float(stats.t.sf(most, len(differences_Q) - 1))
    mean, deviation = float(differences_Q.mean()), float(differences_Q.std(ddof=1))
    if mean == 0 or not level:
        return math.inf
    ratio = min((deviation / mean) ** 2, 1e12)
    needed = max(2, math.ceil((stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER)) ** 2 * ratio))
    while (
        wanted := _wanted(needed, ratio, level)
    ) > needed:  # the quantiles depend on the number that is sought
        needed += max(1, (wanted - needed) // 4)
    return float(needed)


def _wanted(count: int, ratio: float, level: float) -> int:
    """How many questions are needed, with the quantiles of `count`."""
    times = float(stats.t.ppf(1 - level / 2, count - 1) + stats.t.ppf(POWER, count - 1))
    return math.ceil(times**2 * ratio)


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


def signs(means_BT: np.ndarray) -> np.ndarray:
    """The order of every pair of teachers, as -1, 0 or 1: [B, P]. Differences by rounding are 0."""
    first, second = np.triu_indices(means_BT.shape[1], 1)
    apart_BP = means_BT[:, first] - means_BT[:, second]
    return np.where(np.abs(apart_BP) <= rounding(means_BT), 0.0, np.sign(apart_BP))


def tau(a_BP: np.ndarray, b_BP: np.ndarray, weights_BP: np.ndarray | None = None) -> np.ndarray:
    """Kendall's tau-b of two orders, from the signs of their pairs: [B]. NaN where an order has no pair.

    >>> float(tau(signs(np.array([[1.0, 2.0, 3.0]])), signs(np.array([[1.0, 3.0, 2.0]])))[0])
    0.3333333333333333
    """
    weights = np.ones_like(a_BP) if weights_BP is None else weights_BP
    both = (weights * a_BP * b_BP).sum(axis=-1)
    size = np.sqrt((weights * a_BP**2).sum(axis=-1) * (weights * b_BP**2).sum(axis=-1))
    return np.asarray(np.divide(both, size, out=np.full_like(both, np.nan), where=size > 0))


def family_weights(families: Sequence[str], draws: int, seed: int) -> np.ndarray | None:
    """Weights of all pairs of teachers when their families are drawn again: [B, P]. None if there are fewer
    than four families: then the teachers are taken as they are.

    A family that is drawn twice counts twice, its own pairs too. Copies of a teacher make no pair.
    """
    names, own = np.unique(list(families), return_inverse=True)
    if len(names) < FEW_FAMILIES:
        return None
    rng = np.random.default_rng(seed)
    counts_BF = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws).astype(float)
    first, second = np.triu_indices(len(own), 1)
    across = counts_BF[:, own[first]] * counts_BF[:, own[second]]
    return np.where(own[first] == own[second], counts_BF[:, own[first]], across)


def agreement_table(
    matched: Matched,
    draws: int,
    seed: int,
    families: Sequence[str],
    truth: Mapping[str, float] | None = None,
    truth_drawn: np.ndarray | None = None,
) -> pd.DataFrame:
    """Kendall's tau-b between the orders of all costs, or between each of them and the truth.

    Args:
        families: of each teacher. Teachers of one family (checkpoints of a training, sizes of a model) are
            drawn together.
        truth: what each teacher really gave; more is better. Then each cost is compared with it alone.
        truth_drawn: [B, T], the same with its own chance drawn again. Without it the truth counts as exact.

    Returns:
        Columns `cost`, `with` (another cost, or `truth`), `tau`; `low` and `high` over questions, for these
        teachers; `low_teachers` and `high_teachers` over questions and families, NaN with fewer than four
        families.
    """
    drawn, count = Draws(len(matched.questions), draws, seed), len(matched.questions)
    whole = {cost: signs(values.mean(axis=1)[None]) for cost, values in matched.values.items()}
    names = list(matched.values)
    again = dict(zip(names, map(signs, drawn.means(*matched.values.values())), strict=True))
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    if truth is not None:
        means_1T = -np.array([[truth[t] for t in matched.teachers]])
        whole["truth"], again["truth"] = signs(means_1T), np.repeat(signs(means_1T), draws, axis=0)
        if truth_drawn is not None:
            again["truth"] = signs(-truth_drawn)
        pairs = [(a, "truth") for a in names]
    weights_BP, rows = family_weights(families, draws, seed + 1), []
    for a, b in pairs:
        low, high = interval_of_tau(tau(again[a], again[b]), count)
        wide = (math.nan, math.nan)
        if weights_BP is not None:
            wide = interval_of_tau(tau(again[a], again[b], weights_BP), len(set(families)))
        rows.append((a, b, float(tau(whole[a], whole[b])[0]), low, high, *wide))
    columns = ["cost", "with", "tau", "low", "high", "low_teachers", "high_teachers"]
    return pd.DataFrame(rows, columns=columns)


def interval_of_tau(taus_B: np.ndarray, count: int) -> tuple[float, float]:
    """Percentiles of drawn taus. Draws without a tau (all teachers equal) are left out.

    Args:
        count: how many questions or families were drawn.
    """
    known = taus_B[~np.isnan(taus_B)]
    return interval(known, count) if len(known) else (math.nan, math.nan)


def stability_table(matched: Matched, draws: int, seed: int) -> pd.DataFrame:
    """How an order holds when there are fewer questions: nested parts of 10, 30, 100, 300 and 1,000
    questions, and all of them.

    Returns:
        Columns `cost`, `questions`, `order` (on this part), `repeats` and `first_repeats` (the share of draws
        of as many questions from the part that give the same whole order, and the same first teacher), `tau`
        (of the part's order with that on all questions).
    """
    count, rows = len(matched.questions), []
    shuffled = np.random.default_rng(seed).permutation(count)
    for size in [*(s for s in SIZES if s < count), count]:
        parts = [values_TQ[:, shuffled[:size]] for values_TQ in matched.values.values()]
        drawn = Draws(size, draws, seed).means(*parts)
        for (cost, values_TQ), part_TQ, means_BT in zip(matched.values.items(), parts, drawn, strict=True):
            order = ordered(part_TQ, matched.teachers)
            rises = np.diff(means_BT[:, order], axis=1) >= -rounding(means_BT)
            first_repeats = float(firsts(means_BT)[:, order[0]].mean())
            own, whole = (signs(table.mean(axis=1)[None]) for table in (part_TQ, values_TQ))
            rows.append(
                {
                    "cost": cost,
                    "questions": size,
                    "order": " < ".join(matched.teachers[t] for t in order),
                    "repeats": float(rises.all(axis=1).mean()),
                    "first_repeats": first_repeats if size >= FEW_QUESTIONS else math.nan,
                    "tau": float(tau(own, whole)[0]),
                }
            )
    found = pd.DataFrame(rows)
    return pd.concat([found[found["cost"] == cost] for cost in matched.values], ignore_index=True)
