"""How many rows handlers make, counted at the handlers of this process."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

ASKED, CHECKED, SCORED = "asked", "checked", "scored"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many rows handlers have made: answers, verdicts, statistics."""
    from jobs.stages.hosted import ModelAsker
    from jobs.stages.scorer import ScoreHandler
    from jobs.stages.verify import VerifyHandler

    counts: Counter[str] = Counter()

    def counted(handler: type, what: str) -> None:
        compute: Callable[..., Any] = handler.compute  # type: ignore[attr-defined]

        def counting(self: Any, items: Any) -> Any:
            counts[what] += len(items)
            return compute(self, items)

        monkeypatch.setattr(handler, "compute", counting)

    for handler, what in ((ModelAsker, ASKED), (VerifyHandler, CHECKED), (ScoreHandler, SCORED)):
        counted(handler, what)
    return counts


def since(made: Counter[str], before: Counter[str]) -> dict[str, int]:
    return {what: made[what] - before[what] for what in (ASKED, CHECKED, SCORED)}
