"""The bar that choosing must reach without paying for it: the best single teacher, known only in hindsight.

One student is trained on each teacher, and the best of them is taken. Judged on the questions and by the
trainings that it was taken by, that best is too good: of several equal ones the luckiest would be taken. So
questions and seeds are cut into halves, and each quarter is judged under the one that is best on the other
questions under the other seeds. With one seed the questions alone are cut.

Shapes: S seeds, Q questions.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np


def best_in_hindsight(
    values: Mapping[str, np.ndarray], seed: int = 0, questions: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The best of several, each quarter of questions and seeds judged under the one that is best where both
    are others.

    Args:
        values: name -> [S, Q], seeds and questions in the same order, all finite. Where some have fewer seeds
            the first ones that all have are taken.
        seed: of the halves.
        questions: names that the halves follow, whatever the order; their numbers if not said.

    Returns:
        [S, Q], every place under the one that is best on the other questions under the other seeds; and all
        that were taken, in the order of their names.

    Raises:
        ValueError: nobody to choose from, or fewer than two questions.
    """
    values = with_common_seeds(values)
    count = next(iter(values.values())).shape[1] if values else 0
    if count < 2:
        raise ValueError("hindsight needs somebody to choose from, and two questions or more")
    first_Q = first_half([str(k) for k in range(count)] if questions is None else questions, seed)
    found, taken = np.empty(next(iter(values.values())).shape), set[str]()
    for judged_Q in (first_Q, ~first_Q):
        found[:, judged_Q], names = best_on_other_seeds(values, ~judged_Q, judged_Q, seed)
        taken |= set(names)
    return found, tuple(sorted(taken))


def best_on_other_seeds(
    values: Mapping[str, np.ndarray], chooses_Q: np.ndarray, judged_Q: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The best of several by some questions, judged on others: each half of the seeds under the one that is
    best under the other half; with one seed under the one that is best.

    Args:
        values: name -> [S, Q]; what cannot be judged is NaN, and chooses nothing.
        chooses_Q, judged_Q: whether a question chooses, and whether it judges.

    Returns:
        [S, judged questions], and who was taken, in the order of their names.

    Raises:
        ValueError: no question chooses.
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
            raise ValueError("no question chooses: none could be judged, or all of them judge")
        sums = np.where(known, chooses, 0.0).sum(axis=(1, 2))
        best = int(np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf).argmax())
        found[rows] = stacked[best][rows][:, judged_Q]
        taken.add(names[best])
    return found, tuple(sorted(taken))


def with_common_seeds(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The seeds that all of these have."""
    fewest = min((len(one) for one in values.values()), default=0)
    return {name: one[:fewest] for name, one in values.items()}


def first_half(names: Sequence[str], seed: int) -> np.ndarray:
    """Which of some names are in the first half: drawn by what they are called."""
    drawn = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    is_first = np.zeros(len(names), dtype=bool)
    is_first[sorted(range(len(names)), key=lambda k: drawn[k])[: len(names) // 2]] = True
    return is_first
