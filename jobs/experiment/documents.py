"""YAML documents as plain values, whatever somebody wrote into them.

YAML is a graph, and its reader builds what it says: a list that holds itself, nine lines that stand for a
billion values, one key twice of which the last counts. None of that is an experiment, so it is refused.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import BadInput

MOST_VALUES = 100_000  # of a document, those that an alias repeats counted each time
MOST_BYTES = 10_000_000
# what YAML 1.1 reads as another number than people mean: 010 is 8, 1:30 is 90
ODD_NUMBER = re.compile(r"[-+]?(?:0[0-7_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path, what: str, remedy: str) -> str:
    """The text of a file that somebody wrote, in UTF-8, with or without a mark of it.

    Args:
        what: it should be, for people.

    Raises:
        BadInput: nothing there, too much, or no such text.
    """
    try:
        if not path.is_file():
            raise BadInput(f"no {what} file there", path, "a YAML file", remedy)
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"{path} holds no {what}", f"{path.stat().st_size:,} bytes", "a YAML file", remedy)
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{what} cannot be read", path, "a YAML file", str(error.strerror)) from error
    if content.startswith(UTF_16):
        raise BadInput(f"{path} is not YAML in UTF-8", "UTF-16", "UTF-8", "save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not YAML in UTF-8", str(error), "text", "save it as UTF-8") from error


def plain_values(text: str, where: str, remedy: str) -> Any:
    """What a YAML text says.

    Raises:
        BadInput: it is no YAML, nested too deep, refers to itself, repeats too much, or has a key twice.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return None
        _count(root, where, {}, set())
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise BadInput(f"{where} is nested too deep", "", "sections and lists", remedy) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # of a number or a date that is none
        told = " ".join(str(error).split())[:300]
        raise BadInput(f"{where} is not YAML", told, "", remedy) from error


def _count(node: Any, where: str, known: dict[int, int], above: set[int]) -> int:
    """How many values a node stands for.

    Args:
        known: of nodes that have been counted, by identity.
        above: the nodes that this one is inside of.

    Raises:
        BadInput: more than anybody writes, a node inside of itself, or a key twice.
    """
    if id(node) in above:
        line = node.start_mark.line + 1
        raise BadInput(f"{where} refers to itself", f"line {line}", "values", "write them out")
    if id(node) not in known:
        above.add(id(node))
        if isinstance(node, yaml.ScalarNode) and ODD_NUMBER.fullmatch(node.value) and not node.style:
            refuse_odd_number(node, where)
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(node, where)
            inner = [child for pair in node.value for child in pair]
        else:
            inner = node.value if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_count(child, where, known, above) for child in inner)
        above.discard(id(node))
    if known[id(node)] > MOST_VALUES:
        got = f"more than {MOST_VALUES:,} values"
        raise BadInput(f"{where} holds too much", got, "an experiment's", "look at its aliases")
    return known[id(node)]


def refuse_odd_number(node: yaml.ScalarNode, where: str) -> None:
    """Refuse a number in YAML's octal or sexagesimal form.

    Raises:
        BadInput: with the number and its line.
    """
    if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
        line, meant = node.start_mark.line + 1, yaml.safe_load(node.value)
        raise BadInput(
            f"{where} has a number in an odd form",
            f"{node.value} in line {line}, which YAML reads as {meant}",
            "a plain number",
            "write it out, or in quotes if it is a text",
        )


def _refuse_twice(node: yaml.MappingNode, where: str) -> None:
    """Refuse a key that is there twice: only the last would count.

    Raises:
        BadInput: with the key and its line.
    """
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if (key.tag, key.value) in seen:
            line = key.start_mark.line + 1
            raise BadInput(
                f"{where} has a key twice", f"{key.value} in line {line}", "each once", "remove one"
            )
        seen.add((key.tag, key.value))
