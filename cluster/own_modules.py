"""A user's own modules, such as one with a `function: module:name`: found beside the experiment or in the
folder where the command was started, and never in place of a library's.

Those folders are searched for such a module alone. It is loaded by its file under a private name, so that it
may be called what it likes: `selection.py` or `statistics.py` too. What it imports itself comes from the
libraries first, then from its folder.
"""

import importlib
import json
import os
import sys
import zlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

FOLDERS = "TUTELAGE_OWN_MODULES"  # a JSON list, in the environment of every process of a run
SAFE_PATH = "PYTHONSAFEPATH"  # Python's own: nobody's current folder first in the search path


def keep_own_modules(folders: Sequence[Path]) -> None:
    """Say where the user's own modules lie, to this process and to all that are started from here."""
    os.environ[FOLDERS] = json.dumps(list(dict.fromkeys(str(folder) for folder in folders)))


def inherited() -> dict[str, str]:
    """What processes on other machines have to be told of this."""
    return {SAFE_PATH: "1", FOLDERS: json.dumps([str(folder) for folder in own_folders()])}


def own_folders() -> list[Path]:
    """Where the user's own modules may lie: the current folder where nothing else was said."""
    given = os.environ.get(FOLDERS)
    if given is None:
        return [Path.cwd()]
    # a submitted job's processes elsewhere begin in their own node's copy of what was sent
    return [folder if folder.is_dir() else Path.cwd() / folder.name for folder in _read(given)]


@lru_cache(maxsize=8)
def _read(given: str) -> tuple[Path, ...]:
    return tuple(Path(folder) for folder in json.loads(given))


def import_module(name: str) -> ModuleType:
    """Import a module by its dotted name: the user's own, or an installed one where they have none of this
    name.

    Raises:
        whatever it raises while it is imported; ImportError where there is none.
    """
    parts = name.split(".")
    for folder in own_folders():
        if all(parts) and _file_of(folder.joinpath(*parts)) is not None:
            return _import_own(folder, parts)
    return importlib.import_module(name)


def _file_of(place: Path) -> Path | None:
    """The file of the module or the package at a place; None where there is neither."""
    files = (place / "__init__.py", place.with_name(place.name + ".py"))
    return next((file for file in files if file.is_file()), None)


def _import_own(folder: Path, parts: Sequence[str]) -> ModuleType:
    """Import `folder/parts...` under a private name, with its siblings behind the libraries."""
    top = folder / parts[0]
    private = f"_own_{parts[0]}_{zlib.crc32(str(top).encode()):08x}"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if private not in sys.modules:
        _load(private, top, is_package=len(parts) > 1)
    return importlib.import_module(".".join([private, *parts[1:]]))


def _load(private: str, top: Path, is_package: bool) -> None:
    """Load a module, or a package with or without a file of its own, by its place."""
    file = top / "__init__.py" if is_package else _file_of(top)
    if file is None or not file.is_file():
        package = ModuleType(private)
        package.__path__ = [str(top)]
        sys.modules[private] = package
        return
    within = [str(top)] if file.name == "__init__.py" else None
    spec = spec_from_file_location(private, file, submodule_search_locations=within)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = sys.modules[private] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[private]
        raise
