"""Packages that not everybody needs, and the extra of tutelage that brings each.

Scoring, choosing, verifying and auditing need none of them. Nothing here imports one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from cluster.errors import BadInput

EXTRAS = {
    "ray": "cluster",
    "httpx2": "cluster",
    "matplotlib": "cluster",
    "deepspeed": "train",
    "peft": "train",
    "datasets": "datasets",
}
OF_A_RUN = ("ray", "httpx2", "matplotlib")
OF_A_WORKER = ("deepspeed", "peft")  # where the work is done: with a cluster's address, not here


class MissingExtra(BadInput):
    """A package is not installed that an extra brings."""


def need(packages: tuple[str, ...]) -> None:
    """Refuse to begin without these packages.

    Raises:
        MissingExtra: with the command that installs all that are lacking.
    """
    lacking = [name for name in packages if not _is_installed(name)]
    if lacking:
        raise _missing(lacking)


def need_for_run(address: str | None) -> None:
    """Refuse to begin a run without what it needs on this machine.

    Args:
        address: of the Ray cluster that the run's workers are on; None for a Ray of this machine.

    Raises:
        MissingExtra: a package is not installed.
    """
    need(OF_A_RUN if address is not None else (*OF_A_RUN, *OF_A_WORKER))


@contextmanager
def extras_named() -> Iterator[None]:
    """Name the extra where the block fails because one of its packages is not installed.

    Raises:
        MissingExtra: instead of the ModuleNotFoundError of such a package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise
        raise _missing([name]) from error


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False


def _missing(names: list[str]) -> MissingExtra:
    extras = ",".join(dict.fromkeys(EXTRAS[name] for name in names))
    is_one = len(names) == 1
    return MissingExtra(
        f"{', '.join(names)} {'is' if is_one else 'are'} not installed",
        "",
        "what this command needs" if is_one else "all that this command needs",
        f"pip install 'tutelage[{extras}]'",
    )
