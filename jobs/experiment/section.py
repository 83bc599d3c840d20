"""What every section of an experiment file is: frozen, and without unknown keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Names of teachers, students and arms become parts of file names, two of them with more in one.
Name = Annotated[str, Field(max_length=60, pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$")]


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)
