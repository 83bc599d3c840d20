"""A user's own modules, such as the one of `function: module:name`. They are found beside the experiment or
in the folder where the command was started. They never replace a library's module.

These folders are searched only for such a module. It is loaded from its file under a private name, so it may
have any name, `selection.py` or `statistics.py` too. Its own imports come from the libraries first, then from
its folder.
"""

import ast
import hashlib
import importlib
import inspect
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

FOLDERS = "TUTELAGE_OWN_MODULES"  # a JSON list, in the environment of every process of a run
SOURCES = "TUTELAGE_SOURCES"  # JSON: digests of checks as a finished run recorded them, while it is read
_stamps: dict[tuple[str, ...], tuple[int, int] | None] = {}  # of the modules that are loaded
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


def source_of(path: str, function: Callable[..., object]) -> str:
    """A digest of the code behind a user's function: the file of the module that is named, the file that the
    function comes from, and all files in the user's own folders that these import, wherever they do so.
    Libraries, and data that the code reads, are not part of it. Empty if there is no file.

    Args:
        path: `module:name`.
        function: what the name stands for.
    """
    if (recorded := json.loads(os.environ.get(SOURCES, "{}")).get(path)) is not None:
        return str(recorded)
    own = inspect.unwrap(getattr(function, "func", function))  # functools.partial
    named = getattr(own, "__module__", None) or type(own).__module__
    firsts = [_own_file(path.partition(":")[0].split("."))]
    firsts += [_file(sys.modules.get(name)) for name in (path.partition(":")[0], named, type(own).__module__)]
    files, left = dict[Path, bytes](), [file for file in firsts if file is not None and file.suffix == ".py"]
    if any(_is_own(file) for file in left):
        left = [file for file in left if _is_own(file)]
    while left:
        file = left.pop()
        if file in files or not file.is_file():
            continue
        files[file] = file.read_bytes()
        if _is_own(file):
            left += [other for other in imported_by(file, files[file]) if _is_own(other)]
    by_name = sorted((file.name, content) for file, content in files.items())
    digests = [hashlib.sha256(content).hexdigest() for _, content in by_name]
    if len(digests) < 2:
        return "".join(digests)  # a single file has the digest that it always had
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def stamp_of(parts: Sequence[str]) -> tuple[int, int] | None:
    """When the file of a user's module was written, and its size. None if there is no such file."""
    file = _own_file(parts)
    return None if file is None else (file.stat().st_mtime_ns, file.stat().st_size)


def _file(module: ModuleType | None) -> Path | None:
    found = getattr(module, "__file__", None)
    return None if found is None else Path(found).resolve()


def _own_file(parts: Sequence[str]) -> Path | None:
    """The file of a user's module. None if the name is an installed one's."""
    places = (folder.joinpath(*parts) for folder in own_folders() if all(parts))
    found = next((file for place in places if (file := _file_of(place)) is not None), None)
    return None if found is None else found.resolve()


def imported_by(file: Path, content: bytes) -> Iterator[Path]:
    """The files beside a file, or in the user's own folders, that its imports may name: modules, and the
    packages on the way to them. A text that is no Python imports nothing.
    """
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names, level = [alias.name for alias in node.names], 0
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            names, level = [".".join([*base, alias.name]) for alias in node.names], node.level
        else:
            continue
        roots = [file.parents[level - 1]] if level else [file.parent, *own_folders()]
        for root in roots:
            for name in names:
                parts = name.split(".")
                found = (_file_of(root.joinpath(*parts[: k + 1])) for k in range(len(parts)))
                yield from (one.resolve() for one in (*found, _file_of(root / "__init__")) if one is not None)


def _is_own(file: Path) -> bool:
    """Whether a file is in one of the user's own folders, and is none of an environment within."""
    inside = any(file.is_relative_to(folder.resolve()) for folder in own_folders())
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
    own = stamp_of(parts)
    if private not in sys.modules or _stamps.get((private, *parts)) not in (None, own):
        for name in [n for n in sys.modules if n == private or n.startswith(private + ".")]:
            del sys.modules[name]  # a notebook's user has edited it
        _load(private, top, is_package=len(parts) > 1)
    _stamps[(private, *parts)] = own
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
