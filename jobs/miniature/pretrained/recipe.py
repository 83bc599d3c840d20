"""Which models the pretrained world has, and how they are made.

One training with adapters, the versatile one, learns worked solutions in all manners. The system text names
the manner. It is kept at two steps, early and late. From each of them short trainings go on, with the
solutions of one manner and without a system text: the able and the strong teachers. Students are the
pretrained model as it comes, and the same after a short training in one manner.

Every model has a band of accuracy on practice questions. Of the exports of a training, the one nearest to the
middle of the band stands for it. A band without an export is left out and named. Everything here was fixed by
the accuracies of teachers and students alone, before any selector ran in this world.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.miniature.pretrained.manners import MANNERS
from jobs.miniature.pretrained.weights import GEMMA, SMOLLM2, Packaged
from training.settings import LoraSettings

BASES: dict[str, Packaged] = {model.name: model for model in (SMOLLM2, GEMMA)}
LORA = LoraSettings(r=16, alpha=32)
RATE, BATCH = 1e-3, 8
VERSATILE = "versatile"
EARLY, LATE = 30, 100  # steps of the versatile training
STEPS = 12  # of a training in one manner
ABLE = ("sentences", "equations", "wordy")  # manners that an able teacher has too
BANDS = {"able": (0.04, 0.25), "strong": (0.25, 0.95)}
SCHOOLING, SCHOOLED = (12, 20), (0.02, 0.25)
PRACTICE = 60  # questions on which accuracy is measured
MAX_NEW_TOKENS = 160  # the longest solution of any manner has less


@dataclass(frozen=True)
class Line:
    """A training that is kept at some of its steps.

    Attributes:
        base: the name of the pretrained model.
        manners: of the solutions that it learns. If there are several, the system text names the manner.
        exports: the steps. The last one is the training's end.
        bands: for each of its models, the name and the bounds of its accuracy.
        start: the line and the step that it goes on from. Empty: the pretrained model.
        is_student: whether its models are students.
    """

    name: str
    base: str
    manners: tuple[str, ...]
    exports: tuple[int, ...]
    bands: dict[str, tuple[float, float]]
    start: tuple[str, int] | None = None
    is_student: bool = False


def first_lines(bases: Sequence[str]) -> list[Line]:
    """The versatile training of each pretrained model. Others go on from these."""
    every = tuple(MANNERS)
    found = [Line(VERSATILE, SMOLLM2.name, every, (EARLY, LATE), {VERSATILE: (0.0, 1.0)})]
    if GEMMA.name in bases:
        found.append(Line(f"gemma-{VERSATILE}", GEMMA.name, every, (EARLY, LATE), {}))
    return found


def lines(bases: Sequence[str]) -> list[Line]:
    """The trainings in one manner."""
    taught = [("strong", LATE, manner) for manner in MANNERS] + [("able", EARLY, manner) for manner in ABLE]
    found = [
        Line(f"{m}-{s}", SMOLLM2.name, (m,), (STEPS,), {f"{m}-{s}": BANDS[s]}, (VERSATILE, step))
        for s, step, m in taught
    ]
    found.append(
        Line("schooled", SMOLLM2.name, ("sentences",), SCHOOLING, {"schooled": SCHOOLED}, None, True)
    )
    if GEMMA.name in bases:
        for manner in ("sentences", "equations"):
            name, start = f"gemma-{manner}", (f"gemma-{VERSATILE}", LATE)
            found.append(Line(name, GEMMA.name, (manner,), (STEPS,), {name: (0.0, 1.0)}, start))
    return found
