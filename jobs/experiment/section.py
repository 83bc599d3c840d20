"""What every section of an experiment file is: frozen, and without unknown keys."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

LONGEST_NAME = 100  # bytes: names of files hold two of them and more, and have at most 255


def _short(name: str) -> str:
    if name != name.strip():
        raise ValueError("a name does not begin or end with a space")
    length = len(name.encode("utf-8", "surrogatepass"))
    if length > LONGEST_NAME:
        raise ValueError(
            f"a name of {length} bytes is too long for names of files; take {LONGEST_NAME} at most"
        )
    return name


# Names of teachers, students and arms become parts of file names.
Name = Annotated[str, AfterValidator(_short), Field(pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$")]


def refuse_yes_for_number(kind: Any, value: Any, name: str) -> None:
    """Refuse true or false where a number belongs, in a value or in the fields of a dataclass.

    Raises:
        ValueError: names the key.
    """
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        hints = inspect.get_annotations(kind, eval_str=True)  # type: ignore[arg-type]
        for key, own in value.items():
            refuse_yes_for_number(hints.get(key), own, f"{name}.{key}")
        return
    parts = get_args(kind) or (kind,)
    if isinstance(value, bool) and bool not in parts and {int, float} & set(parts):
        told = str(value).lower()
        raise ValueError(f"{name} is a number; got {told} (YAML reads on, off, yes and no as true and false)")


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_no_yes_for_a_number(cls, given: Any) -> Any:
        """YAML reads on, off, yes and no as true and false, of which a number would become 1 or 0."""
        if isinstance(given, Mapping):
            for name, field in cls.model_fields.items():
                value = given.get(field.alias or name, given.get(name))
                refuse_yes_for_number(field.annotation, value, field.alias or name)
        return given
