"""The bar that choosing must reach without paying for it: the best single teacher, known only in hindsight.

One student is trained on each teacher, and the best of them is taken. Judged on the questions that it was
taken by, that best is too good: of several equal ones the luckiest would be taken. So the questions are cut
into halves, and each half is judged under the one that is best on the other.

Shapes: S seeds, Q questions.
"""

from collections.abc import Mapping

import numpy as np


def best_in_hindsight(values: Mapping[str, np.ndarray], seed: int = 0) -> tuple[np.ndarray, tuple[str, str]]:
    """The best of several, each half of the questions judged under the one that is best on the other.

    Args:
        values: name -> [S, Q], the same questions in the same order, all finite.
        seed: of the halves.

    Returns:
        [S, Q], every question under the one that is best on the other half; and the best on each half.

    Raises:
        ValueError: nobody to choose from, or fewer than two questions.
    """
    names = sorted(values)
    if not names or values[names[0]].shape[1] < 2:
        raise ValueError("hindsight needs somebody to choose from, and two questions or more")
    questions = values[names[0]].shape[1]
    is_first = np.zeros(questions, dtype=bool)
    is_first[np.random.default_rng(seed).permutation(questions)[: questions // 2]] = True
    halves = (is_first, ~is_first)
    first, second = (max(names, key=lambda n: float(values[n][:, half].mean())) for half in halves)
    return np.where(is_first, values[second], values[first]), (first, second)
