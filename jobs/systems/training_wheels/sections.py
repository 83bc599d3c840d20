"""The report's sections: what students reach under each budget, beside calls at other places, and what calls
cost.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from jobs.experiment.arms.training_wheels import WheelsArm
from jobs.results.judged import keys_of
from jobs.results.outcome import ALONE, Curves, Outcome, Point, Section
from jobs.results.values import Values, compared, interval_of, pool_of
from jobs.systems.training_wheels.judging import CONTROLS, LIKELY, TEACHER, name_of
from jobs.systems.training_wheels.paths import wheels_of
from training.evaluation import Interval

DRAFTS = (2, 4, 8)  # tokens of a draft in speculative decoding
FIGURES = {
    "calls": "calls per token",
    "teacher tokens": "tokens read by the teacher per token",
    "seconds": "processor-seconds per token",
    "length": "tokens per answer",
    "kl": "KL from the teacher, nats per token",
}
LABEL = (
    "After the idea of Training Wheels; the decision process, the loss, the prices and all settings are "
    "derived by us. "
)
ABOUT = LABEL + (
    "After the last round, means over seeds. A call writes one token of the teacher. Where both models "
    "read the answers again to compare them, no seconds are shown. Alone: without calls. Teacher alone: "
    "without a student."
)
COMPARED = (
    "The student's own calls less answering alone. And calls at the places where the student's help token is "
    "likeliest, less as many calls at other places. p-values are each by itself."
)
HELP = (
    "How likely a call is before a token, in each fifth of the tokens by how far the student is from its "
    "teacher there (KL). A student that knows where it is weak calls more often on the right."
)
PRICES = "A call's price under each budget during a round, in nats, and how often students called in it."
SPECULATIVE = (
    "Speculative decoding writes the teacher's own answers. Passes of the teacher per token that it would "
    "need with this student as its draft, by the overlap of both on the student's answers"
)


def sections(outcome: Outcome) -> Iterable[Section]:
    """What all arms of this kind came to."""
    last = {
        path: own
        for (path, number), own in outcome.rounds.items()
        if isinstance(path.arm, WheelsArm)
        and number == outcome.start.experiment.rounds
        and ALONE in own.evaluations
    }
    yield from prices_of(outcome)
    if not last:
        return
    tables: dict[tuple[str, str], list[np.ndarray]] = {}
    figures: dict[tuple[str, str], list[dict[str, float]]] = {}
    order = [q.id for q in outcome.start.held_out]
    for path, own in last.items():
        for name, stage in own.evaluations.items():
            key = path.student, f"{path.arm.name}: {name}"
            table = stage.read().set_index("question_id")["value"].loc[order]
            tables.setdefault(key, []).append(table.to_numpy(float))
            known = {what: own.figures.get(f"{what}, {name}", float("nan")) for what in (*FIGURES, *FURTHER)}
            figures.setdefault(key, []).append(known)
    families = np.array([q.family for q in outcome.start.held_out], dtype=object)
    stacked = {key: np.stack(own) for key, own in tables.items()}
    values = Values("accuracy", keys_of(outcome.start.held_out), families, stacked, {})
    pool = pool_of([values])
    mean = {key: pd.DataFrame(own).mean() for key, own in figures.items()}
    intervals = {key: interval_of(values, key, pool) for key in stacked}
    rows = [
        {
            "student": student,
            "answers": name,
            "accuracy": told(intervals[student, name]),
            **{FIGURES[what]: mean[student, name][what] for what in FIGURES},
        }
        for student, name in stacked
    ]
    arms = list(dict.fromkeys((path.student, path.arm.name) for path in last))
    notes = {SPECULATIVE: [line for s, a in arms if (line := speculative_line(s, a, mean)) is not None]}
    yield Section(
        "wheels", "With and without help", ABOUT, pd.DataFrame(rows), notes, curves(arms, intervals, mean)
    )
    budgets = [b for b in wheels_of(outcome.start.experiment).budgets if b]
    contrasts = []
    for student, arm in arms:
        for budget in budgets:
            name = f"{arm}: {name_of(budget)}"
            likely = f"{name}, {LIKELY}"
            pairs = [(name, f"{arm}: {ALONE}"), *((likely, f"{name}, {control}") for control in CONTROLS)]
            for mine, theirs in pairs:
                if {(student, mine), (student, theirs)} <= set(stacked):
                    found = compared(values, student, mine, theirs, pool)
                    row = {"student": student, "answers": mine, "less": theirs.partition(": ")[2]}
                    contrasts.append({**row, "points": told(found.difference), "p": found.p_value})
    if contrasts:
        yield Section(
            "wheels-compared", "Is the choice of places worth anything?", COMPARED, pd.DataFrame(contrasts)
        )
    rows = [
        {
            "student": student,
            "answers": f"{arm}: {name_of(budget)}",
            **{f"fifth {k}": mean[student, f"{arm}: {name_of(budget)}"][f"help {k}"] for k in range(1, 6)},
        }
        for student, arm in arms
        for budget in budgets
        if (student, f"{arm}: {name_of(budget)}") in mean
    ]
    yield Section("wheels-help", "Where students call", HELP, pd.DataFrame(rows))


FURTHER = ("overlap", *(f"help {k}" for k in range(1, 6)))


def told(interval: Interval) -> str:
    """An interval in percent."""
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def curves(
    arms: Sequence[tuple[str, str]],
    intervals: dict[tuple[str, str], Interval],
    mean: dict[tuple[str, str], pd.Series],
) -> Curves:
    """Accuracy against calls: the student's own, with a limit, and at other places."""
    lines: dict[str, list[Point]] = {}
    for (student, name), interval in intervals.items():
        arm, _, answers = name.partition(": ")
        if (student, arm) not in arms:
            continue
        place = answers.partition(", ")[2] or "own calls"
        line = f"{student} · {arm}" + ("" if place == "own calls" else f", {place}")
        if answers == TEACHER:
            line = f"{student} · {TEACHER}"
        calls = 1.0 if answers == TEACHER else float(mean[student, name]["calls"])
        lines.setdefault(line, []).append(
            Point(100 * calls, 100 * interval.value, 100 * interval.low, 100 * interval.high)
        )
    return Curves("calls per 100 tokens", "accuracy, % (95 % intervals)", lines)


