"""How far orders of teachers agree: Kendall's tau-b of the orders of two costs, of a cost and the truth, or
of few questions and all of them.

Shapes: T teachers, Q questions, B draws, P pairs of teachers.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from selection.drawn_means import FEW_QUESTIONS, Draws, interval, rounding
from selection.ranking import Matched, firsts, ordered

SIZES = (10, 30, 100, 300, 1000)  # of the nested parts whose orders are compared
FEW_FAMILIES = 4  # with fewer, families are not drawn again


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
