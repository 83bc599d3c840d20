"""The report's sections: what students reach under each budget, beside calls at other places, and what calls
cost.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from jobs.experiment.arms.training_wheels import WheelsArm
from jobs.results.judged import clusters_of, keys_of
from jobs.results.outcome import ALONE, Curves, Outcome, Point, Section
from jobs.results.values import Values, compared, interval_of, pool_of
from jobs.systems.training_wheels.judging import CONTROLS, LIKELY, TEACHER, name_of
from jobs.systems.training_wheels.paths import wheels_of
from training.evaluation import Interval, SeedVariance, pool_seeds

KNOWN = ("calls", "teacher tokens", "seconds", "length", "kl", "overlap", *(f"help {k}" for k in range(1, 6)))
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
    "After the last round, means over seeds. A call writes one token of the teacher. Alone: without calls. "
    "Teacher alone: without a student. Seconds are those of the reserved processors, loading left out."
)
COMPARED = (
    "The student's own calls less answering alone. And calls where the student's help token is likeliest, "
    "less about as many calls at other places; how many there were stands beside. p-values are each by "
    "itself."
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


@dataclass(frozen=True)
class Answers:
    """How an arm's student answered: by itself, under a budget, or under a control."""

    student: str
    arm: str
    condition: str

    @property
    def path(self) -> tuple[str, str]:
        """The name under which values are compared."""
        return self.student, f"{self.arm}: {self.condition}"


def sections(outcome: Outcome) -> Iterable[Section]:
    """What all arms of this kind came to."""
    yield from prices_of(outcome)
    e = outcome.start.experiment
    found = Conditions(outcome)
    if not found.figures:
        return
    yield Section(
        "wheels",
        "With and without help",
        ABOUT,
        pd.DataFrame(found.rows()),
        {SPECULATIVE: found.speculative_lines()},
        (found.by_calls(), found.by_seconds()),
    )
    budgets = [b for b in wheels_of(e).budgets if b]
    contrasts = [
        row for student, arm in found.arms for b in budgets for row in found.contrasts(student, arm, b)
    ]
    if contrasts:
        title = "Is the choice of places worth anything?"
        yield Section("wheels-compared", title, COMPARED, pd.DataFrame(contrasts))
    rows = [
        {
            "student": own.student,
            "answers": own.path[1],
            **{f"fifth {k}": told[f"help {k}"] for k in range(1, 6)},
        }
        for own, told in found.figures.items()
        if own.condition in [name_of(b) for b in budgets] and "help 1" in told
    ]
    if rows:
        yield Section("wheels-help", "Where students call", HELP, pd.DataFrame(rows))


