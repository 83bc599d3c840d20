"""Why existing rows cannot be used. A plan prints it if a table does not exist, or if its rows are not good
enough.
"""

import json
from collections.abc import Mapping
from typing import Any

from cluster.storage import Place
from jobs.run.records import record_or_nothing
from jobs.run.tables import OWNER, TABLES, Owner
from jobs.run.views import View

# Directories of older stores, whose rows belonged to lists instead of owners.
OLDER_LAYOUT = ("generate", "verify", "score")


def mismatch_of(view: View) -> str:
    """A line for a plan: how many rows of the table cannot be used, and why. If there is no table, how its
    owner differs from the most similar one. Empty if there is nothing to say.
    """
    if (view.table.directory / OWNER).is_file():
        unfit = view.unfit()
        return f"{unfit:,} existing rows cannot be used: they {view.wanted.unfit}" if unfit else ""
    return _unlike_the_nearest(view.table.root, view.table.owner)


def older_layout(root: Place) -> str:
    """One line about stages of an older layout in a store. Empty if there are none."""
    found = [name for name in OLDER_LAYOUT if (root / name).exists()]
    if not found:
        return ""
    return f"the store also holds {', '.join(found)} of an older layout: not migrated, and not used"


def _unlike_the_nearest(root: Place, owner: Owner) -> str:
    """How an owner differs from the most similar owner of the same name that has rows."""
    mine = _plain({"version of the rows": owner.version, **owner.about})
    if owner.about.get("trained"):
        return ""  # a student's weights change with each training, so this needs no explanation
    others = (_words(place / OWNER) for place in (root / TABLES / owner.kind).glob("*"))
    ways = [_unlike(mine, theirs) for theirs in others if theirs and theirs.get("name") == mine.get("name")]
    nearest: list[str] = min(ways, key=len, default=[])
    return ", ".join(nearest)


def _unlike(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    names = [n for n in sorted(mine.keys() | theirs.keys()) if mine.get(n) != theirs.get(n)]
    return [f"{n} was {_told(theirs, n)}, is {_told(mine, n)}" for n in names]


def _told(words: Mapping[str, Any], name: str) -> str:
    return str(words[name])[:60] if name in words else "not given"


def _words(place: Place) -> dict[str, Any]:
    content = record_or_nothing(place)
    about = content.get("about")
    return {"version of the rows": content.get("version"), **about} if isinstance(about, dict) else {}


def _plain(words: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the form in which JSON gives them back."""
    return dict(json.loads(json.dumps(dict(words), default=str)))
