"""Conclusions from all comparisons of a run together, corrected for their number."""

import math

from jobs.results.summary import Results
from training.comparison import MODELS_ALONE, holm
from training.evaluation import LEVEL


def corrected_p(results: Results) -> list[float]:
    """Holm's p-values of the comparisons, over all of the run."""
    return holm([c.p_value for _, _, c in results.comparisons])


def claim_lines(results: Results) -> list[str]:
    """Lines that limit the conclusions from a run. They say if there is only one training seed. They also say
    which called differences remain after correction for the number of comparisons. Verdicts themselves are
    not corrected, so each agrees with its interval.
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
    """A p-value as text.

    >>> p_words(0.0123), p_words(0.0001)
    ('p = 0.012', 'p below 0.001')
    """
    return "p below 0.001" if p < 0.001 else f"p = {p:.3f}"
