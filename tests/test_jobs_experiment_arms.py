"""Arms over own rollouts: what is published, what is read, and what is written down and read again."""

import json
from typing import Any

import pytest

from cluster.errors import BadInput
from jobs.experiment.arms.ogls_sd import TARGETS, OglsArm
from jobs.experiment.parsing import parse_experiment, resolved
from tests.own_rollouts import arms


@pytest.mark.parametrize(
    "about", [{}, {"top_k": None}, {"top_k": 7}, {"divergence": "sampled"}, {"clip": "none"}]
)
def test_an_experiment_that_was_written_down_is_the_same_experiment(
    own_world: dict[str, Any], about: dict[str, Any]
) -> None:
    every = [arm | about for arm in arms(*TARGETS) if arm["target"] not in ("gkd", "rejection_sampling")]
    e = parse_experiment(own_world | {"arms": [*every, *arms("rejection_sampling")]})
    again = parse_experiment(json.loads(json.dumps(resolved(e))))
    assert again == e
    assert [getattr(a, "steered", None) for a in again.arms] == [getattr(a, "steered", None) for a in e.arms]


def test_the_published_settings_of_sdpo_can_be_changed_one_by_one() -> None:
    def steered(**about: Any) -> Any:
        arm = OglsArm.model_validate({"kind": "ogls_sd", "name": "x", "target": "sdpo", **about}).steered
        assert arm is not None
        return arm.divergence

    assert (steered().divergence, steered().top_k, steered().clip) == ("jsd", 100, "none")
    assert steered(top_k=None).top_k is None
    assert steered(divergence="sampled").top_k is None


@pytest.mark.parametrize(
    ("target", "about", "said"),
    [
        ("lambda_zero", {"lambda": 1.0}, "reads no lambda; it is for ogls, shuffled, positive_only"),
        ("opsd_incorrect", {"ramp": 5}, "reads no ramp"),
        ("rejection_sampling", {"clip": "none"}, "reads no clip"),
        ("rejection_sampling", {"temperature": 2.0}, "reads no temperature"),
        ("sdpo", {"exclude_self": True}, "reads no exclude_self"),
        ("sdpo", {"honest": True}, "reads no honest"),
        ("opsd", {"tail_weight": 0.1}, "reads no tail_weight"),
        ("rejection_sampling", {"tail_tokens": 5}, "reads no tail_tokens"),
    ],
)
def test_a_setting_that_a_target_does_not_read_is_refused(
    own_world: dict[str, Any], target: str, about: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        parse_experiment(own_world | {"arms": [arms(target)[0] | about]})
