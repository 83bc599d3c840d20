"""Our packages have plain names, and a user's folder may hold a `selection.py` or a `training/` of its own.

Python searches the current folder first in a notebook, in `python -c` and at the prompt, and the script's
folder first in a script. So `import tutelage` and the processes that it starts take our packages by their
place, before anybody's search finds others. This file is run by its place too, so it imports Python's own
library alone.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGES = ("cluster", "selection", "training", "jobs")
OURS = Path(__file__).resolve().parents[1]  # the folder that holds them


def claim_packages() -> list[str]:
    """Import our packages from the folder that holds them.

    Returns:
        A line for each file or folder of somebody else's that can no longer be imported by its name.

    Raises:
        ImportError: another module of such a name was imported before.
    """
    hidden = []
    for name in PACKAGES:
        own, known = OURS / name, sys.modules.get(name)
        if known is not None:
            _refuse_other(name, known)
            continue
        origin = origin_of(PathFinder.find_spec(name))
        if origin and not Path(origin).resolve().is_relative_to(own):
            hidden.append(
                f"`import {name}` now gives tutelage's package, not {os.path.realpath(origin)}; "
                "rename yours to import it beside tutelage"
            )
        _load(name, own)
    return hidden


def origin_of(spec: ModuleSpec | None) -> str | None:
    """The file of a module, or the folder of a package without one; None where there is none."""
    return (spec.origin or next(iter(spec.submodule_search_locations or ()), None)) if spec else None


def _refuse_other(name: str, known: ModuleType) -> None:
    origin = origin_of(known.__spec__)
    if origin is None or not Path(origin).resolve().is_relative_to(OURS / name):
        raise ImportError(
            f"a module `{name}` was imported before tutelage, from {origin or 'no file'}; expected "
            f"tutelage's own, {OURS / name}; rename yours, or do not import both in one process"
        )


def _load(name: str, folder: Path) -> None:
    """Import a package by its folder."""
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} cannot be imported")
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
