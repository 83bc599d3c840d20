"""Where Python looks for modules while a command runs: never first among somebody's own files.

Python begins its search in the folder of the script that it runs, or with -m and -c in the current one, and
so do all Python processes that are started from there. A file in it that is called `random.py` or
`training.py` would be imported instead of the library's or ours. Only Python's own library is imported here,
since this has to come before everything else.
"""

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGES = ("cluster", "selection", "training", "jobs")
OURS = Path(__file__).resolve().parents[1]  # the folder that holds them


def protect_search_path() -> None:
    """Take the current folder and the script's off the front of the search path, here and in every Python
    process that is started from here. What a .pth file names, behind the installed packages, stays.

    `PYTHONPATH=/x:` means the current folder too, mostly by mistake.

    Raises:
        SystemExit: there is no current folder.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise SystemExit("tutelage: the current folder does not exist any more; go to another one") from None
    unwanted = {os.path.realpath(os.curdir), os.path.realpath(os.path.dirname(sys.argv[0]))}
    library = os.path.realpath(os.path.dirname(os.__file__))
    found = [os.path.realpath(folder) for folder in sys.path]
    front = found.index(library) if library in found else 0
    sys.path[:] = [p for k, p in enumerate(sys.path) if k >= front or found[k] not in unwanted]
    if str(OURS) not in (os.path.realpath(folder) for folder in sys.path):  # run from a clone, not installed
        sys.path.append(str(OURS))
    os.environ["PYTHONSAFEPATH"] = "1"
    given = os.environ.get("PYTHONPATH")
    if given is not None:
        kept = [p for p in given.split(os.pathsep) if p and os.path.realpath(p) not in unwanted]
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
        if not kept:
            del os.environ["PYTHONPATH"]


def find_strangers(named: str) -> list[str]:
    """A line for each package of ours that Python would take from elsewhere: an entry of PYTHONPATH, or
    another distribution that brings a package of the same name.

    Args:
        named: PYTHONPATH, without the current folder.
    """
    folders, lines = [folder for folder in named.split(os.pathsep) if folder], []
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, [*folders, *sys.path])
        origin = spec.origin or next(iter(spec.submodule_search_locations or ()), None) if spec else None
        if origin is None or Path(origin).resolve().is_relative_to(OURS / name):
            continue
        lines.append(
            f"Python takes the package `{name}` from {os.path.realpath(origin)}; expected tutelage's own, "
            f"{OURS / name}; take that folder out of PYTHONPATH, or uninstall what brought it, or rename it"
        )
    return lines
