"""Published costs of teachers. All answers of a teacher have the same cost, which is computed from all of
them. Lower costs are chosen earlier. One cost of answers needs a number of its teacher too (`casl`).

Each takes the scored answers, table by table, with the columns of `Statistics` and of further measures, and
returns teacher -> cost.
"""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

import numpy as np
import pandas as pd

from selection.costs import CostSettings

SPLITS, TEST_SHARE, SMOOTHING = 10, 0.1, 1e-3
FEWEST = 5  # answers of a teacher from which four coefficients are fitted
# Fractions of a nat. Losses are summed as whole numbers, so that the order of answers does not change the
# last digit.
STEPS = 2**32


def car(
    answers: Iterable[pd.DataFrame], accuracy: Mapping[str, float], settings: CostSettings
) -> dict[str, float]:
    """Minus the compatibility-adjusted reward (arXiv 2411.07133): r / (1 + beta L) with r the teacher's mean
    reward and L the student's mean loss on its answers. The reward here is the verdict, so r is the teacher's
    accuracy, and L the mean over its verified answers of the mean loss of a token. beta is the user's.

    >>> table = pd.DataFrame({"teacher": ["a", "a", "b"], "answer_loss": [2.0, 4.0, 3.0]})
    >>> car([table.assign(n_answer=[2, 2, 1])], {"a": 0.5, "b": 1.0}, CostSettings("car"))  # L is 1.5 and 3
    {'a': -0.2, 'b': -0.25}
    """
    sums: dict[str, int] = {}
    counts: dict[str, int] = {}
    for table in answers:
        means = np.rint((table["answer_loss"] / table["n_answer"]).to_numpy() * STEPS).astype(np.int64)
        for teacher, own in pd.Series(means).groupby(table["teacher"].to_numpy()):
            sums[str(teacher)] = sums.get(str(teacher), 0) + int(own.sum())
            counts[str(teacher)] = counts.get(str(teacher), 0) + len(own)
    return {t: -accuracy[t] / (1 + settings.beta * (sums[t] / STEPS) / counts[t]) for t in sums}


def grace(
    answers: Iterable[pd.DataFrame], accuracy: Mapping[str, float], settings: CostSettings
) -> dict[str, float]:
    """GRACE (arXiv 2511.02833) of every teacher, from sketches of its answers' gradients: see `grace_of`.
    Answers without a sketch are left out. A teacher with answers to fewer than two of the questions comes
    last. GRACE falls with the number of answers, so all other teachers count with equally many: as many as
    the one with fewest has, in one order of the questions for all.
    """
    own: dict[str, list[tuple[str, bytes]]] = {}
    for table in answers:
        sketched = table[table["gradient_sketch"].notna()]
        columns = (sketched[name].tolist() for name in ("teacher", "question_id", "gradient_sketch"))
        for teacher, question, sketch in zip(*columns, strict=True):
            own.setdefault(teacher, []).append((question, sketch))
    many = {teacher: rows for teacher, rows in own.items() if len({question for question, _ in rows}) > 1}
    fewest = min(map(len, many.values()), default=0)
    known = {}
    for teacher in sorted(many):
        # another order of the sum would change the last digits
        rows = sorted(sorted(many[teacher], key=lambda row: (_drawn(row[0]), row[1]))[:fewest])
        questions = [question for question, _ in rows]
        if len(set(questions)) > 1:
            sketches = np.array([np.frombuffer(sketch, "<f4") for _, sketch in rows], dtype=float)
            known[teacher] = grace_of(sketches, questions)
    last = 2 * max(known.values(), default=0.0) + 1
    return dict.fromkeys(accuracy, last) | known


def _drawn(question: str) -> bytes:
    """A place in an order of all questions that has nothing to do with what they ask."""
    return sha256(question.encode("utf-8", "surrogatepass")).digest()


def grace_of(gradients_NK: np.ndarray, questions: list[str]) -> float:
    """Gradient cross-validation: how large the gradients of held-out questions are in directions that the
    gradients of the others do not cover.

    The questions are split ten times, nine tenths against one, by seeds 0 to 9. With S the second moment of
    the training gradients, each of length one, its eigenvalues drawn by 1e-3 towards their mean, and H that
    of the held-out gradients as they are, a split gives trace(S^-1 H); the mean over the splits counts.

    Args:
        gradients_NK: of N answers, K numbers each.
        questions: the question of each answer.
    """
    codes, distinct = pd.factorize(np.array(questions), sort=True)
    held_out = max(1, int(len(distinct) * TEST_SHARE))
    found = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(distinct))
        is_test = np.isin(codes, order[len(distinct) - held_out :])
        train, test = gradients_NK[~is_test], gradients_NK[is_test]
        train = train / np.clip(np.linalg.norm(train, axis=1, keepdims=True), 1e-12, None)
        values, vectors = np.linalg.eigh(train.T @ train / len(train))
        values = np.clip(values, 1e-12, None)
        values = np.clip((1 - SMOOTHING) * values + SMOOTHING * values.mean(), 1e-12, None)
        along = test @ vectors  # [n, K]: each held-out gradient along the eigenvectors
        found.append(float((along**2 / values).sum() / len(test)))
    return float(np.mean(found))


def casl(
    answers: Iterable[pd.DataFrame], accuracy: Mapping[str, float], settings: CostSettings
) -> dict[str, float]:
    """Gamma of ASLEC-casl (arXiv 2604.06834) for every teacher: the coefficient of F in the regression of an
    answer's mean loss on the mean loss of its steps' first tokens, that of its other tokens, and F, the share
    of first tokens. Fitted on the teacher's own answers, as in the published program. 0 for a teacher with
    fewer than five answers that have both kinds of tokens: four coefficients cannot be told from them.
    """
    own: dict[str, list[np.ndarray]] = {}
    for table in answers:
        known = table[(table["n_first"] > 0) & (table["n_first"] < table["n_answer"])]
        n, first = known["n_answer"].to_numpy(float), known["n_first"].to_numpy(float)
        loss, of_first = known["answer_loss"].to_numpy(float), known["first_loss"].to_numpy(float)
        rows = np.column_stack([loss / n, (loss - of_first) / (n - first), of_first / first, first / n])
        for teacher in known["teacher"].unique():
            own.setdefault(str(teacher), []).append(rows[(known["teacher"] == teacher).to_numpy()])
    return dict.fromkeys(accuracy, 0.0) | {t: casl_of(np.concatenate(rows)) for t, rows in own.items()}


def casl_of(rows_N4: np.ndarray) -> float:
    """Gamma from the answers of one teacher, whatever their order.

    Args:
        rows_N4: mean loss, that of other tokens, that of first tokens, and the share of first tokens.
    """
    if len(rows_N4) < FEWEST:
        return 0.0
    rows = rows_N4[np.lexsort(rows_N4.T)]
    centred = rows - rows.mean(axis=0)
    found = np.linalg.lstsq(centred[:, 1:], centred[:, 0], rcond=None)[0]
    return float(found[2])


TEACHER_COSTS: dict[
    str, Callable[[Iterable[pd.DataFrame], Mapping[str, float], CostSettings], dict[str, float]]
] = {"car": car, "grace": grace, "aslec_casl": casl}
