"""Rows that are left out for their own defects: the reasons, their counts, and the first rows."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import BadInput

NO_ANSWER, NO_QUESTION, NO_REFERENCE = "no answer", "no question", "no reference answer"
SHOWN = 3  # how many rows are named, and how many reasons are listed


class NotUnderstood(Exception):
    """A row holds something that a conversation here cannot hold. The text is the reason, for users and the
    ledger.
    """

    def stopping(self, where: str) -> BadInput:
        """The error that ends the command if every row is refused."""
        return BadInput(f"{where} is not understood, and neither is any other row", self, "at least one", "")


class Missing(NotUnderstood):
    """A row lacks something. Only that row is left out, unless no row has it."""

    def __init__(
        self, reason: str, row: Mapping[str, Any], expected: str, remedy: str, what: str = ""
    ) -> None:
        super().__init__(reason)
        self.what, self.columns = what or f"has {reason}", ", ".join(row)
        self.expected, self.remedy = expected, remedy

    def stopping(self, where: str) -> BadInput:
        return BadInput(f"{where} {self.what}", self.columns, self.expected, self.remedy)


@dataclass
class LeftOut:
    """Rows of one source that were left out.

    Attributes:
        taken: how many rows were not left out.
    """

    path: str
    taken: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    error: BadInput | None = None

    def add(self, place: str, why: NotUnderstood, name: str | None = None) -> None:
        """Leave a row out."""
        self.reasons[str(why)] += 1
        if self.error is None:
            self.error = why.stopping(f"{self.path} {place}")
        if len(self.first) < SHOWN:
            self.first.append(f"left out {self.path} {place}{f' ({name})' if name else ''}: {why}")

    def refuse_all(self) -> None:
        """Refuse a source of which no row is left.

        Raises:
            BadInput: no row is left. Has the first row's defect.
        """
        if self.error is not None and not self.taken:
            raise self.error


def told_of(reasons: Counter[str]) -> str:
    """How many rows were refused, and the most frequent reasons. Empty if there are none."""
    if not reasons.total():
        return ""
    commonest = reasons.most_common(SHOWN)
    why = "; ".join(f"{n:,} with {reason}" for reason, n in commonest)
    others = reasons.total() - sum(n for _, n in commonest)
    more = f"; {others:,} with {len(reasons) - SHOWN} other reasons" if others else ""
    return f"; {reasons.total():,} refused: {why}{more}"


def warn_of(states: Sequence[str], usual: Sequence[str], lacking: str) -> None:
    """Warn the caller's caller of answers that have another state than the usual ones."""
    counts = Counter(state for state in states if state not in usual)
    if counts:
        told = ", ".join(f"{n:,} {state}" for state, n in counts.most_common())
        text = f"{counts.total():,} of {len(states):,} answers have {lacking}: {told}; see the column reason"
        warnings.warn(text, stacklevel=3)
