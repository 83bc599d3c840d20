"""A user's own modules, such as the one of `function: module:name`. They are found beside the experiment or
in the folder where the command was started. They never replace a library's module.

These folders are searched only for such a module. It is loaded from its file under a private name, so it may
have any name, `selection.py` or `statistics.py` too. Its own imports come from the libraries first, then from
its folder.
"""

import hashlib
import importlib
import inspect
import json
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

FOLDERS = "TUTELAGE_OWN_MODULES"  # a JSON list, in the environment of every process of a run
SAFE_PATH = "PYTHONSAFEPATH"  # Python's own variable: keeps the current folder out of the search path


def keep_own_modules(folders: Sequence[Path]) -> None:
    """Set where the user's own modules are, for this process and all that it starts."""
    os.environ[FOLDERS] = json.dumps(list(dict.fromkeys(str(folder) for folder in folders)))


def inherited() -> dict[str, str]:
    """The environment that processes on other machines need for this."""
    return {SAFE_PATH: "1", FOLDERS: json.dumps([str(folder) for folder in own_folders()])}


def own_folders() -> list[Path]:
    """The folders of the user's own modules. By default the current folder."""
    given = os.environ.get(FOLDERS)
    if given is None:
        return [Path.cwd()]
    # on other nodes a submitted job's processes start in that node's copy of the sent folder
    return [folder if folder.is_dir() else Path.cwd() / folder.name for folder in _read(given)]


@lru_cache(maxsize=8)
def _read(given: str) -> tuple[Path, ...]:
    return tuple(Path(folder) for folder in json.loads(given))


def source_of(function: Callable[..., object]) -> str:
    """A digest of the code behind a user's function: the file of its module, and of all modules in the user's
    own folders that this one uses. Libraries are not part of it. Empty if there is no file.
    """
    own = inspect.unwrap(getattr(function, "func", function))  # functools.partial
    name = getattr(own, "__module__", None) or type(own).__module__
    first = sys.modules.get(name)
    files, left = dict[str, bytes](), [first] if first is not None else []
    while left:
        module = left.pop()
        path = getattr(module, "__file__", None)
        if path is None or path in files or not (module is first or _is_own(Path(path))):
            continue
        files[path] = Path(path).read_bytes()
        for value in list(vars(module).values()):
            named = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            other = sys.modules.get(named) if isinstance(named, str) else None
            if other is None and isinstance(value, ModuleType):
                other = value
            left += [other] if other is not None else []
    by_name = sorted((Path(path).name, content) for path, content in files.items())
    digests = [hashlib.sha256(content).hexdigest() for _, content in by_name]
    if len(digests) < 2:
        return "".join(digests)  # a single file has the digest that it always had
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _is_own(file: Path) -> bool:
    """Whether a file is in one of the user's own folders, and is none of an environment within."""
    inside = any(file.is_relative_to(folder) for folder in own_folders())
    return inside and "site-packages" not in file.parts and not file.is_relative_to(sys.prefix)


def import_module(name: str) -> ModuleType:
    """Import a module by its dotted name: the user's own, otherwise an installed one.

    Raises:
        ImportError if there is no such module; otherwise what the module raises while it is imported.
    """
    parts = name.split(".")
    for folder in own_folders():
        if all(parts) and _file_of(folder.joinpath(*parts)) is not None:
            return _import_own(folder, parts)
    return importlib.import_module(name)


def _file_of(place: Path) -> Path | None:
    """The file of the module or package at a place. None if there is neither."""
    files = (place / "__init__.py", place.with_name(place.name + ".py"))
    return next((file for file in files if file.is_file()), None)


def _import_own(folder: Path, parts: Sequence[str]) -> ModuleType:
    """Import `folder/parts...` under a private name. Modules beside it are found after the libraries."""
    top = folder / parts[0]
    private = f"_own_{parts[0]}_{zlib.crc32(str(top).encode()):08x}"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if private not in sys.modules:
        _load(private, top, is_package=len(parts) > 1)
    return importlib.import_module(".".join([private, *parts[1:]]))


def _load(private: str, top: Path, is_package: bool) -> None:
    """Load a module, or a package with or without `__init__.py`, from its place."""
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
