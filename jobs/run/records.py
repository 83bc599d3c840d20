"""Records: the JSON objects that a store keeps beside its rows. Each is written in one piece. So if a record
is empty, cut off or no object, the disk failed or somebody changed it.
"""

import json
from typing import Any

from cluster.storage import Place


class Damaged(ValueError):
    """A record exists and cannot be read."""


def read_record(place: Place) -> dict[str, Any]:
    """Read a record.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is no JSON object.
    """
    if place.is_local and place.path.is_dir():
        raise Damaged("a directory, not a file")
    try:
        content = json.loads(place.read_text())
    except RecursionError as error:
        raise Damaged("nested too deep") from error
    except ValueError as error:
        raise Damaged(str(error)[:120]) from error
    if not isinstance(content, dict):
        raise Damaged(f"{type(content).__name__}, not an object")
    return content


def record_or_nothing(place: Place) -> dict[str, Any]:
    """Read a record. Empty if there is none, or if it cannot be read."""
    try:
        return read_record(place)
    except (FileNotFoundError, Damaged):
        return {}


def read_parts(place: Place) -> dict[str, Any]:
    """Read a record that names parts, such as a manifest or a view.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it cannot be read, or names no parts.
    """
    record = read_record(place)
    parts = record.get("parts")
    if not isinstance(parts, dict) or not all(isinstance(about, dict) for about in parts.values()):
        raise Damaged("no parts in it")
    return record


def take_away(place: Place) -> None:
    """Remove a record, or a folder that has its name."""
    if place.is_local and place.path.is_dir():
        place.remove()
    else:
        place.unlink()


def is_torn(place: Place) -> bool:
    """Whether a record of parts exists and cannot be read."""
    try:
        read_parts(place)
    except FileNotFoundError:
        return False
    except Damaged:
        return True
    return False
