"""Costs computed from stored statistics. Lower costs are chosen earlier. No model is needed here.

Every function takes a table with the columns of `Statistics` (one row per answer) and, where `MEASURE_OF`
says so, those of a further measure, and returns one float per row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from cluster.errors import BadInput

CostName = Literal[
    "scas",
    "naturalness",
    "local_naturalness",
    "rsr",
    "lark",
    "ifd",
    "gradient_norm",
    "car",
    "grace",
    "aslec_drop",
    "aslec_casl",
    "learned",
    "shortest",
    "longest",
    "total_loss",
    "excess_loss",
    "worst_token",
    "preference",
]
Measure = Literal["sentences", "alone", "gradient", "sketch", "steps"]
# The measure that a cost needs besides one forward pass over question and answer.
MEASURE_OF: dict[str, Measure] = {
    "local_naturalness": "sentences",
    "ifd": "alone",
    "gradient_norm": "gradient",
    "grace": "sketch",
    "aslec_drop": "steps",
    "aslec_casl": "steps",
}
FEATURES = (
    "mean_loss",
    "question_loss",
    "log_tokens",
    "mean_rank",
    "mean_brier",
    "mean_entropy",
    "max_loss",
    "own_similarity",
    "question_similarity",
)


@dataclass(frozen=True)
class CostSettings:
    """The name of a cost, and its parameters. `scas_lambda` is in [0, 1]. `length_exponent` kappa is in [0,
    1]; 1 is the published SCAS. `window` is the number of earlier sentences in `local_naturalness`. `beta` is
    the weight of the student's loss in `car`. `coefficients` are those of the features of `learned`, by name.
    """

    name: CostName = "scas"
    scas_lambda: float = 0.5
    length_exponent: float = 1.0
    window: int = 4
    beta: float = 1.0
    coefficients: tuple[tuple[str, float], ...] = ()


def scas_parts(table: pd.DataFrame, length_exponent: float = 1.0) -> pd.DataFrame:
    """The parts of the SCAS score (arXiv 2605.26872), per answer.

    D_A and D_Q are mean token losses in nats; a.a is |sum u_A|^2 / n_A^2 and a.b the cosine block between
    answer and question; C_AA = D_A^2 (a.a), C_AQ = D_A D_Q (a.b). With `length_exponent` kappa below 1, D_A
    is sum l_t / T^kappa. That stops predictable filler from diluting the mean. A prompt without countable
    tokens gives C_AQ = 0.
    """
    n_a, n_q = table["n_answer"], table["n_question"].clip(lower=1)
    d_a = table["answer_loss"] / n_a**length_exponent
    d_q = table["question_loss"] / n_q
    aa = table["answer_norm_sq"] / n_a**2
    aq = table["cross_dot"] / (n_a * n_q)
    return pd.DataFrame(
        {
            "answer_answer_similarity": aa,
            "answer_question_similarity": aq,
            "answer_mean_nll": d_a,
            "question_mean_nll": d_q,
            "answer_answer_block": d_a**2 * aa,
            "answer_question_block": d_a * d_q * aq,
        }
    )


def scas(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """S = (1 - lambda) C_AA + lambda C_AQ; may be negative.

    >>> row = pd.DataFrame({"n_answer": [2], "n_question": [1], "answer_loss": [2.0], "question_loss": [3.0],
    ...                     "answer_norm_sq": [4.0], "cross_dot": [1.0]})
    >>> float(scas(row, CostSettings()).iloc[0])  # D_A = 1, D_Q = 3, a.a = 1, a.b = 0.5
    1.25
    """
    parts = scas_parts(table, settings.length_exponent)
    lam = settings.scas_lambda
    return (1 - lam) * parts["answer_answer_block"] + lam * parts["answer_question_block"]


def naturalness(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Mean loss per answer token (GRAPE, arXiv 2502.04194)."""
    return table["answer_loss"] / table["n_answer"]


