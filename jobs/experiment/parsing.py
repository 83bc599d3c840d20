"""Reading an experiment's file: YAML, dotted overrides laid over it, one line about the first thing that does
not fit.
"""

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cluster.errors import BadInput
from cluster.session import RaySettings
from jobs.experiment.arms import ARMS
from jobs.experiment.documents import plain_values, read_text
from jobs.experiment.judge import Judge
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.experiment.questions import Fields, QuestionSet
from jobs.experiment.rollouts import Rollouts
from jobs.experiment.schema import Experiment
from jobs.experiment.server import Server
from jobs.experiment.stages import Evaluate, Generate, Score
from jobs.experiment.students import Student
from jobs.experiment.sweep import Draw, Sweep
from jobs.experiment.teachers import EndpointTeacher, FileTeacher, ModelTeacher, ServerTeacher
from jobs.experiment.url import shown
from selection.verification import VerifySettings
from training.settings import LoraSettings, TrainSettings, check_settings


def load_experiment(path: Path, overrides: list[str] | None = None) -> Experiment:
    """Read an experiment file and lay `key.sub=value` overrides over it; values are YAML.

    Raises:
        BadInput: a missing file, broken YAML, an unknown key (with the nearest known one), a value that does
            not fit.
    """
    tree = read_tree(path, "experiment", "see experiments/ for ready ones")
    if "parts" in tree and "experiment" in tree:
        raise BadInput(f"{path} is a study", "", "an experiment", f"run it with `tutelage study {path}`")
    for override in overrides or []:
        apply(tree, override)
    return parse_experiment(tree)


def parse_experiment(tree: dict[str, Any]) -> Experiment:
    """Validate a tree of plain values."""
    try:
        experiment = Experiment.model_validate(_with_default_kinds(_without_older_keys(tree)))
    except ValidationError as error:
        raise BadInput(*_first_problem(error)) from error
    check_settings(experiment.train)
    return experiment


# keys that an earlier version wrote into every experiment, and their only value there
OLDER_KEYS = {"train": {"objective": "weighted_cross_entropy", "steered": None}}


def _without_older_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """Without keys that say nothing any more, as experiments of earlier runs have them."""
    for section, known in OLDER_KEYS.items():
        given = tree.get(section)
        if isinstance(given, dict):
            kept = {k: v for k, v in given.items() if k not in known or v != known[k]}
            tree = {**tree, section: kept}
    return tree


def _with_default_kinds(tree: dict[str, Any]) -> dict[str, Any]:
    """A teacher without `kind` is a model, and an arm without one chooses."""
    for section, kind in (("teachers", "model"), ("arms", "select")):
        given = tree.get(section)
        if isinstance(given, list):
            tree = {
                **tree,
                section: [{"kind": kind, **one} if isinstance(one, dict) else one for one in given],
            }
    return tree


