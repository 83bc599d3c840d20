"""How the models of the miniature worlds are made: from which export of which model, on which dialects, and
for how long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

STYLE = "write {dialect}"  # the system text that names a dialect
NEW_QUESTION = "new question: {family}"  # asks for a question of a family
START = "init"  # the untrained model of a width is `init/<width>`
BATCH = 32


@dataclass(frozen=True)
class Recipe:
    """How one model of a world is made.

    Attributes:
        start: a model, or one of its exports (`base-prefix/step-440`).
        dialects: relative weights.
        exports: the steps after which the model is also kept.
        is_constant: whether the learning rate stays constant after the warm-up. Exports are annealed
            afterwards.
        reading: the share of episodes whose question shows a worked solution. Three of four solutions are
            right.
        reads: the dialects of these solutions.
        told: the share of episodes whose system text names the dialect; see `STYLE`.
        writes: the share of examples in which a question is written, and not answered; see `NEW_QUESTION`.
    """

    name: str
    start: str
    dialects: dict[str, float]
    steps: int
    rows: int
    learning_rate: float
    exports: tuple[int, ...] = ()
    is_constant: bool = False
    reading: float = 0.0
    reads: tuple[str, ...] = ()
    told: float = 0.0
    writes: float = 0.0

    @property
    def is_base(self) -> bool:
        """Whether it starts from nothing."""
        return self.start.startswith(f"{START}/")


def upbringing(mother_tongue: str, languages: Sequence[str], kinship: float) -> dict[str, float]:
    """The share of each language in what a student meets after it has left its base.

    Args:
        kinship: the share of its mother tongue. The others have equal shares.

    >>> upbringing("running", ["equations", "running", "prefix"], 0.5)
    {'equations': 0.25, 'running': 0.5, 'prefix': 0.25}
    """
    others = (1 - kinship) / (len(languages) - 1)
    shares = {language: kinship if language == mother_tongue else others for language in languages}
    return {language: share for language, share in shares.items() if share > 0}