def local_naturalness(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Mean over sentences of a sentence's mean loss, given the question and a few sentences before it (arXiv
    2510.03988, whose second version calls it LALP). `selection/windows.py` cuts the sentences.
    """
    return table["local_loss"]


def ifd(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Instruction-following difficulty (Cherry LLM, arXiv 2308.12032): the mean loss given the question over
    that without it. The largest under 1 is chosen first; 1 and above, where the question does not help, come
    after all others, the smallest first.

    >>> table = pd.DataFrame({"answer_loss": [2.0, 3.0, 9.0], "n_answer": [4, 4, 4]})
    >>> ifd(table.assign(alone_loss=[8.0, 4.0, 4.0], n_alone=[4, 4, 4]), CostSettings("ifd")).tolist()
    [-0.25, -0.75, 2.25]
    """
    alone = (table["alone_loss"] / table["n_alone"]).clip(lower=1e-12)
    ratio = table["answer_loss"] / table["n_answer"] / alone
    return ratio.where(ratio >= 1, -ratio)


def aslec_drop(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Mean loss per answer token without the first token of every step (ASLEC-drop, arXiv 2604.06834). An
    answer whose every token begins a step keeps its mean loss; the published program gives it the best score.

    >>> table = pd.DataFrame({"answer_loss": [6.0, 4.0], "n_answer": [4, 1]})
    >>> aslec_drop(table.assign(first_loss=[3.0, 4.0], n_first=[1, 1]), CostSettings("aslec_drop")).tolist()
    [1.0, 4.0]
    """
    left = table["n_answer"] - table["n_first"]
    mean = table["answer_loss"] / table["n_answer"]
    return ((table["answer_loss"] - table["first_loss"]) / left.clip(lower=1)).where(left > 0, mean)


def aslec_casl(table: pd.DataFrame, of_teachers: Mapping[str, float]) -> pd.Series:
    """Mean loss per answer token without what the share of first tokens explains (ASLEC-casl, arXiv
    2604.06834): L - gamma F, with F the number of steps over that of tokens, and gamma of the answer's
    teacher (`selection/teacher_costs.py` fits it).

    >>> table = pd.DataFrame({"answer_loss": [6.0], "n_answer": [4], "n_first": [1], "teacher": ["ann"]})
    >>> aslec_casl(table, {"ann": 2.0}).tolist()
    [1.0]
    """
    gamma = np.array([of_teachers[t] for t in table["teacher"].tolist()])
    return table["answer_loss"] / table["n_answer"] - gamma * table["n_first"] / table["n_answer"]


def gradient_norm(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """|gradient of the mean answer loss| over all parameters: the exact value that SCAS estimates."""
    return table["gradient_norm"]


def rsr(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Sum of clipped ranks over sum of losses (arXiv 2601.14249); a loss of 0 counts as 1e-12 nats."""
    return table["clipped_rank"] / table["answer_loss"].clip(lower=1e-12)


def lark(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Minus LARK's g (arXiv 2605.30651), relative to the other answers of the same question (column
    `question_id`).

    L is the mean loss, rho = Brier / L with Brier the mean Brier term; over a question's answers
    g = (L / sum L) (2 rho - sum(rho L) / sum L). The largest g is chosen first. A loss of 0 counts as 1e-12
    nats. Where we differ: the published program counts every token up to the end of the text, we count the
    answer's tokens without special ones, as for all costs.

    >>> two = pd.DataFrame({"question_id": ["q", "q"], "n_answer": [1, 1]})
    >>> two = two.assign(answer_loss=[1.0, 3.0], brier=[0.5, 0.6])
    >>> [round(g, 6) for g in lark(two, CostSettings())]  # rho 0.5 and 0.2; sum L 4; sum rho L 1.1
    [-0.18125, -0.09375]
    """
    loss = (table["answer_loss"] / table["n_answer"]).clip(lower=1e-12)
    brier = table["brier"] / table["n_answer"]
    total = loss.groupby(table["question_id"]).transform("sum")
    weighted = brier.groupby(table["question_id"]).transform("sum")  # rho L is the Brier term itself
    return -(loss / total) * (2 * brier / loss - weighted / total)


def features_of(table: pd.DataFrame) -> pd.DataFrame:
    """The features of `learned` for each answer, in `FEATURES`' order: how likely and how long it is, how
    sure the student is, and where its hidden states point.
    """
    n, parts = table["n_answer"], scas_parts(table)
    columns = (
        table["answer_loss"] / n,
        parts["question_mean_nll"],
        np.log(n.astype(float)),
        table["clipped_rank"] / n,
        table["brier"] / n,
        table["entropy"] / n,
        table["max_loss"],
        parts["answer_answer_similarity"],
        parts["answer_question_similarity"],
    )
    return pd.DataFrame(dict(zip(FEATURES, columns, strict=True)))


def learned(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Minus the predicted gain of an answer, up to a constant: features times coefficients. These were fitted
    to measured gains of other students and tasks (`selection/learned.py`).
    """
    weights = dict(settings.coefficients)
    return -(features_of(table) * [weights.get(name, 0.0) for name in FEATURES]).sum(axis=1)


def shortest(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Answer tokens under the student's tokenizer."""
    return table["n_answer"].astype(float)


def longest(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Answer tokens, the most first."""
    return -table["n_answer"].astype(float)


# Our own costs. Each was written down before any outcome of the study that judges them was read
# (docs/study.md).


def total_loss(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Loss summed over the answer, in nats. Predictable filler dilutes a mean, but adds to this sum."""
    return table["answer_loss"].astype(float)


def excess_loss(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """Mean of the loss minus the student's own entropy at that place, in nats a token. It measures surprise,
    and not places where the student is unsure anyway. It may be negative.
    """
    return (table["answer_loss"] - table["entropy"]) / table["n_answer"]


def worst_token(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """The largest loss of one token, in nats. It is high if one step is very unlikely for the student,
    whatever the rest.
    """
    return table["max_loss"].astype(float)


COSTS: dict[str, Callable[[pd.DataFrame, CostSettings], pd.Series]] = {
    "scas": scas,
    "naturalness": naturalness,
    "local_naturalness": local_naturalness,
    "rsr": rsr,
    "lark": lark,
    "ifd": ifd,
    "gradient_norm": gradient_norm,
    "aslec_drop": aslec_drop,
    "learned": learned,
    "shortest": shortest,
    "longest": longest,
    "total_loss": total_loss,
    "excess_loss": excess_loss,
    "worst_token": worst_token,
}

# those that follow from one forward pass over question and answer, and from nothing else
COSTS_OF_STATISTICS = tuple(name for name in COSTS if name not in MEASURE_OF and name != "learned")


def compute_cost(
    table: pd.DataFrame, settings: CostSettings, of_teachers: Mapping[str, float] | None = None
) -> pd.Series:
    """The cost of every answer in the table.

    Args:
        of_teachers: a number of each teacher (`selection/teacher_costs.py`): its cost, for costs that belong
            to teachers and not to answers; for `aslec_casl` its gamma.

    Raises:
        BadInput: a parameter is out of range, or a cost is not finite (names the answer).
    """
    if not 0 <= settings.scas_lambda <= 1:
        raise BadInput("lambda is out of range", settings.scas_lambda, "0 to 1", "change the arm's lambda")
    if not 0 <= settings.length_exponent <= 1:
        raise BadInput(
            "length_exponent is out of range",
            settings.length_exponent,
            "0 to 1",
            "change the arm's length_exponent",
        )
    if settings.name == "preference":  # minus the student's score, which arms of kind `arte` find
        cost = -table["score"].astype(float)
    elif settings.name == "aslec_casl":
        cost = aslec_casl(table, of_teachers or {}).astype(float)
    elif settings.name in COSTS:
        cost = COSTS[settings.name](table, settings).astype(float)
    else:
        known = of_teachers or {}
        cost = pd.Series([known[t] for t in table["teacher"].tolist()], index=table.index, dtype=float)
    bad = table.loc[~np.isfinite(cost)]
    if len(bad):
        raise BadInput(
            f"the {settings.name} cost is not finite",
            bad.iloc[0].get("answer_id", bad.index[0]),
            "a number",
            "look at this answer's statistics",
        )
    return cost
