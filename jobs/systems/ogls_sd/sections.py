"""The report's section on students' own rollouts: the results of each round, and how far students are from
their targets."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from jobs.experiment.arms.ogls_sd import OglsArm
from jobs.results.outcome import Outcome, Section
from training.metrics import read_metrics

# Metrics of the objective `steered` (sums over tokens with a target), each with its name in the report.
WATCHED = {
    "exact_kl_nats": "exact KL",
    "clipped_entries": "entries clipped",
    "clipped_tokens": "tokens with a clipped entry",
    "target_entropy_nats": "entropy, target",
    "base_entropy_nats": "entropy, teacher without solutions",
    "student_entropy_nats": "entropy, student",
    "target_from_base_nats": "KL from target to teacher without solutions",
    "largest_delta": "largest difference",
    "agreement": "same likeliest token",
    "sampled_gain": "target minus student at the sampled token",
    "staleness_nats": "staleness (log-probability of sampled tokens: when sampled, minus now)",
}


# Shown only for targets that use the difference of two readings.
OF_A_DIRECTION = ("base_entropy_nats", "target_from_base_nats", "largest_delta")


def rollouts_table(outcome: Outcome) -> pd.DataFrame:
    """Build a table with one row for every path and round that learned from its own rollouts. A row holds the
    results of the rollouts, how many were learned from, and the objective's metrics in the round's first and
    last step. Metrics are means over the tokens that have a target.
    """
    rows = []
    for (path, number), own in outcome.rounds.items():
        if not isinstance(path.arm, OglsArm) or not own.figures:
            continue
        row: dict[str, Any] = {
            "student": path.student,
            "arm": path.arm.name,
            "seed": path.seed,
            "round": number,
            **own.figures,
        }
        steps = [] if own.trained is None else read_metrics(own.trained.directory)
        if steps and steps[0].get("steered"):
            first, last = steps[0], steps[-1]
            steered = path.arm.steered
            directed = steered is not None and steered.plus is not None
            if directed:
                row["lambda"] = last["lambda"] / last["steered"] if last["steered"] else float("nan")
            for name, words in WATCHED.items():
                if name in OF_A_DIRECTION and not directed:
                    continue
                values = [s[name] / s["steered"] if s["steered"] else float("nan") for s in (first, last)]
                row[f"{words}, first step"], row[f"{words}, last"] = values
        rows.append(row)
    return pd.DataFrame(rows)


# Controls of target `ogls`. They should learn from the same rollouts as the arm that they control.
CONTROLS = ("lambda_zero", "positive_only", "positive_mean", "opsd_incorrect", "shuffled")


def rows_apart(outcome: Outcome) -> list[str]:
    """Lines for the report: controls that learned from other rollouts than the first arm with target `ogls`.
    Only the first round is compared, in which all arms have the same rollouts. Such a control differs in more
    than its target.
    """
    lines = []
    first = {
        path: (path.arm, own.learned)
        for (path, number), own in outcome.rounds.items()
        if number == 1 and isinstance(path.arm, OglsArm)
    }
    steering: dict[tuple[str, int], tuple[str, frozenset[str]]] = {}
    for path, (arm, rows) in first.items():
        if arm.target == "ogls":
            steering.setdefault((path.student, path.seed), (arm.name, rows))
    for path, (arm, rows) in first.items():
        known = steering.get((path.student, path.seed))
        if known is not None and arm.target in CONTROLS and rows != known[1]:
            more, less = len(rows - known[1]), len(known[1] - rows)
            lines.append(
                f"{path.label}, round 1: learned from {more} rollouts that {known[0]} did not learn "
                f"from, and did not learn from {less} of the {len(known[1])} that {known[0]} learned from"
            )
    return lines


MOVED, NOTHING = 0.01, 1e-6  # nats a token


def away_from_targets(rollouts: pd.DataFrame) -> list[str]:
    """Lines for the report, about two kinds of arms. In the first kind the student is farther from its target
    at the end of a round than at its beginning. In the second kind the target is equal to the student itself.

    The first happens if a loss is clipped: entries that are cut have no gradient, and the others still push.
    It also happens while lambda rises, because the target moves. In the second, the gradients are rounding
    errors, which the optimizer turns into steps.

    Args:
        rollouts: the table from `rollouts_table`.
    """
    first, last = (f"exact KL, {when}" for when in ("first step", "last"))
    if first not in rollouts:
        return []
    means = rollouts.groupby(["student", "arm", "round"], sort=False)[[first, last]].mean().reset_index()
    lines = []
    for student, arm, number, before, after in means.itertuples(index=False, name=None):
        where = f"{student}, {arm}, round {number}"
        if abs(before) < NOTHING:
            lines.append(f"{where}: the target was the student itself when the round began")
        if after > before + MOVED:
            lines.append(f"{where}: exact KL rose from {max(before, 0.0):.3f} to {after:.3f} nats per token")
    return lines


def sections(outcome: Outcome) -> Iterable[Section]:
    """The report's section on rollouts. Its table has one row for every student, arm and round, with means
    over seeds.
    """
    table = rollouts_table(outcome)
    if not len(table):
        return
    notes = {
        "Changes between a round's first and last step that need attention (docs/ogls_sd.md says what a clip "
        "does; a rising lambda also moves the target):": away_from_targets(table),
        "Controls that did not learn from the same rollouts, so they differ in more than their targets:": (
            rows_apart(outcome)
        ),
    }
    means = table.drop(columns="seed").groupby(["student", "arm", "round"], sort=False).mean().reset_index()
    yield Section(
        "rollouts",
        "Own rollouts",
        "What students said in each round, how much of it was learned from, and how far they were from "
        "their targets: means over seeds, and over tokens that had a target. A clipped loss does not "
        "measure the distance to the target. Use the exact KL and the accuracy.",
        means,
        notes,
    )
