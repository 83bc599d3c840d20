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
FREE = ("ray", "placement", "store", "runs", "keep")
# What says where a model is and how fast it is asked, and is in no row's identity.
FREE_OF_MODELS = (
    *("replicas", "num_cpus", "num_gpus", "memory_gib", "labels", "start_timeout_s", "timeout_s"),
    *("base_url", "api_key_env", "concurrency", "requests_per_minute", "max_retries", "budget_usd"),
    *("usd_per_million_input_tokens", "usd_per_million_output_tokens"),
)
MODELS = ("teachers", "students", "judge")


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
        free = (*FREE, *(() if suffix else ("sweep",)))
        different = [k for k in mine if k not in free and fixed(k, theirs.get(k)) != fixed(k, mine[k])]
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


def fixed(section: str, value: Any) -> Any:
    """A section without the settings that may change while a run goes on."""
    if isinstance(value, list):
        return [fixed(section, one) for one in value]
    if not isinstance(value, dict):
        return value
    dropped = FREE_OF_MODELS if section in MODELS else ("shard_size",)
    return {k: fixed(section, v) for k, v in value.items() if k not in dropped}


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
