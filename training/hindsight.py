"""The bar that choosing must reach without paying for it: the best single teacher, known only in hindsight.

One student is trained on each teacher, and the best of them is taken. Judged on the questions that it was
taken by, that best is too good: of several equal ones the luckiest would be taken. So the questions are cut
into halves, and each half is judged under the one that is best on the other.

Shapes: S seeds, Q questions.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np


def best_in_hindsight(
    values: Mapping[str, np.ndarray], seed: int = 0, questions: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, str]]:
    """The best of several, each half of the questions judged under the one that is best on the other.

    Args:
        values: name -> [S, Q], the same questions in the same order, all finite.
        seed: of the halves.
        questions: names that the halves follow, whatever the order; their numbers if not said.

    Returns:
        [S, Q], every question under the one that is best on the other half; and the best on each half.

    Raises:
        ValueError: nobody to choose from, or fewer than two questions.
    """
    names = sorted(values)
    if not names or values[names[0]].shape[1] < 2:
        raise ValueError("hindsight needs somebody to choose from, and two questions or more")
    named = [str(k) for k in range(values[names[0]].shape[1])] if questions is None else questions
    drawn = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in named]
    is_first = np.zeros(len(named), dtype=bool)
    is_first[sorted(range(len(named)), key=lambda k: drawn[k])[: len(named) // 2]] = True
    halves = (is_first, ~is_first)
    first, second = (max(names, key=lambda n: float(values[n][:, half].mean())) for half in halves)
    return np.where(is_first, values[second], values[first]), (first, second)
