"""`tutelage quickstart`: the demo, from the experiment that comes with the package."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.doors.options import Limit, Overrides, Seed
from jobs.doors.run import run_file

QUICKSTART = Path(__file__).parents[1] / "miniature" / "quickstart.yaml"


def quickstart(
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = None,
    show: Annotated[bool, typer.Option("--show", help="Only print the experiment file.")] = False,
) -> None:
    """Run the demo: small models that are made here, in minutes. The store and the report lie in the current
    folder, under store/ and runs/quickstart/.
    """
    if show:
        print(QUICKSTART.read_text(encoding="utf-8"), end="")
        return
    run_file(QUICKSTART, overrides, limit, seed)
