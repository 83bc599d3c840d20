"""The experiments of a study, part by part. They are made from crossed values and from patterns of names."""

import copy
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.errors import BadInput, TutelageError
from jobs.experiment.miniature import MINIATURE
from jobs.experiment.parsing import parse_experiment, read_override, read_tree, set_key
from jobs.experiment.schema import Experiment
from jobs.experiment.study import MEMBERS, Part, Study

PLACEHOLDER = {"mean_loss": 1.0}  # for coefficients that are not known before their part has run
ONLY = "only "  # before a teacher's name: the arm that learns from it alone
Members = Mapping[str, Sequence[Mapping[str, Any]]]  # "teachers" and "students" as an experiment lists them
Values = tuple[tuple[str, Any], ...]  # of the crossed keys


@dataclass(frozen=True)
class Cell:
    """One experiment of a part.

    Attributes:
        values: the value of each crossed key of the part.
        fixed: the values that this part takes over from earlier parts.
    """

    part: str
    values: Values
    fixed: Values
    experiment: Experiment

    @property
    def label(self) -> str:
        """The crossed values as text."""
        return " ".join(f"{key}={told(value)}" for key, value in self.values)

    @property
    def trainings(self) -> int:
        e = self.experiment
        return len(e.students) * len(e.arms) * e.seeds * e.rounds


def told(value: Any) -> str:
    """A value as text, for labels and tables.

    >>> told(0.001), told(["*", "!*-wordy-*"]), told("x")
    ('0.001', '* !*-wordy-*', 'x')
    """
    if isinstance(value, list | tuple):
        return " ".join(map(told, value))
    return json.dumps(value) if not isinstance(value, str) else value


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study's file and apply the overrides `experiment.KEY=VALUE` and `parts.NAME.KEY=VALUE` to it.

    Raises:
        BadInput: the file is missing, its YAML is broken, or it has an unknown key or an invalid value.
    """
    tree = read_tree(path, "study", "see experiments/study.yaml")
    if "parts" not in tree:
        raise BadInput(f"{path} is no study", "", "sections experiment and parts", "")
    for override in overrides:
        key, value = read_override(override)
        part, where, rest = _within_part(key)
        if rest:  # a dotted key of the experiment is one key of set or cross
            set_key(tree, f"parts.{part}.{where}", {**_found(tree, part, where), rest: value})
        else:
            set_key(tree, key, value)
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the study"
        known = "known keys: " + ", ".join(Part.model_fields) if "extra" in problem["type"] else ""
        what = problem["msg"].removeprefix("Value error, ")
        raise BadInput(f"{where} does not fit", "", what, known) from error


def _within_part(key: str) -> tuple[str, str, str]:
    """Split a key such as `parts.NAME.set.train.steps` into part, section and rest. All three are empty for
    other keys.
    """
    words = key.split(".", 3)
    if len(words) == 4 and words[0] == "parts" and words[2] in ("set", "cross"):
        return words[1], words[2], words[3]
    return "", "", ""


def _found(tree: Mapping[str, Any], part: str, where: str) -> dict[str, Any]:
    """A section of a part, as the study's file has it."""
    return dict(((tree["parts"] or {}).get(part) or {}).get(where) or {})


def members_of(
    study: Study, world: Mapping[str, Iterable[str]], lineages: Mapping[str, str] | None = None
) -> Members:
    """All teachers and students that parts can choose from: those that the study lists, otherwise those of
    the miniature world.

    Args:
        world: the names of the miniature world's models, by `teacher` and `student`. Empty without a world.
        lineages: the lineages of the world's models, as far as they have one.
    """
    found: dict[str, Sequence[Mapping[str, Any]]] = {}
    for kind in MEMBERS:
        listed = study.experiment.get(kind)
        names = world.get(kind.removesuffix("s"), ())
        own = lineages or {}
        found[kind] = listed or [
            {"name": name, "path": MINIATURE + name, "lineage": own.get(name)} for name in names
        ]
    return found


