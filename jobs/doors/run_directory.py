"""A run's own directory. It belongs to the experiment that created it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from cluster.destinations import check_out_folder
from cluster.errors import BadInput
from cluster.storage import Place, local_copy
from jobs.experiment.parsing import parse_experiment, read_tree, resolved
from jobs.experiment.schema import Experiment

SAVED = "experiment.yaml"


def claim_run_directory(experiment: Experiment, suffix: str = "") -> Place:
    """Create the run's directory, or use it again if the same experiment created it.

    Raises:
        BadInput: another experiment created it, or it cannot be written to.
    """
    directory = Place(experiment.runs) / f"{experiment.name}{suffix}"
    if directory.is_local:
        check_out_folder(directory.path, option="runs")
    saved = directory / SAVED
    mine = resolved(experiment)
    if saved.is_file():
        remedy = f"remove it and run again; the store keeps all finished work: {saved}"
        theirs = _with_defaults(read_tree(local_copy(str(saved)), "experiment", remedy))
        free = ("ray", "placement", "store", "runs", "keep", *(() if suffix else ("sweep",)))
        different = [k for k in mine if k not in free and theirs.get(k) != mine[k]]
        if different:
            raise BadInput(
                f"{directory} was made by a different experiment",
                f"other values under {', '.join(different)}",
                "the same experiment",
                "give this one another name (name=NEW), or remove that directory; the store "
                "keeps all finished work",
            )
    elif directory.glob("*"):
        raise BadInput(
            f"{directory} is not empty and no run made it",
            "",
            "a new or a run's directory",
            "give another name (name=NEW)",
        )
    saved.write_bytes(yaml.safe_dump(mine, sort_keys=False, allow_unicode=True).encode())
    return directory


@contextmanager
def given_back_if_refused(directory: Place) -> Iterator[None]:
    """Free a run's name again if the run is refused before anything was made, such as for a wrong name in its
    file: the corrected file is another experiment, and may take the name.
    """
    try:
        yield
    except BadInput:
        if [place.name for place in directory.glob("*")] == [SAVED]:
            (directory / SAVED).unlink()
        raise


def _with_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    """A saved experiment as this version reads it: settings that it lacks get their defaults."""
    try:
        return resolved(parse_experiment(tree))
    except BadInput:  # saved by a version with other settings: compare them as written
        return tree
