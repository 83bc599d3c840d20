"""How the models of the miniature worlds are made: from which export of which model, on which dialects, for
how long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

START = "init"  # the untrained model of a width is `init/<width>`
BATCH = 32


@dataclass(frozen=True)
class Recipe:
    """How one model of a world is made.

    Attributes:
        start: a model, or one of its exports (`base-prefix/step-440`).
        dialects: relative weights.
        exports: after which steps the model is also kept as it is.
        is_constant: the learning rate stays where it is after the warm-up; exports are annealed afterwards.
        reading: share of episodes whose question shows a worked solution first, three of four a right one.
        reads: the dialects of those solutions.
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

    @property
    def is_base(self) -> bool:
        """Whether it starts from nothing."""
        return self.start.startswith(f"{START}/")


def upbringing(mother_tongue: str, languages: Sequence[str], kinship: float) -> dict[str, float]:
    """What a student meets of each language after it has left its base.

    Args:
        kinship: its mother tongue's share; the others have equal ones.

    >>> upbringing("running", ["equations", "running", "prefix"], 0.5)
    {'equations': 0.25, 'running': 0.5, 'prefix': 0.25}
    """
    others = (1 - kinship) / (len(languages) - 1)
    shares = {language: kinship if language == mother_tongue else others for language in languages}
    return {language: share for language, share in shares.items() if share > 0}
