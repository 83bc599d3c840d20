"""Arms of kind `arte`: a teacher is aligned to what a student learns best from, then asked again."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from jobs.experiment.section import Name, Section
from jobs.experiment.teachers import Teacher

Variant = Literal[
    "arte",
    "original",
    "best_scored",
    "question_only",
    "rationale_only",
    "shuffled",
    "chosen_sft",
    "scas",
    "strongest",
    "random",
]
Signal = Literal["icl", "influence", "scas", "random"]
SCORED: tuple[Variant, ...] = (
    "arte",
    "best_scored",
    "question_only",
    "rationale_only",
    "shuffled",
    "chosen_sft",
)
ALIGNED: tuple[Variant, ...] = ("arte", "question_only", "rationale_only", "shuffled", "chosen_sft")


class ArteArm(Section):
    """The student learns from what a teacher wrote for it (ARTE, arXiv 2406.19227). The section `elicit` says
    what the teacher writes.

    `variant`, see `docs/arte.md`: `arte` uses questions and rationales of the aligned teacher,
    `question_only` and `rationale_only` one of the two, `original` those of the teacher as it was. `shuffled`
    aligns it to permuted scores, `chosen_sft` to the chosen texts alone. `best_scored`, `scas`, `strongest`
    and `random` choose among the first harvest's rationales, without alignment.

    `signal` is how a preference is found: `icl` (one-shot accuracy, as published), `influence`, `scas` (a low
    cost) or `random`. `items`: the most telling validation items, or random ones. `aligned_to` names another
    student, whose preference is used (transfer).
    """

    system: ClassVar[str] = "jobs.systems.arte"

    kind: Literal["arte"]
    name: Name
    variant: Variant = "arte"
    signal: Signal = "icl"
    items: Literal["irt", "random"] = "irt"
    aligned_to: str | None = None
    scas_lambda: float = Field(0.5, ge=0, le=1, alias="lambda")

    @model_validator(mode="after")
    def _fits(self) -> "ArteArm":
        if self.variant not in SCORED:
            for name in ("signal", "items", "aligned_to"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"variant {self.variant} reads no {name}")
        if self.items == "random" and self.signal != "icl":
            raise ValueError(f"signal {self.signal} reads no items")
        if self.scas_lambda != 0.5 and self.signal != "scas" and self.variant != "scas":
            raise ValueError("lambda is for signal scas and variant scas")
        return self

    @property
    def needs_scores(self) -> bool:
        return self.variant in SCORED

    def check(self, teachers: Sequence[Teacher]) -> None:
        """The section `elicit` names the teacher, so an arm alone checks nothing."""