def taken(members: Sequence[Mapping[str, Any]], patterns: Sequence[str], what: str) -> list[dict[str, Any]]:
    """The members that fit the patterns, in their own order. A pattern that begins with `!` removes members
    again. `*` stands for any text, and every other character for itself.

    Raises:
        BadInput: no member fits a pattern.

    >>> [m["name"] for m in taken([{"name": "a-x"}, {"name": "a-y"}, {"name": "b"}], ["a-*", "!*-y"], "it")]
    ['a-x']
    """
    names = [str(m.get("name")) for m in members]
    kept: set[str] = set()
    for pattern in patterns:
        own = {name for name in names if fits(name, pattern.removeprefix("!"))}
        if not own:
            near = ", ".join(names[:6])
            raise BadInput(f"{what} {pattern} fits no member", pattern, f"a pattern of {near} …", "")
        kept = kept - own if pattern.startswith("!") else kept | own
    return [dict(m) for m in members if m.get("name") in kept]


def fits(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern.

    >>> fits("qwen[7b]", "qwen[7b]"), fits("qwen7", "qwen[7b]"), fits("a-b", "*-b")
    (True, False, True)
    """
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.S) is not None


def cells_of(
    study: Study,
    name: str,
    members: Members,
    fixed: Values = (),
    learned: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Cell]:
    """Make the experiments of one part.

    Args:
        fixed: the keys and values that earlier parts fixed.
        learned: the coefficients of learned costs, by the part that learned them. None before anything was
            run: then a placeholder is used.

    Raises:
        BadInput: an experiment is not valid. Names the part.
    """
    part, cells = study.parts[name], []
    said = {*part.set, *part.cross, *(part.model_fields_set & {*MEMBERS, "seeds"})}
    said |= {"evaluate.baseline"} if part.baseline is not None else set()
    now = tuple((key, value) for key, value in fixed if key not in said)
    for k, values in enumerate(_points(part)):
        suffix = f"-{k}" if part.cross else ""
        tree = copy.deepcopy(study.experiment)
        tree["name"] = f"{name}{suffix}"
        tree["runs"] = f"{tree.get('runs', 'runs')}/{study.name}"
        settings = {**dict(now), **part.set, **dict(values)}
        patterns = {kind: settings.pop(kind, getattr(part, kind)) for kind in MEMBERS}
        try:
            for kind in MEMBERS:
                tree[kind] = taken(members[kind], patterns[kind], f"{name}: {kind}")
            arms = [_with_coefficients(name, arm, learned) for arm in part.arms]
            tree["arms"] = [*arms, *_each_teacher(part, tree["teachers"])]
            if part.seeds is not None:
                tree["seeds"] = part.seeds
            if part.baseline is not None:
                tree["evaluate"] = {**(tree.get("evaluate") or {}), "baseline": part.baseline}
            for key, value in settings.items():
                set_key(tree, key, value)
            cells.append(Cell(name, values, now, parse_experiment(tree)))
        except TutelageError as error:
            at = " ".join(f"{key}={told(value)}" for key, value in values)
            raise BadInput(f"part {name} {at}".strip(), error, "", "change the study's file") from error
    check_compared(name, part, cells)
    return cells


def check_compared(name: str, part: Part, cells: Sequence[Cell]) -> None:
    """Refuse a part whose `compare_with` names an arm that it does not have."""
    for cell in cells:
        arms = {arm.name for arm in cell.experiment.arms}
        for other in part.compare_with:
            if other not in arms:
                raise BadInput(f"part {name} compares with no arm", other, ", ".join(sorted(arms)[:6]), "")


def _with_coefficients(
    part: str, arm: Mapping[str, Any], learned: Mapping[str, Mapping[str, float]] | None
) -> dict[str, Any]:
    """Replace the name of an earlier part in an arm by the coefficients that the part learned.

    Raises:
        BadInput: that part has not learned any.
    """
    source = arm.get("coefficients")
    if not isinstance(source, str):
        return dict(arm)
    if learned is None:
        return {**arm, "coefficients": dict(PLACEHOLDER)}
    if source not in learned:
        what = f"part {part} takes coefficients that part {source} has not learned"
        raise BadInput(what, "", "a part that learned", f"see what is said of {source}")
    return {**arm, "coefficients": dict(learned[source])}


def _each_teacher(part: Part, teachers: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    if part.each_teacher is not None:
        for teacher in teachers:
            own = {"name": ONLY + str(teacher["name"]), "rule": "teacher", "teacher": teacher["name"]}
            yield {**own, **part.each_teacher}


def _points(part: Part) -> Iterator[Values]:
    """Every combination of the crossed values."""
    for point in itertools.product(*part.cross.values()):
        yield tuple(zip(part.cross, point, strict=True))
