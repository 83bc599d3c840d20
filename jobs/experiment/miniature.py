"""The miniature world in an experiment: its size, and the mark of names that are looked up in it."""

from typing import Literal

from pydantic import Field

from jobs.experiment.section import Section

MINIATURE = "miniature:"


class Miniature(Section):
    """The miniature world: the demo's quick one, the study's full one, that of models which read solutions in
    their prompts, that of a teacher that writes questions, that of pretrained language models, or those of
    agents and of an author made from them. The other numbers say by which seed, how many questions it offers,
    and how large it is.
    """

    world: Literal["quick", "full", "reading", "writing", "pretrained", "agents", "authors"] = "quick"
    seed: int = 0
    train_questions: int = Field(400, ge=8)
    evaluate_questions: int = Field(300, ge=8)
    scale: float = Field(1.0, gt=0, le=10)
