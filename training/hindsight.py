"""The best single teacher, which is known only in hindsight. A way of choosing is compared with it.

One student is trained on each teacher, and the best teacher is taken. If it were judged on the same questions
and trainings by which it was taken, the result would be too good: of several equal teachers the luckiest
would be taken. So questions and seeds are cut into halves. Each quarter is judged with the teacher that is
best on the other questions under the other seeds. With one seed only the questions are cut.

Shapes: S seeds, Q questions.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np


def best_in_hindsight(
    values: Mapping[str, np.ndarray], seed: int = 0, questions: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values of the best one of several. Each quarter of questions and seeds takes them from the one that
    is best on the other questions under the other seeds.

    Args:
        values: name -> [S, Q], with seeds and questions in the same order, all finite. If some have fewer
            seeds, only the first seeds that all have are used.
        seed: the seed of the halves.
        questions: names from which the halves follow, whatever their order. By default their numbers.

    Returns:
        The values [S, Q], and the names of all that were taken, sorted.

    Raises:
        ValueError: there is nothing to choose from, or fewer than two questions.
    """
    values = with_common_seeds(values)
    count = next(iter(values.values())).shape[1] if values else 0
    if count < 2:
        raise ValueError("hindsight needs at least one arm to choose from, and two questions or more")
    first_Q = first_half([str(k) for k in range(count)] if questions is None else questions, seed)
    found, taken = np.empty(next(iter(values.values())).shape), set[str]()
    for judged_Q in (first_Q, ~first_Q):
        found[:, judged_Q], names = best_on_other_seeds(values, ~judged_Q, judged_Q, seed)
        taken |= set(names)
    return found, tuple(sorted(taken))


def best_on_other_seeds(
    values: Mapping[str, np.ndarray], chooses_Q: np.ndarray, judged_Q: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values of the best one of several, chosen by some questions and judged on others. Each half of the
    seeds takes them from the one that is best under the other half. With one seed the best one is taken.

    Args:
        values: name -> [S, Q]. A question that cannot be judged is NaN, and is not used for choosing.
        chooses_Q, judged_Q: whether a question chooses, and whether it judges.

    Returns:
        The values [S, judged questions], and the names of those that were taken, sorted.

    Raises:
        ValueError: no question is left to choose by.
    """
    values = with_common_seeds(values)
    names = sorted(values)
    stacked = np.stack([values[name] for name in names])
    seeds = stacked.shape[1]
    first_S = first_half([f"seed {k}" for k in range(seeds)], seed)
    found, taken = np.empty((seeds, int(judged_Q.sum()))), set()
    for rows in (first_S, ~first_S) if seeds > 1 else (~first_S,):
        chooses = stacked[:, ~rows if seeds > 1 else rows][:, :, chooses_Q]
        known = np.isfinite(chooses)
        counts = known.sum(axis=(1, 2))
        if not counts.any():
            raise ValueError(
                "no question is left to choose by: none could be judged, or all of them are used to judge"
            )
        sums = np.where(known, chooses, 0.0).sum(axis=(1, 2))
        best = int(np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf).argmax())
        found[rows] = stacked[best][rows][:, judged_Q]
        taken.add(names[best])
    return found, tuple(sorted(taken))


def with_common_seeds(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values under the seeds that all have."""
    fewest = min((len(one) for one in values.values()), default=0)
    return {name: one[:fewest] for name, one in values.items()}


def first_half(names: Sequence[str], seed: int) -> np.ndarray:
    """Which of some names are in the first half. It is drawn from the names themselves."""
    drawn = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    is_first = np.zeros(len(names), dtype=bool)
    is_first[sorted(range(len(names)), key=lambda k: drawn[k])[: len(names) // 2]] = True
    return is_first
