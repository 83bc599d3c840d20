"""Published costs of teachers, not of answers: all answers of a teacher cost the same, which takes a look at
everything that it said. Lower is chosen earlier.

Each takes the scored answers, table by table, with the columns of `Statistics` and what it needs beyond, and
returns teacher -> cost.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from selection.costs import CostSettings

SPLITS, TEST_SHARE, SMOOTHING = 10, 0.1, 1e-3


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
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for table in answers:
        means = (table["answer_loss"] / table["n_answer"]).tolist()
        for teacher, mean in zip(table["teacher"].tolist(), means, strict=True):
            sums[teacher] = sums.get(teacher, 0.0) + mean
            counts[teacher] = counts.get(teacher, 0) + 1
    return {t: -accuracy[t] / (1 + settings.beta * sums[t] / counts[t]) for t in sums}


def grace(
    answers: Iterable[pd.DataFrame], accuracy: Mapping[str, float], settings: CostSettings
) -> dict[str, float]:
    """GRACE (arXiv 2511.02833) of every teacher, from sketches of its answers' gradients: see `grace_of`.
    Answers without a sketch do not enter. A teacher that answers fewer than two of the questions comes last.
    """
    sketches: dict[str, list[np.ndarray]] = {}
    questions: dict[str, list[str]] = {}
    for table in answers:
        own = table[table["gradient_sketch"].notna()]
        columns = (own[name].tolist() for name in ("teacher", "question_id", "gradient_sketch"))
        for teacher, question, sketch in zip(*columns, strict=True):
            sketches.setdefault(teacher, []).append(np.frombuffer(sketch, "<f4"))
            questions.setdefault(teacher, []).append(question)
    known = {
        t: grace_of(np.array(sketches[t], dtype=float), questions[t])
        for t in sorted(sketches)
        if len(set(questions[t])) > 1
    }
    last = 2 * max(known.values(), default=0.0) + 1
    return dict.fromkeys(accuracy, last) | known


def grace_of(gradients_NK: np.ndarray, questions: list[str]) -> float:
    """Gradient cross-validation: how large the gradients of held-out questions are where those of the others
    say little.

    The questions are split ten times, nine tenths against one, by seeds 0 to 9. With S the second moment of
    the training gradients, each of length one, its eigenvalues drawn by 1e-3 towards their mean, and H that
    of the held-out gradients as they are, a split gives trace(S^-1 H); the mean over the splits counts.

    Args:
        gradients_NK: of N answers, K numbers each.
        questions: whose answers they are.
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


TEACHER_COSTS: dict[
    str, Callable[[Iterable[pd.DataFrame], Mapping[str, float], CostSettings], dict[str, float]]
] = {"car": car, "grace": grace}
