"""The error of a pool without a verified answer: the answers' states, the most frequent reasons, and what to
do.
"""

import re
from collections import Counter

from cluster.errors import BadInput
from jobs.stages.pool import AnswerPool

REMEDIES = {
    "failed": "correct the cause of the failed calls, then run again with --retry-failed",
    "wrong": "check that verify.method suits the references",
    "unparsed": "check verify.method and verify.pattern",
    "unreadable_reference": "give references that verify.method reads, or another method",
    "timed_out": "raise verify.timeout_s",
    "checker_error": "correct the error in the checker (verify.function, or the judge)",
    "empty": "raise generate.max_new_tokens, if the reasoning used all tokens",
    "unknown_question": "give questions and answers the same ids, or none",
    "not_understood": "see docs/data.md for what a row may hold",
}
SHOWN = 3  # how many reasons, and how many states with a remedy, are shown
WITH_REASON = ("failed", "unreadable_reference", "timed_out", "checker_error", "not_understood")
OWN_WORDS = re.compile(r"\w*\d\w*")  # words that differ from call to call: numbers, and ids with digits


def nothing_verified(pool: AnswerPool) -> BadInput:
    """The error of a pool without a verified answer."""
    states = pool.by_state
    told = ", ".join(f"{n} {state}" for state, n in states.items()) or "no answers at all"
    reasons = commonest_reasons(pool)
    remedies = [REMEDIES[state] for state in states if state in REMEDIES][:SHOWN]
    return BadInput(
        "no teacher has a verified answer to any question",
        f"{told}; most often {' | '.join(reasons)}" if reasons else told,
        "at least one",
        "; ".join(remedies) or "look at the answers' states",
    )


def commonest_reasons(pool: AnswerPool) -> list[str]:
    """The most frequent reasons why answers were lost, each with its state, its teachers and its count."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    teachers: dict[tuple[str, str], set[str]] = {}
    for answers in pool.each():
        lost = answers[answers["state"].isin(WITH_REASON)]
        columns = (lost[name].tolist() for name in ("state", "error", "extracted", "teacher"))
        for state, error, extracted, teacher in zip(*columns, strict=True):
            reason = str(error) or str(extracted)
            key = state, OWN_WORDS.sub("…", reason)
            counts[key] += 1
            examples.setdefault(key, reason)
            teachers.setdefault(key, set()).add(teacher)
    return [
        f"{key[0]}: {examples[key] or 'no reason'} ({n} times, {_few(sorted(teachers[key]))})"
        for key, n in counts.most_common(SHOWN)
    ]


def _few(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
