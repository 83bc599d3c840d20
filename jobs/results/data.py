"""What a run says of its data: what the files held, what is on both sides, and whether a judge can be
trusted.
"""

import numpy as np

from jobs.results.outcome import Start
from jobs.stages.judge import Agreement
from training.evaluation import accuracy_interval


def told_of_data(start: Start) -> list[str]:
    """Sentences about the data, for the report."""
    lines = list(start.data.lines)
    if start.data.overlap:
        lines.append(
            f"{start.data.overlap:,} of {len(start.held_out):,} held-out questions are also trained on, or "
            "nearly (a run of 13 words in common); the experiment allows it"
        )
    if start.pool.agreement is not None:
        lines.append(told_of_judge(start.pool.agreement))
    return lines


def told_of_judge(agreement: Agreement) -> str:
    """How far a judge and a method agree, with the interval of a share."""
    a = agreement
    if a.total == 0:
        return f"the judge was compared with {a.method} on no answer: none of its questions has a reference"
    share = accuracy_interval(np.repeat([1.0, 0.0], [a.agreed, a.total - a.agreed]))
    alone = (f"{a.counts.get(name, 0):,}" for name in ("judge only", "method only"))
    return (
        f"the judge agrees with {a.method} on {100 * share.value:.1f} % of {a.total:,} answers "
        f"(95 % interval {100 * share.low:.1f} to {100 * share.high:.1f}); {next(alone)} are right for "
        f"the judge alone, {next(alone)} for {a.method} alone"
    )
