"""How teachers are asked, how the student is asked what an answer costs it, and how it is judged."""

import re
from typing import Literal

from pydantic import Field, model_validator

from jobs.experiment.section import Section


class Generate(Section):
    """How teachers are asked. With `until_verified` a teacher is asked again, up to `max_samples`, until that
    many samples are right. `shard_size` is how many answers an actor is given at once.
    """

    samples: int = Field(1, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)
    until_verified: int = Field(0, ge=0)
    max_samples: int = Field(4, ge=1)
    shard_size: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _sampling_makes_sense(self) -> "Generate":
        if self.temperature == 0 and (self.samples > 1 or self.until_verified):
            raise ValueError(
                "several samples at temperature 0 would all be the same; set generate.temperature above 0"
            )
        if self.until_verified and self.max_samples < max(self.samples, self.until_verified):
            raise ValueError("max_samples must be at least samples and until_verified")
        return self


class Score(Section):
    """How the student is asked what an answer would cost it; `token_budget` tokens per forward pass follow
    from the device if not set. `most_gradients`: how many answers may take a backward pass each. `cut`: an
    answer of many turns with more than `max_length` tokens is cut after the last turn that fits, in scoring
    and in training.
    """

    target_layer: str | None = None
    max_length: int = Field(4096, ge=8)
    cut: bool = False
    token_budget: int | None = Field(None, ge=8)
    shard_size: int = Field(256, ge=1)
    most_gradients: int = Field(20_000, ge=0)


class Evaluate(Section):
    """How a student is judged on held-out questions: the share of right answers, greedy or the mean of
    `samples` at a `temperature`, or the loss on worked reference answers. With `loss_on`, a regular
    expression, it is the loss on those tokens of the references that hold what it matches: its groups, if it
    has any. `baseline` is the arm with which all others are compared. A chosen answer that is longer than
    `max_new_tokens` could not be written by the student; more than one of twenty end the run, unless
    `allow_truncation` is set.
    """

    metric: Literal["accuracy", "loss"] = "accuracy"
    samples: int = Field(1, ge=1)
    temperature: float = Field(0.0, ge=0)
    max_new_tokens: int = Field(512, ge=1)
    shard_size: int = Field(128, ge=1)
    baseline: str | None = None
    allow_truncation: bool = False
    loss_on: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _parts_make_sense(self) -> "Evaluate":
        if self.loss_on is not None:
            if self.metric != "loss":
                raise ValueError("loss_on says which tokens a loss is taken over: set evaluate.metric=loss")
            try:
                re.compile(self.loss_on)
            except re.error as error:
                raise ValueError(f"loss_on is no regular expression: {error}") from error
        return self

    @model_validator(mode="after")
    def _samples_make_sense(self) -> "Evaluate":
        if self.samples > 1 and (self.temperature == 0 or self.metric == "loss"):
            raise ValueError("several samples need metric accuracy and a temperature above 0")
        return self
