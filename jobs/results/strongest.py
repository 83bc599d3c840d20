"""Which teacher is the strongest, and who cannot be told from it: a claim against one of them alone would be
one against the luck of a question or two.
"""

import numpy as np
import pandas as pd

from jobs.experiment.arms.select import single_teachers, strongest_arm
from jobs.experiment.schema import Experiment
from jobs.results.judged import baseline_of, clusters_of
from jobs.results.outcome import Start
from selection.drawn_means import Draws, told_from
from training.comparison import compare
from training.evaluation import by_cluster

RIGHT = ("verified", "duplicate")  # as a teacher's accuracy counts
DRAWS = 2000
MOST_TWINS = 3  # that all arms are compared with: few questions leave many teachers untold from the best
MOST_LACKING = 0.05  # of the questions: a teacher that lacks more is named
COLUMNS = ["teacher", "accuracy", "behind", "low", "high", "p", "is_strongest", "answered"]


def strongest_table(start: Start) -> pd.DataFrame:
    """Every teacher's accuracy on the training questions, the best first, and by how much it is behind the
    best one, with the 95 % interval and the p-value of this pair alone, over the same questions.
    `is_strongest` of the best and of all that cannot be told from it, at 95 % for all pairs of teachers
    together: the best one was picked because it came out first.
    """
    accuracy = {name: float(start.pool.accuracy[name]) for name in start.asked}
    order = sorted(accuracy, key=lambda name: (-accuracy[name], name))
    places = {question: k for k, question in enumerate(start.questions)}
    right = {name: np.zeros(len(places)) for name in order}
    answered = {name: set[str]() for name in order}
    for answers in start.pool.each():
        there = answers[answers["question_id"].isin(list(places)) & answers["teacher"].isin(order)]
        for name, some in there.groupby("teacher")["question_id"]:
            answered[str(name)] |= set(some)
        own = answers[answers["state"].isin(RIGHT) & (answers["sample"] == 0)]
        own = own[own["teacher"].isin(order)]  # none where teachers were asked different questions
        for name, question in zip(own["teacher"], own["question_id"], strict=True):
            right[str(name)][places[question]] = 1.0
    if not order:
        return pd.DataFrame(columns=COLUMNS)
    wrong_TQ, clusters = (
        1 - np.stack([right[name] for name in order]),
        clusters_of([*start.questions.values()]),
    )
    if clusters is not None:
        wrong_TQ = by_cluster(wrong_TQ, clusters)
    right = {name: 1 - wrong_Q for name, wrong_Q in zip(order, wrong_TQ, strict=True)}
    (drawn_BT,) = Draws(wrong_TQ.shape[1], DRAWS, start.experiment.seed).means(wrong_TQ)
    is_behind = dict(zip(order, told_from(wrong_TQ, drawn_BT, 0).tolist(), strict=True))
    rows = []
    for name in order:
        best = order[0]
        found = compare(right[name], right[best], name, best, is_same=name == best)
        d = found.difference
        told = {"behind": -d.value, "low": -d.high, "high": -d.low, "p": found.p_value}
        is_strongest = name == best or not is_behind[name]
        row = {"teacher": name, "accuracy": accuracy[name], **told, "is_strongest": is_strongest}
        rows.append(row | {"answered": len(answered[name]) / max(1, len(places))})
    return pd.DataFrame(rows, columns=COLUMNS)


def strongest_teachers(table: pd.DataFrame) -> list[str]:
    """The strongest teacher, and those that cannot be told from it."""
    return [str(name) for name in table["teacher"][table["is_strongest"]]]


def baselines_of(e: Experiment, baseline: str, table: pd.DataFrame) -> list[str]:
    """The arms that others are compared with: the baseline, and where it learns from the strongest teacher
    also the arms that learn from one alone that cannot be told from it, the best three.
    """
    return [baseline, *twin_arms(e, baseline, table)[:MOST_TWINS]]


def twin_arms(e: Experiment, baseline: str, table: pd.DataFrame) -> list[str]:
    """All arms that learn from one teacher alone that cannot be told from the strongest, the best first; none
    where the baseline learns from another one, or by a cost.
    """
    strongest, single = strongest_teachers(table), single_teachers(e.arms)
    if baseline == strongest_arm(e.arms):
        named = strongest[1:]  # the best one's own arm is the baseline in other words
    elif single.get(baseline) in strongest:
        named = [teacher for teacher in strongest if teacher != single[baseline]]
    else:
        return []
    twins = [arm for teacher in named for arm, own in single.items() if own == teacher]
    return [name for name in twins if name != baseline]


def strongest_lines(e: Experiment, table: pd.DataFrame) -> list[str]:
    """Who the strongest teachers are, in words; nothing of a single teacher."""
    if len(table) < 2:
        return []
    return [*_who_is_strongest(e, table), *_who_lacks_answers(table)]


def _who_lacks_answers(table: pd.DataFrame) -> list[str]:
    """A line about teachers without an answer to many questions, which count as not right."""
    lacking = table[table["answered"] < 1 - MOST_LACKING]
    told = [f"{row['teacher']} ({100 * row['answered']:.0f} %)" for row in lacking.to_dict("records")]
    if not told:
        return []
    return [
        f"teachers with answers to fewer questions, which count as not right elsewhere: {', '.join(told)}"
    ]


def _who_is_strongest(e: Experiment, table: pd.DataFrame) -> list[str]:
    named = [row for row in table.to_dict("records") if row["is_strongest"]]
    own = set(single_teachers(e.arms).values())
    told = [f"{row['teacher']} ({100 * row['accuracy']:.1f} % right)" for row in named]
    if len(named) == 1:
        return [f"the strongest teacher is {told[0]}, and all others are behind it by more than chance"]
    line = f"the strongest teacher is {told[0]}; not told from it by these questions: {', '.join(told[1:])}"
    cut_off = twin_arms(e, baseline_of(e), table)[MOST_TWINS:]
    if cut_off:
        line += f"; only the best {MOST_TWINS} of their arms are compared with, not {', '.join(cut_off)}"
    lacking = [str(row["teacher"]) for row in named[1:] if row["teacher"] not in own]
    if lacking and strongest_arm(e.arms) is not None:
        line += (
            f"; no arm learns from {', '.join(lacking)} alone, so nothing is claimed against "
            f"{'them' if len(lacking) > 1 else 'it'} (rule: teacher)"
        )
    return [line]
