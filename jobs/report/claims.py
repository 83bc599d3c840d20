"""What may be said of a run's comparisons together, beside what each says of itself."""

import math

from jobs.results.summary import Results
from training.comparison import MODELS_ALONE, holm
from training.evaluation import LEVEL


def corrected_p(results: Results) -> list[float]:
    """Holm's p-value of every comparison, over all of the run."""
    return holm([c.p_value for _, _, c in results.comparisons])


def claim_lines(results: Results) -> list[str]:
    """What one seed cannot claim, and which of the differences that are called stay so where their number is
    counted in. Each is called by itself, so that its verdict and its interval are one statement.
    """
    every, corrected = results.comparisons, corrected_p(results)
    lines = []
    if every and all(c.seeds == 1 for _, _, c in every):
        lines.append(f"one training seed: this {MODELS_ALONE}")
    number = sum(math.isfinite(p) for p in corrected)
    if number < 2:
        return lines
    called = [k for k, (_, _, c) in enumerate(every) if c.p_value < LEVEL]
    if not called:
        return [*lines, f"{number} comparisons, none of them called: their number corrects nothing"]
    stay = [
        f"{student} {arm} against {c.against} ({p_words(p)})"
        for (student, arm, c), p in zip(every, corrected, strict=True)
        if p < LEVEL
    ]
    told = (
        f"{len(called)} of {number} comparisons called, each by itself; corrected for their number by Holm "
    )
    return [*lines, f"{told}{len(stay)}: {', '.join(stay)}" if stay else f"{told}none"]


def p_words(p: float) -> str:
    """A p-value as people write it.

    >>> p_words(0.0123), p_words(0.0001)
    ('p = 0.012', 'p below 0.001')
    """
    return "p below 0.001" if p < 0.001 else f"p = {p:.3f}"
