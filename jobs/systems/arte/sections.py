"""The report's sections on ARTE: what teachers wrote, what students preferred, what alignment changed."""

from collections.abc import Iterable

import pandas as pd

from jobs.experiment.arms.arte import ArteArm
from jobs.results.outcome import Outcome, Section


def sections(outcome: Outcome) -> Iterable[Section]:
    """What every path learned from."""
    rows = [
        {"student": path.student, "arm": path.arm.name, "seed": path.seed, **own.figures}
        for (path, _), own in outcome.rounds.items()
        if isinstance(path.arm, ArteArm) and own.figures
    ]
    if rows:
        about = "The questions that a teacher wrote and their rationales, and how many a path learned from."
        yield Section("arte", "What teachers wrote", about, pd.DataFrame(rows))
