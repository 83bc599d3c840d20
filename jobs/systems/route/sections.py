"""The ledger of routed paths, and the report's section on them: what was asked and what that saved."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from jobs.experiment.arms.route import RouteArm
from jobs.results.judged import Judged, baseline_of
from jobs.results.outcome import Outcome, Section, Start, StudentPath
from jobs.run.slices import Sliced
from jobs.stages.pool import AnswerPool
from jobs.systems.route.asking import Asked
from jobs.systems.route.learning import Routed
from jobs.systems.route.paths import arm_of

ABOUT = (
    "All teachers answer the first questions. Each other question is asked of one teacher, and of the next "
    "one if its answer is wrong and another try is allowed. Gain is how much more value an answer has if its "
    "teacher is chosen by question, less the best teacher's, on first questions that the choice had not "
    "seen (95 % interval). 1 is a right answer that is the easiest to learn, 0 a wrong one. Where the "
    "interval holds 0, the best teacher is asked."
)
ASKED = "Whom the other questions were asked of, as shares of these calls"
SHARE = "share of "


def ledger_of(chosen: Sliced) -> pd.DataFrame:
    """Counts of final states (columns kind, state, count): of questions, and of the answers that were asked
    for.
    """
    each = [own.groupby(["kind", "state"]).size() for own in chosen.each("ledger", ["kind", "state"])]
    return pd.concat(each).groupby(level=[0, 1]).sum().reset_index(name="count")


def figures_of(
    start: Start, path: StudentPath, route: Routed, asked: Asked, pool: AnswerPool, chosen: Sliced
) -> dict[str, float]:
    """Numbers about what a path asked and learned from."""
    e, told = start.experiment, route.told
    questions, everyone = len(start.questions), len(e.teachers)
    calls = sum(map(len, asked.values()))
    rest = frozenset(start.questions) - route.first
    right = set()
    for answers in pool.each():
        right |= set(answers["question_id"][answers["state"] == "verified"].tolist())
    figures = {
        "first questions": float(len(route.first)),
        "gain": told["gain"],
        "gain, low": told["low"],
        "gain, high": told["high"],
        "chosen by question": float(arm_of(path).by == "router" and (told["can_tell"] or arm_of(path).force)),
        "calls": float(calls * e.generate.samples),
        "calls if all were asked": float(questions * everyone * e.generate.samples),
        "calls saved": 1 - calls / (questions * everyone),
        "other questions with a right answer": len(right & rest) / len(rest) if rest else float("nan"),
    }
    if start.asked:
        figures["and if all were asked"] = right_by_anyone(start, rest)
    others = {t: len(ids - route.first) for t, ids in asked.items()}
    shares = {SHARE + t: count / max(1, sum(others.values())) for t, count in others.items()}
    return figures | {"examples": float(chosen.counts()["chosen"])} | shares


def right_by_anyone(start: Start, questions: frozenset[str]) -> float:
    """The share of these questions that some teacher answers rightly, if all were asked for other arms."""
    right: set[str] = set()
    for answers in start.pool.each():
        right |= set(answers["question_id"][answers["state"] == "verified"].tolist())
    return len(right & questions) / len(questions) if questions else float("nan")


def sections(outcome: Outcome) -> Iterable[Section]:
    """What was asked, what that saved, and what it cost in accuracy."""
    e = outcome.start.experiment
    paths = [p for p in outcome.paths if isinstance(p.arm, RouteArm) and (p, 1) in outcome.rounds]
    if not paths:
        return
    judged, baseline = Judged(outcome), baseline_of(e)
    compared = {(s, a): c for s, a, c in judged.comparisons([baseline])}
    rows, asked = [], []
    for student, arm in dict.fromkeys((p.student, p.arm.name) for p in paths):
        own = [outcome.rounds[p, 1].figures for p in paths if (p.student, p.arm.name) == (student, arm)]
        mean = {name: float(np.mean([f[name] for f in own])) for name in own[0]}
        row: dict[str, object] = {"student": student, "arm": arm, "seeds": len(own)}
        row |= {name: value for name, value in mean.items() if not name.startswith(SHARE)}
        shares = [(value, name.removeprefix(SHARE)) for name, value in mean.items() if name.startswith(SHARE)]
        told = ", ".join(f"{name} {value:.0%}" for value, name in sorted(shares, reverse=True) if value)
        asked.append(f"{student}, {arm}: {told}")
        found = compared.get((student, arm))
        if found is not None:
            d = found.difference
            row |= {f"less {baseline}": d.value, "low": d.low, "high": d.high}
        rows.append(row)
    yield Section("route", "Whom to ask", ABOUT, pd.DataFrame(rows), {ASKED: asked})
