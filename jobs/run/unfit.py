"""Why rows that look as if they could serve do not: what a plan tells of a table that is not there, or of
rows that are not good enough.
"""

import json
from collections.abc import Mapping
from typing import Any

from cluster.storage import Place
from jobs.run.records import record_or_nothing
from jobs.run.tables import OWNER, TABLES, Owner
from jobs.run.views import View

# Directories of a store whose rows belonged to lists instead of owners.
OLDER_LAYOUT = ("generate", "verify", "score")


def why_unfit(view: View) -> str:
    """What is there for a view and cannot be used, and why; empty where there is nothing of that kind."""
    if (view.table.directory / OWNER).is_file():
        unfit = view.unfit()
        return f"{unfit:,} of them {view.wanted.unfit}" if unfit else ""
    return _unlike_the_nearest(view.table.root, view.table.owner)


def older_layout(root: Place) -> str:
    """One line about stages of an older layout in a store; empty where there are none."""
    found = [name for name in OLDER_LAYOUT if (root / name).exists()]
    if not found:
        return ""
    return f"the store also holds {', '.join(found)} of an older layout: not migrated, and not used"


def _unlike_the_nearest(root: Place, owner: Owner) -> str:
    """How an owner differs from the one of the same name that is most like it and has rows."""
    mine = _plain({"version of the rows": owner.version, **owner.about})
    if owner.about.get("trained"):
        return ""  # nobody wonders that a student's weights are others after each training
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
    """As they are read back."""
    return dict(json.loads(json.dumps(dict(words), default=str)))
