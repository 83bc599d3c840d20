"""The report's section on routed arms: what was asked, what that saved, and what it cost in accuracy."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from jobs.results.judged import Judged, baseline_of
from jobs.results.outcome import Outcome, Section, Start, StudentPath
from jobs.stages.score import PoolScores
from jobs.systems.route.asking import Asked, distinct, usable_in
from jobs.systems.route.learning import Routed

ABOUT = (
    "All teachers answer the first questions. Each other question is asked of one teacher, and of the next "
    "one if it has no usable answer and another try is allowed. The table counts different questions, once "
    "for each teacher that is asked. A usable answer is right and could be scored."
)
TOLD = (
    "Can teachers be chosen by question? Value is 1 for a right answer that is the easiest, 0 for a wrong one"
)
WHOM = "Whom the other questions were asked of"
PRICE = "What it saved and what it cost"


def figures_of(start: Start, route: Routed, asked: Asked, scores: PoolScores) -> dict[str, float]:
    """Numbers about what a path asked."""
    questions, everyone = start.questions, len(start.experiment.teachers)
    rest = frozenset(questions) - route.first
    usable = usable_in(scores, asked) & rest
    made = sum(distinct(questions, ids) for ids in asked.values())
    most = distinct(questions, questions) * everyone
    figures = {
        "first questions": float(distinct(questions, route.first)),
        "asked": float(made),
        "if all were asked": float(most),
        "saved": 1 - made / most,
        "other questions with a usable answer": len(usable) / len(rest) if rest else float("nan"),
    }
    if start.asked:
        figures["with a right answer, if all were asked"] = right_by_anyone(start, rest)
    return figures


def right_by_anyone(start: Start, questions: frozenset[str]) -> float:
    """The share of these questions that some teacher answers rightly, if all were asked for other arms."""
    right: set[str] = set()
    for answers in start.pool.each():
        right |= set(answers["question_id"][answers["state"] == "verified"].tolist())
    return len(right & questions) / len(questions) if questions else float("nan")


def sections(outcome: Outcome) -> Iterable[Section]:
    """Nothing further: what is told is added while students are taught."""
    return ()


def lines_of(outcome: Outcome, routes: Mapping[StudentPath, Routed]) -> list[Section]:
    """What was asked, what the first questions told, and the arms' accuracy beside the baseline's."""
    made = [p for p in routes if (p, 1) in outcome.rounds]
    if not made or any(own.evaluation is None for (p, _), own in outcome.rounds.items() if p in routes):
        return []
    rows = [
        {"student": p.student, "arm": p.arm.name, "seed": p.seed, **outcome.rounds[p, 1].figures}
        for p in made
    ]
    notes = {
        TOLD: [f"{p.label}: {told_of(routes[p])}" for p in made if routes[p].arm.by == "router"],
        WHOM: [f"{p.label}: {shares_of(outcome, p, routes[p])}" for p in made],
        PRICE: list(prices_of(outcome, made)),
    }
    table = pd.DataFrame(rows)
    return [Section("route", "Whom to ask", ABOUT, table, {k: v for k, v in notes.items() if v})]


def told_of(route: Routed) -> str:
    """Whether teachers are chosen by question, and by what this is judged."""
    told = route.told
    gain = f"{told['gain']:+.3f} ({told['low']:.3f} to {told['high']:.3f})"
    means = sorted(told["means"].items(), key=lambda item: -item[1])
    known = ", ".join(f"{name} {value:.2f}" for name, value in means)
    if told["can_tell"]:
        done = "yes: choosing by question gains"
    elif route.arm.force:
        done = "chosen by question all the same, because it is forced. Gain"
    else:
        done = f"no, so {told['best']} was asked alone. Gain"
    return f"{done} {gain} over {told['best']}, on first questions not seen; mean values {known}"


def shares_of(outcome: Outcome, path: StudentPath, route: Routed) -> str:
    """The teachers of the questions outside the first part, with their shares."""
    counts: dict[str, int] = {}
    scores = outcome.scores(path, 1)
    for answers in scores.pool.each() if scores is not None else ():
        own = answers[(answers["sample"] == 0) & ~answers["question_id"].isin(route.first)]
        for teacher, count in own["teacher"].value_counts().items():
            counts[str(teacher)] = counts.get(str(teacher), 0) + int(count)
    total = sum(counts.values())
    told = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count / total:.0%}" for name, count in told) or "nobody"


def prices_of(outcome: Outcome, paths: Iterable[StudentPath]) -> Iterable[str]:
    """For each arm what it saved, and how much its student is behind the baseline's after the last round. A
    baseline of another kind of arm is trained later: then the report's comparisons say it.
    """
    e = outcome.start.experiment
    baseline, known = baseline_of(e), list(paths)
    compared = {(s, a): c.verdict for s, a, c in Judged(outcome).comparisons([baseline])}
    for student, arm in dict.fromkeys((p.student, p.arm.name) for p in known):
        own = [outcome.rounds[p, 1].figures for p in known if (p.student, p.arm.name) == (student, arm)]
        saved = float(np.mean([figures["saved"] for figures in own]))
        is_baseline = arm == baseline
        later = (
            "The baseline of the comparisons" if is_baseline else f"The comparisons have it beside {baseline}"
        )
        verdict = compared.get((student, arm), later)
        yield f"{student}, {arm}: saved {saved:.0%} of what asking all would take. {verdict}"
