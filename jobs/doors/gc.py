"""`tutelage gc`: finds what no registered run needs in a store, and removes it."""

from collections import Counter
from typing import Annotated

import typer

from cluster.storage import Place
from jobs.run.garbage import Garbage, find_garbage, remove_garbage
from jobs.run.progress import Terminal
from jobs.run.store import Store


def gc(
    store: Annotated[str, typer.Argument(metavar="STORE", help="The store: a directory or a URI.")] = "store",
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
    days: Annotated[float, typer.Option(help="Spare what was written to within so many days.")] = 7.0,
    forget: Annotated[
        list[str] | None,
        typer.Option(help="Directory of a run that is to count no longer; may be given several times."),
    ] = None,
) -> None:
    """List what no registered run needs in a store. With --delete, remove it."""
    root, terminal = Store(store).root, Terminal()
    forgotten = {str(Place(directory)) for directory in forget or []}
    found = find_garbage(root, days, forgotten)
    for line in lines_of(root, found, days, forgotten):
        terminal.say(line)
    if delete:
        removed = remove_garbage(root, found.items, forgotten)
        left = len(found.items) - len(removed)
        terminal.say(
            f"removed {len(removed):,} things, {_size(sum(i.size for i in removed))}"
            + (f"; {left} are held or needed by now, and stay" if left else "")
        )
    elif found.items:
        terminal.say("nothing was removed; with --delete this is")


def lines_of(root: Place, found: Garbage, days: float, forgotten: set[str]) -> list[str]:
    """The lines that the command prints about what it found."""
    known = [directory for directory in found.runs if directory not in forgotten]
    lines = [f"{root}: {len(known)} runs are registered" + ("" if known else ": nothing is needed")]
    lines += [
        f"  {directory} cannot be seen from here; if it is gone: --forget {directory}"
        for directory in known
        if not Place(directory).exists()
    ]
    counts, sizes = Counter(i.kind for i in found.items), Counter[str]()
    for item in found.items:
        sizes[item.kind] += item.size
    lines += [f"  {kind:<16} {n:>8,}  {_size(sizes[kind]):>12}" for kind, n in sorted(counts.items())]
    lines.append(f"{len(found.items):,} things are named by no run: {_size(sum(sizes.values()))}")
    if found.spared:
        lines.append(f"{len(found.spared):,} more are spared, since they are younger than {days:g} days")
    if found.undated:
        lines.append(
            f"{len(found.undated):,} more are spared, since they are dated in the future; "
            "if a clock was wrong: --days 0"
        )
    return lines


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.1f} {unit}" if unit != "B" else f"{count:,.0f} B"
        count /= 1024
    raise AssertionError