def speculative_line(student: str, arm: str, mean: dict[tuple[str, str], pd.Series]) -> str | None:
    """What speculative decoding would need. None if the overlap is not known."""
    overlap = float(mean[student, f"{arm}: {ALONE}"].get("overlap", float("nan")))
    if not 0 <= overlap < 1:
        return None
    passes = ", ".join(f"{passes_per_token(overlap, k):.3f} with drafts of {k}" for k in DRAFTS)
    return f"{student} · {arm}: overlap {overlap:.3f}: {passes}"


def passes_per_token(overlap: float, draft: int) -> float:
    """Passes of the teacher per token in speculative decoding (arXiv 2211.17192), if every token of a draft
    is accepted with this probability, independently of the others.

    >>> round(passes_per_token(0.8, 4), 6)
    0.297477
    """
    return (1 - overlap) / (1 - overlap ** (draft + 1))


def prices_of(outcome: Outcome) -> Iterable[Section]:
    """The prices of calls, round by round."""
    rows = [
        {
            "student": path.student,
            "arm": path.arm.name,
            "seed": path.seed,
            "round": number,
            **{name: v for name, v in own.figures.items() if name.startswith(("price", "calls in training"))},
        }
        for (path, number), own in outcome.rounds.items()
        if isinstance(path.arm, WheelsArm) and number > 1
    ]
    if rows:
        yield Section("wheels-prices", "What a call costs", LABEL + PRICES, pd.DataFrame(rows))
