"""A model that judges answers where no program can: an endpoint with a rubric."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from jobs.experiment.teachers import EndpointTeacher
from selection.verification import METHODS

RUBRIC = """You check whether an answer to a question is right.

Question:
{question}

Reference answer, which may be empty:
{reference}

Answer to check:
{answer}

Compare the answer with the reference if there is one, and check its reasoning step by step."""


class Judge(EndpointTeacher):
    """Judges answers whose `verify.method` is `judge`. It is asked the rubric, at temperature 0, and ends
    what it says with a line `VERDICT: right` or `VERDICT: wrong`.

    With `check_method` a sample of `check_sample` answers is checked by that method too, and the report shows
    how often both agree.
    """

    kind: Literal["endpoint"] = "endpoint"
    rubric: str = RUBRIC
    max_new_tokens: int = Field(1024, ge=1)
    check_method: str | None = None
    check_sample: int = Field(200, ge=1)

    @field_validator("check_method")
    @classmethod
    def _is_a_method(cls, value: str | None) -> str | None:
        if value is not None and (value not in METHODS or value in ("judge", "none")):
            raise ValueError(f"must be one of {', '.join(m for m in METHODS if m not in ('judge', 'none'))}")
        return value

    @model_validator(mode="after")
    def _rubric_shows_the_answer(self) -> "Judge":
        if "{answer}" not in self.rubric:
            raise ValueError("the rubric needs {answer}, and may have {question} and {reference}")
        return self
