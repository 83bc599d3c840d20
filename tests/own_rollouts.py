"""What tests of students that learn from their own rollouts share."""

from typing import Any

from jobs.results.outcome import Outcome, StudentPath

ROLLOUTS = {
    "group": 3,
    "questions": 8,
    "steps_per_round": 2,
    "max_new_tokens": 12,
    "scored_tokens": 6,
    "solution_field": "solution",
    "template": "{question} like {solution}",
    "check_questions": 0,
}


def arms(*targets: str) -> list[dict[str, Any]]:
    return [{"kind": "ogls_sd", "name": t.replace("_", " "), "target": t} for t in targets]


def path_of(outcome: Outcome, arm: str, seed: int = 0) -> StudentPath:
    return next(p for p in outcome.paths if p.arm.name == arm and p.seed == seed)


def learned_of(outcome: Outcome, path: StudentPath, number: int) -> set[str]:
    """The questions of which a training saw a rollout."""
    return {rollout.partition("/")[0] for rollout in outcome.rounds[path, number].learned}


def told(outcome: Outcome, arm: str, number: int = 1) -> dict[str, int]:
    counts = outcome.rounds[path_of(outcome, arm), number].ledger
    return dict(zip(counts["kind"] + " " + counts["state"], counts["count"], strict=True))
