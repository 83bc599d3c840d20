"""A run's directory belongs to the experiment that made it, also after a newer version has more settings."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cluster.errors import BadInput
from jobs.doors.run_directory import claim_run_directory
from jobs.experiment.parsing import load_experiment
from jobs.experiment.schema import Experiment


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    quick = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"
    return load_experiment(quick, [f"runs={tmp_path}"])


def rewritten(saved: Path, without: str = "", **changes: object) -> None:
    """Let a saved experiment be one of a version without a setting of `train`, or with other ones."""
    tree = yaml.safe_load(saved.read_text())
    if without:
        del tree["train"][without]
    saved.write_text(yaml.safe_dump(tree | changes))


@pytest.mark.parametrize("without", ["tokens", "lora", "gradient_checkpointing"])
def test_an_older_version_that_lacked_a_setting_made_the_same_experiment(
    experiment: Experiment, without: str
) -> None:
    saved = (claim_run_directory(experiment) / "experiment.yaml").path
    first = saved.read_text()
    rewritten(saved, without)
    claim_run_directory(experiment)
    assert saved.read_text() == first


def test_an_older_version_that_wrote_settings_nobody_could_change_made_the_same_experiment(
    experiment: Experiment,
) -> None:
    saved = (claim_run_directory(experiment) / "experiment.yaml").path
    first = saved.read_text()
    older = {"objective": "weighted_cross_entropy", "steered": None}
    rewritten(saved, train=yaml.safe_load(first)["train"] | older)
    claim_run_directory(experiment)
    assert saved.read_text() == first
    rewritten(saved, train=yaml.safe_load(first)["train"] | {"objective": "steered"})
    with pytest.raises(BadInput, match=r"made by a different experiment.*other values under train"):
        claim_run_directory(experiment)


def test_a_setting_it_lacked_and_that_is_not_usual_here_makes_another(experiment: Experiment) -> None:
    saved = (claim_run_directory(experiment) / "experiment.yaml").path
    rewritten(saved, "weight_decay")
    other = experiment.model_copy(update={"train": replace(experiment.train, weight_decay=0.5)})
    with pytest.raises(BadInput, match=r"made by a different experiment.*other values under train"):
        claim_run_directory(other)


def test_settings_that_this_version_does_not_know_are_another_experiment(experiment: Experiment) -> None:
    saved = (claim_run_directory(experiment) / "experiment.yaml").path
    rewritten(saved, seed=7, foresight=3)
    with pytest.raises(BadInput, match=r"made by a different experiment.*other values under seed"):
        claim_run_directory(experiment)