def read_tree(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """A YAML file as plain values.

    Args:
        what: it should be, for people.

    Raises:
        BadInput: nothing there, or no YAML mapping.
    """
    tree = plain_values(read_text(path, what, remedy), str(path), "check the indentation there")
    if not isinstance(tree, dict):
        got = "nothing" if tree is None else type(tree).__name__
        raise BadInput(f"{path} holds no {what}", got, "a mapping of sections", remedy)
    if odd := next((key for key in tree if not isinstance(key, str)), None):
        raise BadInput(f"{path} has a section without a name", repr(odd)[:60], "names of sections", remedy)
    return tree


def apply(tree: dict[str, Any], override: str) -> None:
    """Lay one `key.sub=value` over a tree.

    Raises:
        BadInput: it has no value, or one that is not YAML.
    """
    key, value = read_override(override)
    set_key(tree, key, value)


def read_override(override: str) -> tuple[str, Any]:
    """The key and the value of `key.sub=value`.

    Raises:
        BadInput: it has no value, or one that is not YAML.
    """
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise BadInput("an override has no value", override, "key.sub=value", "")
    return key, plain_values(text, f"the value of {key}", "quote it")


def set_key(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key of a tree of plain values; a number in the path is a list index.

    Raises:
        BadInput: the path goes below a plain value, or names no item of a list.
    """
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        if isinstance(node, list):
            node = _item(node, part, key)
            continue
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict | list):
            raise BadInput(f"{key} goes below a plain value", repr(node), "a section", "")
    if isinstance(node, list):
        _item(node, last, key)
        node[int(last)] = value
    else:
        node[last] = value


def _item(items: list[Any], part: str, key: str) -> Any:
    if not re.fullmatch("[0-9]+", part) or int(part) >= len(items):
        raise BadInput(f"{key} names no item", part, f"an index from 0 to {len(items) - 1}", "")
    return items[int(part)]


SECTIONS: dict[str, tuple[type, ...]] = {
    "questions": (QuestionSet, Fields),
    "teachers": (ModelTeacher, ServerTeacher, EndpointTeacher, FileTeacher, Fields),
    "students": (Student, Server),
    "rollouts": (Rollouts,),
    "generate": (Generate,),
    "verify": (VerifySettings,),
    "judge": (Judge,),
    "score": (Score,),
    "train": (TrainSettings, LoraSettings),
    "evaluate": (Evaluate,),
    "ray": (RaySettings,),
    "placement": (Placement,),
    "miniature": (Miniature,),
    "sweep": (Sweep, Draw),
}


def known_keys(section: str | None) -> list[str]:
    """The keys of a section, or the top-level ones."""
    owners = tuple(ARMS.values()) if section == "arms" else SECTIONS.get(section or "")
    if owners is None:
        return list(Experiment.model_fields)
    names: list[str] = []
    for owner in owners:
        fields = getattr(owner, "model_fields", None)
        if fields is not None:
            names += [f.alias or n for n, f in fields.items()]
        else:
            names += [field.name for field in dataclasses.fields(owner)]
    return names


UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
KINDS = ("model", "server", "endpoint", "file")


def _first_problem(error: ValidationError) -> tuple[str, str, str, str]:
    """One line about the first thing pydantic found."""
    problems = error.errors(include_url=False)
    # a misspelt key and the one that is missing for it: the first says more
    problem = next((p for p in problems if p["type"] in UNKNOWN_KEY), problems[0])
    whole = problem["loc"]
    is_tagged = whole[:1] == ("teachers",) and len(whole) > 2  # by the kind, which stands in no file
    loc = [str(part) for k, part in enumerate(whole) if not (is_tagged and k == 2 and part in KINDS)]
    where = ".".join(loc) or "the experiment"
    if problem["type"] in UNKNOWN_KEY:
        names = known_keys(loc[0] if len(loc) > 1 else None)
        if loc[-1] in names:  # such as that of an arm of another kind
            return f"unknown key {where}", "", "", f"it belongs to another kind, or elsewhere in {loc[0]}"
        near = difflib.get_close_matches(loc[-1], names, n=1, cutoff=0.5)
        return (
            f"unknown key {where}",
            "",
            "",
            f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names)}",
        )
    got = (
        ""
        if isinstance(problem["input"], dict | list) or problem["type"] == "missing"
        else repr(problem["input"])[:200]
    )
    if loc[-1:] == ["base_url"] and isinstance(problem["input"], str):
        got = repr(shown(problem["input"]))
    if problem["type"] == "missing":
        return f"{where} is missing", "", "a value", ""
    if problem["type"] == "value_error":
        told = problem["msg"].removeprefix("Value error, ")
        return (f"{where}: {told}" if whole else told), got, "", ""
    return f"{where} does not fit", got, problem["msg"], ""


EXPERIMENT = TypeAdapter(Experiment)


def resolved(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values, every default filled in; reads back to the same experiment."""
    return EXPERIMENT.dump_python(experiment, mode="json", by_alias=True)  # type: ignore[no-any-return]
