"""What every section of an experiment file is: frozen, and without unknown keys."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LONGEST_NAME = 100  # bytes: names of files hold two of them and more, and have at most 255


def _short(name: str) -> str:
    length = len(name.encode("utf-8", "surrogatepass"))
    if length > LONGEST_NAME:
        raise ValueError(
            f"a name of {length} bytes is too long for names of files; take {LONGEST_NAME} at most"
        )
    return name


# Names of teachers, students and arms become parts of file names.
Name = Annotated[str, AfterValidator(_short), Field(pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$")]


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)
