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
FOLDS, REPEATS = 5, 3
AT_ONCE = 20_000  # questions whose teachers are predicted in one block
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
            teacher is asked. On first questions that the regression had not seen, in five folds, three times.
        low, high: the 95 % interval of the gain, over questions. Folds share what they learn from, so the
            variance is that of Nadeau and Bengio (2003).
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
        blocks.append(_tf_idf([Counter([name] if name else []) for name in families]))
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
    words: sparse.csr_array,
    first: Sequence[int],
    rest: Sequence[int],
    values_QT: np.ndarray,
    teachers: Sequence[str],
) -> Routing:
    """Learn from the first questions whom to ask the others.

    Args:
        words: of all questions, `words_of`.
        first: the rows of the first questions, no two of which ask the same: of two that do one would tell
            what the other brings. `values_QT` are theirs, in this order.
        rest: the rows of those to be predicted.
        teachers: at least two, in the order of the columns of `values_QT`.

    Raises:
        BadInput: fewer than 20 first questions.
    """
    if len(first) < LEAST:
        raise BadInput(
            "too few questions to learn whom to ask", f"{len(first)}", f"at least {LEAST}", "raise first"
        )
    asked = words[list(first)]
    kernel = (asked @ asked.T).toarray()
    # what a question's answers have in common tells nothing about whom to ask
    advantage_QT = values_QT - values_QT.mean(axis=1, keepdims=True)
    gains = np.zeros(len(first))
    for repeat in range(REPEATS):
        fold = np.random.default_rng(repeat).permutation(len(first)) % FOLDS
        for number in range(FOLDS):
            seen, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            predict = fit(kernel[np.ix_(seen, seen)], advantage_QT[seen])
            expected = predict(kernel[np.ix_(held, seen)])
            one = int(values_QT[seen].mean(axis=0).argmax())
            gains[held] += (values_QT[held, expected.argmax(axis=1)] - values_QT[held, one]) / REPEATS
    predict = fit(kernel, advantage_QT)
    blocks = [list(rest[k : k + AT_ONCE]) for k in range(0, len(rest), AT_ONCE)]
    expected = np.concatenate(
        [np.zeros((0, len(teachers))), *(predict((words[own] @ asked.T).toarray()) for own in blocks)]
    )
    error = gains.std(ddof=1) / np.sqrt(len(gains)) * np.sqrt(1 + FOLDS / (FOLDS - 1))
    half = float(stats.t.ppf(1 - LEVEL / 2, len(gains) - 1) * error)
    gain = float(gains.mean())
    means = values_QT.mean(axis=0)
    return Routing(tuple(teachers), expected, means, gain, gain - half, gain + half, predict.ridge)


@dataclass(frozen=True)
class Fitted:
    """A fitted regression, which predicts the targets of new rows.

    Attributes:
        means: [T], of the targets of seen rows.
        weights: [N, T], of seen rows. None if the means alone predict better.
        columns: [N], the means of the inner products of seen rows.
    """

    means: np.ndarray
    weights: np.ndarray | None
    columns: np.ndarray
    ridge: float | None

    def __call__(self, across_MN: np.ndarray) -> np.ndarray:
        """The targets of new rows, [M, T], from their inner products with seen ones."""
        if self.weights is None:
            return np.tile(self.means, (len(across_MN), 1))
        new = across_MN - across_MN.mean(axis=1, keepdims=True) - self.columns + self.columns.mean()
        return self.means + new @ self.weights


def fit(kernel_NN: np.ndarray, targets_NT: np.ndarray) -> Fitted:
    """Fit a kernel ridge regression around the means, with the ridge whose error on left-out rows is
    smallest.

    Args:
        kernel_NN: inner products of the rows.
    """
    means, columns, count = targets_NT.mean(axis=0), kernel_NN.mean(axis=0), len(targets_NT)
    eigenvalues, vectors = np.linalg.eigh(kernel_NN - columns[:, None] - columns + columns.mean())
    turned = vectors.T @ (targets_NT - means)
    best, error = None, _left_out_error(np.full(count, 1 / count), targets_NT - means)
    for ridge in RIDGES:
        shrunk = eigenvalues / (eigenvalues + ridge)
        leverage = 1 / count + (vectors**2 @ shrunk)
        own = _left_out_error(leverage, targets_NT - means - vectors @ (shrunk[:, None] * turned))
        if own < error:
            best, error = ridge, own
    weights = None if best is None else vectors @ (turned / (eigenvalues + best)[:, None])
    return Fitted(means, weights, columns, best)


def _left_out_error(leverage: np.ndarray, residuals_NT: np.ndarray) -> float:
    """The mean squared error of rows that are left out one at a time, in closed form."""
    return float(((residuals_NT / (1 - leverage)[:, None]) ** 2).mean())
