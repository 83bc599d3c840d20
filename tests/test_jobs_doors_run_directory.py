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


ENDPOINT = {"kind": "endpoint", "name": "big", "base_url": "http://127.0.0.1:8000/v1", "model": "big"}


@pytest.mark.parametrize(
    ("about", "is_same"),
    [
        ({"concurrency": 4, "timeout_s": 60.0, "max_retries": 1}, True),
        ({"base_url": "http://10.0.0.7:9000/v1", "api_key_env": "OTHER_KEY"}, True),
        ({"usd_per_million_input_tokens": 1.0, "budget_usd": 5.0}, True),
        ({"model": "bigger"}, False),
        ({"extra_body": {"reasoning_effort": "low"}}, False),
    ],
)
def test_where_and_how_fast_a_teacher_is_asked_may_change_while_a_run_goes_on(
    tmp_path: Path, about: dict[str, object], is_same: bool
) -> None:
    quick = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"
    tree = yaml.safe_load(quick.read_text())
    for name, teachers in (("before", [ENDPOINT]), ("now", [ENDPOINT | about])):
        given = tree | {"teachers": teachers, "runs": str(tmp_path / "runs")}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(given))
    claim_run_directory(load_experiment(tmp_path / "before.yaml", []))
    later = load_experiment(tmp_path / "now.yaml", ["score.shard_size=7", "placement.score_workers=3"])
    if is_same:
        saved = claim_run_directory(later) / "experiment.yaml"
        assert yaml.safe_load(saved.path.read_text())["teachers"][0] == later.teachers[0].model_dump()
        return
    with pytest.raises(BadInput, match=r"made by a different experiment.*other values under teachers;"):
        claim_run_directory(later)


def test_a_check_s_time_limit_is_no_setting_of_speed(experiment: Experiment, tmp_path: Path) -> None:
    """It decides verdicts."""
    claim_run_directory(experiment)
    other = experiment.model_copy(update={"verify": replace(experiment.verify, timeout_s=1.0)})
    with pytest.raises(BadInput, match="other values under verify"):
        claim_run_directory(other)
