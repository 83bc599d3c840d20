"""Routing: which teacher to ask a question of, before it is asked. Learned from questions that every teacher
answered, in the manner of PerSyn (arXiv 2510.10925).

The value of an answer joins its quality and how learnable it is for one student. A ridge regression on the
words of questions predicts how much better each teacher's answer is than the others'. Whether that is
better than asking the best teacher of all is estimated on questions that the regression has not seen. No
model is needed here.

Shapes: T teachers, Q questions, K words (tokens, pairs of tokens, families) that occur.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse, stats

from cluster.errors import BadInput

LEVEL = 0.05
FOLDS = 5
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of which the one with the smallest error is taken
LEAST = 20  # questions, from which anything can be learned


@dataclass(frozen=True)
class Routing:
    """What the first questions tell about whom to ask the others.

    Attributes:
        expected: [Q, T], for questions not yet asked: how much better each teacher's answer is expected to be
            than the mean of all teachers' answers. In units of value: 1 is a right answer that is the
            easiest to learn, 0 a wrong one.
        means: each teacher's mean value on the first questions.
        gain: how much more value a question brings if the regression chooses its teacher, than if the best
            teacher is asked. On first questions that the regression had not seen.
        low, high: the 95 % interval of the gain, over questions.
        ridge: the strength of the ridge. None if every strength predicted worse than the teachers' means.
    """

    teachers: tuple[str, ...]
    expected: np.ndarray
    means: np.ndarray
    gain: float
    low: float
    high: float
    ridge: float | None

    @property
    def can_tell(self) -> bool:
        """Whether choosing by question is better than one teacher by more than chance."""
        return self.low > 0

    @property
    def best(self) -> str:
        """The teacher with the largest mean value."""
        return self.teachers[int(self.means.argmax())]


def values_of(right_QT: np.ndarray, costs_QT: np.ndarray, learnability: float) -> np.ndarray:
    """The values of answers, [Q, T] in [0, 1]. A wrong answer has none, because it is not learned from. A
    right one has 1 - `learnability` for its quality. To this is added `learnability` times the share of right
    answers that cost more than it; equal costs count half.

    Args:
        costs_QT: under the student. Read where an answer is right; NaN there makes it count as wrong.
        learnability: between 0 and 1.

    >>> values_of(np.array([[True, True, False]]), np.array([[1.0, 2.0, 0.5]]), 0.5)
    array([[0.875, 0.625, 0.   ]])
    """
    usable = right_QT & ~np.isnan(costs_QT)
    values = np.zeros(right_QT.shape)
    if usable.any():
        ranks = stats.rankdata(costs_QT[usable])
        dearer = 1 - (ranks - 0.5) / len(ranks)
        values[usable] = 1 - learnability + learnability * dearer
    return values


def words_of(texts: Sequence[Sequence[int]], families: Sequence[str] = ()) -> sparse.csr_array:
    """What is counted of questions: tokens and pairs of neighbours by tf-idf, and families. Rows have length
    1 in each of the two blocks.

    Args:
        texts: the token ids of each question.
        families: the name of each question's family, empty for none.

    Returns:
        [Q, K].
    """
    blocks = [_tf_idf([Counter([*ids, *pairwise(ids)]) for ids in texts])]
    if len(set(families)) > 1:
        blocks.append(_tf_idf([Counter([name]) for name in families]))
    return sparse.csr_array(sparse.hstack(blocks))


def _tf_idf(bags: Sequence[Counter[Any]]) -> sparse.csr_array:
    places: dict[Hashable, int] = {}
    rows, columns, counts = [], [], []
    for row, bag in enumerate(bags):
        for word, count in bag.items():
            rows.append(row)
            columns.append(places.setdefault(word, len(places)))
            counts.append(1 + np.log(count))
    shape = (len(bags), max(1, len(places)))
    table = sparse.csr_array((counts, (rows, columns)), shape=shape, dtype=float)
    seen = np.bincount(columns, minlength=shape[1])
    table = table @ sparse.diags_array(np.log((1 + len(bags)) / (1 + seen)) + 1)
    lengths = sparse.linalg.norm(table, axis=1)
    return sparse.csr_array(sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ table)


def route(
    words: sparse.csr_array, first: Sequence[int], values_QT: np.ndarray, teachers: Sequence[str]
) -> Routing:
    """Learn from the first questions whom to ask the others.

    Args:
        words: of all questions, `words_of`.
        first: the rows of the first questions. `values_QT` are theirs, in this order.
        teachers: at least two, in the order of the columns of `values_QT`.

    Raises:
        BadInput: fewer than 20 first questions.
    """
    if len(first) < LEAST:
        raise BadInput(
            "too few questions to learn whom to ask", f"{len(first)}", f"at least {LEAST}", "raise first"
        )
    rest = np.setdiff1d(np.arange(words.shape[0]), first)
    asked = words[list(first)]
    kernel = (asked @ asked.T).toarray()
    # what a question's answers have in common tells nothing about whom to ask
    advantage_QT = values_QT - values_QT.mean(axis=1, keepdims=True)
    gains = np.empty(len(first))
    fold = np.random.default_rng(0).permutation(len(first)) % FOLDS
    for number in range(FOLDS):
        seen, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        expected, _ = _predict(kernel[np.ix_(seen, seen)], kernel[np.ix_(held, seen)], advantage_QT[seen])
        one = int(values_QT[seen].mean(axis=0).argmax())
        gains[held] = values_QT[held, expected.argmax(axis=1)] - values_QT[held, one]
    across = (words[rest] @ asked.T).toarray()
    expected, ridge = _predict(kernel, across, advantage_QT)
    half = float(stats.t.ppf(1 - LEVEL / 2, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains)))
    gain = float(gains.mean())
    means = values_QT.mean(axis=0)
    return Routing(tuple(teachers), expected, means, gain, gain - half, gain + half, ridge)


def _predict(
    kernel_NN: np.ndarray, across_MN: np.ndarray, targets_NT: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """Predict targets of new rows by kernel ridge regression around the means, with the ridge whose error on
    left-out rows is smallest.

    Args:
        kernel_NN: inner products of seen rows.
        across_MN: of new rows with seen ones.

    Returns:
        [M, T], and the ridge. None if the means alone predict better.
    """
    means = targets_NT.mean(axis=0)
    column_means = kernel_NN.mean(axis=0)
    centred = kernel_NN - column_means[:, None] - column_means + kernel_NN.mean()
    eigenvalues, vectors = np.linalg.eigh(centred)
    turned = vectors.T @ (targets_NT - means)
    count = len(targets_NT)
    best, error = None, _left_out_error(np.full(count, 1 / count), targets_NT - means)
    for ridge in RIDGES:
        shrunk = eigenvalues / (eigenvalues + ridge)
        fitted = vectors @ (shrunk[:, None] * turned)
        leverage = 1 / count + (vectors**2 @ shrunk)
        own = _left_out_error(leverage, targets_NT - means - fitted)
        if own < error:
            best, error = ridge, own
    if best is None:
        return np.tile(means, (len(across_MN), 1)), None
    weights = vectors @ (turned / (eigenvalues + best)[:, None])
    new = across_MN - across_MN.mean(axis=1, keepdims=True) - column_means + kernel_NN.mean()
    return means + new @ weights, best


def _left_out_error(leverage: np.ndarray, residuals_NT: np.ndarray) -> float:
    """The mean squared error of rows that are left out one at a time, in closed form."""
    return float(((residuals_NT / (1 - leverage)[:, None]) ** 2).mean())