class Conditions:
    """All ways in which students answered after the last round, with means over seeds.

    Attributes:
        figures: by name, of every way of answering.
        arms: student and arm of every path, in order.
    """

    def __init__(self, outcome: Outcome) -> None:
        e, held_out = outcome.start.experiment, outcome.start.held_out
        order = [q.id for q in held_out]
        self.budgets = wheels_of(e).budgets
        tables: dict[Answers, list[np.ndarray]] = {}
        figures: dict[Answers, list[dict[str, float]]] = {}
        self.teachers: dict[str, str] = {}
        for (path, number), own in outcome.rounds.items():
            if not isinstance(path.arm, WheelsArm) or number != e.rounds or ALONE not in own.evaluations:
                continue
            for name, stage in own.evaluations.items():
                who = Answers(path.student, path.arm.name, name)
                if name == TEACHER:  # it is the same for every seed and arm
                    who = Answers(path.student, path.arm.teacher, TEACHER)
                    if who in tables:
                        continue
                table = stage.read().set_index("question_id")["value"].loc[order]
                tables.setdefault(who, []).append(table.to_numpy(float))
                suffix = f", {name}"
                told = {n.removesuffix(suffix): v for n, v in own.figures.items() if n.endswith(suffix)}
                figures.setdefault(who, []).append({n: v for n, v in told.items() if n in KNOWN})
        families = np.array([q.family for q in held_out], dtype=object)
        self.figures = {who: dict(pd.DataFrame(own).mean()) for who, own in figures.items()}
        self.arms = list(dict.fromkeys((w.student, w.arm) for w in tables if w.condition == ALONE))
        paths = {who.path: np.stack(own) for who, own in tables.items()}
        clusters = clusters_of(held_out)
        self.values = Values("accuracy", keys_of(held_out), families, paths, {}, clusters)
        # seeds differ by training: ways of answering of one training are no further paths
        of_trainings = {who.path: paths[who.path] for who in tables if who.condition == ALONE}
        self.pool = pool_of([replace(self.values, paths=of_trainings)])
        self.intervals = {who: interval_of(self.values, who.path, self.pool) for who in tables}

    def rows(self) -> list[dict[str, object]]:
        """A row for every way of answering."""
        return [
            {
                "student": who.student,
                "answers": who.path[1],
                "accuracy": told(interval),
                **{words: self.figures[who].get(what, float("nan")) for what, words in FIGURES.items()},
            }
            for who, interval in self.intervals.items()
        ]

    def pairs(self, student: str, arm: str, budget: int) -> list[tuple[Answers, Answers]]:
        """The ways of answering that are compared, as far as they exist."""
        name = name_of(budget)
        own, likely = Answers(student, arm, name), Answers(student, arm, f"{name}, {LIKELY}")
        others = [Answers(student, arm, f"{name}, {control}") for control in CONTROLS]
        every = [(own, Answers(student, arm, ALONE)), *((likely, other) for other in others)]
        return [pair for pair in every if set(pair) <= set(self.intervals)]

    @cached_property
    def pool_of_pairs(self) -> SeedVariance:
        """What seeds differ by in the differences of two ways of answering of one training."""
        known = np.ones(len(self.values.questions), bool)
        paths = {path: self.values.table(path, known) for path in self.values.paths}
        every = [p for s, a in self.arms for b in self.budgets if b for p in self.pairs(s, a, b)]
        return pool_seeds([paths[mine.path] - paths[theirs.path] for mine, theirs in every])

    def contrasts(self, student: str, arm: str, budget: int) -> Iterable[dict[str, object]]:
        """A student's own calls less none, and calls at its likeliest places less calls elsewhere."""
        for mine, theirs in self.pairs(student, arm, budget):
            names = mine.path[1], theirs.path[1]
            found = compared(self.values, student, *names, self.pool_of_pairs, same_trainings=True)
            yield {
                "student": student,
                "answers": mine.path[1],
                "less": theirs.condition,
                "points": told(found.difference),
                "p": found.p_value,
                "calls per token": self.figures[mine].get("calls", float("nan")),
                "of the other": self.figures[theirs].get("calls", float("nan")),
            }

    def by_seconds(self) -> Curves:
        """Accuracy against the processors' time that answering took."""
        lines: dict[str, list[Point]] = {}
        for who, i in self.intervals.items():
            x = self.figures[who].get("seconds", float("nan"))
            if x == x:
                point = Point(1000 * x, 100 * i.value, 100 * i.low, 100 * i.high)
                lines.setdefault(self.line_of(who), []).append(point)
        return Curves("processor-milliseconds per token", "accuracy, % (95 % intervals)", lines)

    @staticmethod
    def line_of(who: Answers) -> str:
        """The line of a figure on which these answers lie."""
        place = who.condition.partition(", ")[2]
        if who.condition == TEACHER:
            return f"{who.student} · {TEACHER} ({who.arm})"
        return f"{who.student} · {who.arm}" + (f", {place}" if place else "")

    def by_calls(self) -> Curves:
        """Accuracy against calls: the student's own, limited, at other places, and speculative decoding."""
        lines: dict[str, list[Point]] = {}
        for who, i in self.intervals.items():
            calls = 1.0 if who.condition == TEACHER else self.figures[who].get("calls", float("nan"))
            if calls == calls:
                point = Point(100 * calls, 100 * i.value, 100 * i.low, 100 * i.high)
                lines.setdefault(self.line_of(who), []).append(point)
        for who, i in self.intervals.items():
            for student, arm in self.arms if who.condition == TEACHER else ():
                overlap = self.figures[Answers(student, arm, ALONE)].get("overlap", float("nan"))
                if student == who.student and 0 <= overlap < 1:
                    xs = [100 * passes_per_token(overlap, k) for k in DRAFTS]
                    points = [Point(x, 100 * i.value, 100 * i.low, 100 * i.high) for x in xs]
                    lines[f"{student} · {arm}, speculative decoding (arithmetic)"] = points
        return Curves(
            "calls, or passes of the teacher, per 100 tokens", "accuracy, % (95 % intervals)", lines
        )

    def speculative_lines(self) -> list[str]:
        """What speculative decoding would need with each student as its draft."""
        lines = []
        for student, arm in self.arms:
            overlap = float(self.figures[Answers(student, arm, ALONE)].get("overlap", float("nan")))
            if 0 <= overlap < 1:
                passes = ", ".join(f"{passes_per_token(overlap, k):.3f} with drafts of {k}" for k in DRAFTS)
                lines.append(f"{student} · {arm}: overlap {overlap:.3f}: {passes}")
        return lines


def told(interval: Interval) -> str:
    """An interval in percent."""
    if not np.isfinite(interval.low):
        return f"{100 * interval.value:.1f}"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


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
        if isinstance(path.arm, WheelsArm) and path.arm.variant == "wheels" and number > 1
    ]
    if rows:
        yield Section("wheels-prices", "What a call costs", LABEL + PRICES, pd.DataFrame(rows))
