"""Every setting of an experiment's file as a page: `python -m jobs.experiment.reference > docs/settings.md`.

The page is read off the classes that check the file, so it cannot lack a key.
"""

import dataclasses
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.experiment.arms import ARMS, AnyArm
from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import Teacher

WIDTH, LONG = 110, 40
INTRODUCTION = """# Every setting

All keys of an experiment's file, with what they take and what they are if they are not set. *Required* ones
have no default. A key is written as `section.key` on the command line: `train.epochs=2`. An unknown key, or a
value out of range, is refused before anything starts. [experiments.md](experiments.md) has an example, and
the pages that it names say what the settings do. This page is made by `python -m jobs.experiment.reference`.
"""
PLAIN: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}
BOUNDS = (
    (annotated_types.Ge, "ge", "at least {}"),
    (annotated_types.Gt, "gt", "above {}"),
    (annotated_types.Le, "le", "at most {}"),
    (annotated_types.Lt, "lt", "below {}"),
)
Known = tuple[str, Any, Any, list[Any]]  # name, type, default, constraints
REQUIRED = object()


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "\n".join(_section("The file", Experiment))]
    seen: dict[type, str] = {}
    for name, kind, _, _ in _fields(Experiment):
        parts += _parts(name, kind, seen)
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _parts(name: str, kind: Any, seen: dict[type, str]) -> Iterator[str]:
    """The sections that a key opens: one for each class that its value may have.

    Args:
        seen: classes that have a section already, with its heading.
    """
    for cls in _classes(kind):
        told = f"{name}, `kind: {_kind_of(cls)}`" if _kind_of(cls) else name
        if cls in seen:
            yield f"## {told}\nAs {seen[cls]} above."
            continue
        seen[cls] = told
        yield "\n".join(_section(told, cls))
        for key, inner, _, _ in _fields(cls):
            yield from _parts(f"{name}.{key}", inner, seen)


def _classes(kind: Any) -> list[type]:
    """The settings classes in a type."""
    if kind is AnyArm:
        return list(ARMS.values())
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
        return [kind]
    return [cls for inner in get_args(kind) for cls in _classes(inner)]


def _kind_of(cls: type) -> str:
    """What the key `kind` of a class is. Empty if it has none."""
    kinds = [get_args(kind) for name, kind, _, _ in _fields(cls) if name == "kind"]
    return str(kinds[0][0]) if kinds else ""


def _fields(cls: type) -> list[Known]:
    """The keys of a class, as they are written in the file."""
    if issubclass(cls, BaseModel):
        return [_known(name, field) for name, field in cls.model_fields.items()]
    found: list[Known] = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        hints = inspect.get_annotations(cls, eval_str=True)
        given = REQUIRED if default is dataclasses.MISSING else default
        found.append((field.name, hints.get(field.name, field.type), given, []))
    return found


def _known(name: str, field: FieldInfo) -> Known:
    default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
    return (field.alias or name), field.annotation, default, list(field.metadata)


def _section(title: str, cls: type) -> Iterator[str]:
    """A heading, what the class says of itself, and the table of its keys."""
    yield f"## {title}"
    yield from _told(cls)
    yield "| key | takes | default |"
    yield "| --- | --- | --- |"
    after = list[str]()
    for name, kind, default, bounds in _fields(cls):
        takes, given = _takes(kind, bounds), _default(default)
        if len(f"| `{name}` | {takes} | {given} |") > WIDTH and len(given) > LONG:
            after += ["", f"The default of `{name}`:", "", "```text", *_folded(str(default)), "```"]
            given = "see below"
        if len(f"| `{name}` | {takes} | {given} |") > WIDTH:
            after += ["", *_wrapped(f"`{name}` takes {takes}.")]
            takes = "one of those below"
        yield f"| `{name}` | {takes} | {given} |"
    yield from after


def _told(cls: type) -> Iterator[str]:
    """The class's own text, without lists of attributes."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("\n\nAttributes:")[0]
    for paragraph in text.split("\n\n"):
        said = re.sub(r"\s+", " ", paragraph).strip()
        yield from _wrapped(said)
        yield ""


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _folded(text: str) -> list[str]:
    """A text's lines, the long ones broken."""
    return [part for line in text.splitlines() for part in (_wrapped(line) or [""])]


def _takes(kind: Any, bounds: list[Any]) -> str:
    """What a key takes, in words."""
    said = [_words(kind)]
    for bound in bounds:
        said += [words.format(f"{getattr(bound, at):g}") for of, at, words in BOUNDS if isinstance(bound, of)]
    return ", ".join(said).replace("|", "\\|")


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if kind is AnyArm or kind is Teacher:
        return "see below"
    if origin is Annotated:
        return _takes(inner[0], list(inner[1:]))
    if origin is Literal:
        return ", ".join(f"`{_written(value)}`" for value in inner)
    if origin in (Union, types.UnionType):
        said = [_words(one) for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys(said))
    if origin is tuple and (len(inner) != 2 or inner[1] is not Ellipsis):
        return " and ".join(map(_words, inner))
    if origin in (tuple, list, frozenset):
        each = _words(inner[0])
        return f"a list: {each}" if each != "anything" else "a list"
    if origin is dict:
        each = _words(inner[1])
        return f"names, each with {each}" if each != "anything" else "a mapping"
    return "see below" if _classes(kind) else "anything"


def _default(default: Any) -> str:
    if default is REQUIRED:
        return "*required*"
    if isinstance(default, BaseModel) or dataclasses.is_dataclass(default):
        return "see below"
    if default is None or default in ((), {}, []):
        return ""
    if default == sys.executable:
        return "this Python"
    return f"`{_written(default)}`".replace("|", "\\|").replace("\n", "\\n")


def _written(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(page(), end="")
