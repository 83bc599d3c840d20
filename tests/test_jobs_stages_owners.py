"""Whose rows are whose: ids that must not change by accident."""

from dataclasses import replace

import pytest

from cluster.models.loading import ModelSource
from cluster.placement import Needs
from jobs.experiment.stages import Score
from jobs.experiment.teachers import EndpointTeacher
from jobs.run.tables import Owner
from jobs.stages.ask import Hosted
from jobs.stages.ask import owner_of as asked_owner
from jobs.stages.hosted import Draw
from jobs.stages.score import owner_of as scored_owner
from jobs.stages.states import ModelState
from jobs.stages.verify import owner_of as checker
from selection.verification import VerifySettings


def a_state(**about: str) -> ModelState:
    source = ModelSource("somewhere", "float32")
    return ModelState("kid", source, "0" * 24, source, None, "1" * 64, about=about)


GREEDY, DRAWN = Draw(0.0, 1.0, 64, 7), Draw(0.7, 1.0, 64, 7)
FAR = EndpointTeacher(kind="endpoint", name="far", base_url="http://127.0.0.1:1", model="m", api_key_env="K")


@pytest.mark.parametrize(
    ("owner", "known"),
    [
        (asked_owner(Hosted(a_state(), 1, Needs()), GREEDY), "3424bb24dfd1d68e44f7f9c9"),
        (asked_owner(Hosted(a_state(), 1, Needs()), DRAWN), "14eabaab62e6b30e9ae9b327"),
        (asked_owner(FAR, GREEDY), "52edfa9a57c0f5a26efd802b"),
        (checker(VerifySettings()), "dafd26ce4f8cb8fe5dffaa32"),
        (checker(VerifySettings(method="exact", pattern="A:(.*)")), "c7b229fcd945797f28bd5131"),
        (scored_owner(a_state(), Score()), "b95ba1474c9ab7e833552a15"),
        (scored_owner(a_state(), Score(target_layer="x", max_length=128)), "75e3619b81151e361b1e0f17"),
    ],
)
def test_owners_are_the_ones_that_stores_of_today_know(owner: Owner, known: str) -> None:
    """Another id for the same identity makes every store useless: so a default is changed with its owner's
    version, and this test with both.
    """
    assert owner.id == known


def test_an_owner_does_not_hang_on_where_its_rows_are_made() -> None:
    here, there = (
        asked_owner(Hosted(replace(a_state(weights=path), name=path), replicas, Needs(cpus)), GREEDY)
        for path, replicas, cpus in (("a", 1, 1.0), ("b", 4, 2.0))
    )
    assert here.id == there.id
    moved = FAR.model_copy(update={"base_url": "http://elsewhere", "concurrency": 3})
    assert asked_owner(moved, GREEDY).id == asked_owner(FAR, replace(GREEDY, seed=8, limit=9)).id
    assert asked_owner(FAR, DRAWN).id != asked_owner(FAR, replace(DRAWN, seed=8)).id
