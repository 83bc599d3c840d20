"""What `tutelage study` runs: parts of one study, each a few experiments over one store and one Ray."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from jobs.experiment.section import Section

# Names of members, `*` standing for anything; with `!` before it those are left out again.
Patterns = tuple[str, ...]
# crossed values of these would be judged on other questions or by another measure, and could not be compared
JUDGED_BY = ("limit", "questions", "evaluate", "verify", "judge")
SHARED = ("name", "runs", "store", "miniature", "ray")  # of all parts: one world, one store, one Ray
MEMBERS = ("teachers", "students")  # crossed and set by patterns


class Learns(Section):
    """What a learned cost is fitted on; it is judged on everybody and everything else."""

    students: Patterns
    families: tuple[str, ...] = Field(min_length=1)


class Part(Section):
    """One question that a study asks: a few arms on some students, teachers and settings.

    `set` gives keys of the experiment (dotted) a value for this part; `cross` gives keys several, and every
    combination is an experiment of its own. `teachers` and `students` are patterns, here and as keys of `set`
    and `cross`. `each_teacher` makes an arm `only NAME` for every teacher, with these further settings.

    `seeds` and `baseline` are the shared experiment's where the part says nothing.

    `fixes`: a crossed key -> the arm that fixes it, or several. The value under which that arm does best, or
    the mean of several, over students and seeds, holds for all later parts that say nothing else of the key.

    `learns`: a learned cost is fitted to what teachers gave some students on some families, and judged on all
    other students and families. An arm of a later part takes it by `coefficients: PART`.
    """

    about: str = ""
    teachers: Patterns = ("*",)
    students: Patterns = ("*",)
    arms: tuple[dict[str, Any], ...] = ()
    each_teacher: dict[str, Any] | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    cross: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    seeds: int | None = Field(None, ge=1)
    baseline: str | None = None
    compare_with: tuple[str, ...] = ()
    fixes: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    learns: Learns | None = None

    @field_validator("set", "cross")
    @classmethod
    def _leaves_what_is_shared(cls, given: dict[str, Any]) -> dict[str, Any]:
        for key in given:
            if key.split(".")[0] in SHARED:
                raise ValueError(f"{key} is shared by all parts; set it in the section experiment")
        return given

    @field_validator("set")
    @classmethod
    def _names_single_keys(cls, given: dict[str, Any]) -> dict[str, Any]:
        for key, value in given.items():
            if isinstance(value, dict) and "." not in key:
                raise ValueError(f"{key} would replace the whole section; name single keys: {key}.KEY: …")
        return given

    @field_validator("cross")
    @classmethod
    def _crosses_single_keys(cls, cross: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key, values in cross.items():
            if "." not in key and any(isinstance(value, dict) for value in values):
                raise ValueError(f"{key} would replace the whole section; cross single keys: {key}.KEY: […]")
        return cross

    @field_validator("cross")
    @classmethod
    def _has_values(cls, cross: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key, values in cross.items():
            if len(values) < 1:
                raise ValueError(f"{key} is crossed over no value")
            if len({repr(value) for value in values}) < len(values):
                raise ValueError(f"{key} is crossed over one value twice")
            if key.partition(".")[0] in JUDGED_BY:
                raise ValueError(
                    f"{key} cannot be crossed: its values would be judged on other questions or by another "
                    "measure; make a part for each"
                )
        return cross

    @model_validator(mode="after")
    def _has_arms(self) -> "Part":
        if not self.arms and self.each_teacher is None:
            raise ValueError("a part needs arms, or each_teacher")
        twice = sorted(set(self.set) & set(self.cross))
        if twice:
            raise ValueError(f"{twice[0]} is in set and in cross: keep one")
        for key, own in (("seeds", self.seeds), ("evaluate.baseline", self.baseline)):
            if own is not None and key in self.set:
                raise ValueError(f"{key} is in set and is a key of the part: keep one")
        strange = [key for key in self.fixes if key not in self.cross]
        if strange:
            raise ValueError(f"fixes {strange[0]}, which is not crossed")
        if self.learns is not None and (self.each_teacher is None or self.cross):
            raise ValueError("learns needs each_teacher, what single teachers gave, and takes no cross")
        names = [arm.get("name") for arm in self.arms]
        for key, arms in self.fixing.items():
            lacking = [arm for arm in arms if arm not in names]
            if lacking or not arms:
                raise ValueError(f"fixes {key} by the arm {', '.join(lacking)}, which the part has not")
        return self

    @property
    def fixing(self) -> dict[str, tuple[str, ...]]:
        """By key, the arms that fix it."""
        return {key: (arms,) if isinstance(arms, str) else arms for key, arms in self.fixes.items()}


class Study(Section):
    """A study: what all parts share, as in an experiment's file, and the parts, in their order.

    Over the miniature world teachers and students need not be listed: parts take the world's by patterns.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    experiment: dict[str, Any]
    parts: dict[str, Part] = Field(min_length=1)

    @field_validator("experiment")
    @classmethod
    def _leaves_arms_to_parts(cls, experiment: dict[str, Any]) -> dict[str, Any]:
        if "arms" in experiment:
            raise ValueError("arms belong to parts: move experiment.arms into one")
        return experiment

    @field_validator("parts")
    @classmethod
    def _names_are_directories(cls, parts: dict[str, Part]) -> dict[str, Part]:
        for name in parts:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"the part's name {name!r} becomes a directory: letters, digits, - and _")
        return parts

    @model_validator(mode="after")
    def _learn_before_use(self) -> "Study":
        learned: set[str] = set()
        for name, part in self.parts.items():
            for source in sources_of(part):
                if source not in learned:
                    raise ValueError(
                        f"part {name} takes coefficients of {source}, no earlier part that learns"
                    )
            learned |= {name} if part.learns is not None else set()
        return self


def sources_of(part: Part) -> list[str]:
    """The parts whose learned costs a part's arms take."""
    found = (arm.get("coefficients") for arm in part.arms)
    return [source for source in found if isinstance(source, str)]
