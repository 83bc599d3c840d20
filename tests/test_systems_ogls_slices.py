"""Own rollouts of a large round: in slices, which workers make and read."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs.experiment.parsing import parse_experiment
from jobs.plan import make_plan
from jobs.results.outcome import Outcome, StudentPath
from jobs.stages.answers import LOGPROBS
from tests.in_process import HostsHere
from tests.own_rollouts import arms
from tests.runs import open_here, run
from training.data import Example, Examples

TARGETS = ("ogls", "opsd", "positive_mean", "rejection_sampling")


def examples_of(outcome: Outcome, path: StudentPath) -> list[Example]:
    """The examples of the first round, sorted: their order in the file follows the slices."""
    stage = outcome.rounds[path, 1].examples
    assert stage is not None
    return sorted(Examples(stage.part("examples.arrow")), key=lambda e: (e.ids, e.loss_start))


def are_the_same(own: list[Example], expected: list[Example]) -> None:
    """Tokens, spans and weights are equal. The last digits of arrays depend on what was read beside them."""
    assert own == expected
    for one, other in zip(own, expected, strict=True):
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in one.arrays.items():
            np.testing.assert_allclose(array, other.arrays[name], rtol=1e-3, atol=1e-4)


@pytest.fixture
def checked(own_world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Own rollouts of an untrained student. All are cut off, so about half are called right here."""

    def half(answers: pd.DataFrame) -> list[str]:
        return ["right" if len(text) % 2 else "wrong" for text in answers["text"].tolist()]

    monkeypatch.setattr("jobs.stages.rollouts.states_of", half)
    return own_world | {"rounds": 1}


@pytest.mark.long
def test_a_round_in_slices_learns_from_what_a_round_in_one_piece_does(
    checked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = arms("ogls")[0] | {"name": "tail", "tail_weight": 0.1, "tail_tokens": 3}
    own = [*arms(*TARGETS), tail]
    _, expected = run(checked, tmp_path, arms=own)
    monkeypatch.setattr("jobs.stages.drawn.ROWS", 6)
    passed: list[bytes] = []
    call, result = HostsHere.call, HostsHere.result

    def called(self: HostsHere, host: Any, method: str, *arguments: Any) -> int:
        passed.append(pickle.dumps(arguments))
        return call(self, host, method, *arguments)

    def given(self: HostsHere, future: int) -> Any:
        value = result(self, future)
        passed.append(pickle.dumps(value))
        return value

    monkeypatch.setattr(HostsHere, "call", called)
    monkeypatch.setattr(HostsHere, "result", given)
    done, outcome = run(checked | {"store": str(tmp_path / "other")}, tmp_path, arms=own)
    slices = {label: stage for (kind, label), stage in done.stages.items() if kind == "rollouts"}
    parts = {len(stage.manifest()["parts"]) for stage in slices.values()}
    assert parts == {4}
    for path in expected.paths:
        before, after = expected.rounds[path, 1], outcome.rounds[path, 1]
        are_the_same(examples_of(outcome, path), examples_of(expected, path))
        ledgers = [own.ledger for own in (before, after) if own.ledger is not None]
        assert len(ledgers) == 2
        pd.testing.assert_series_equal(*(own.groupby("kind")["count"].sum() for own in ledgers))
        assert {k: v for k, v in after.figures.items() if "drawn" not in k} == pytest.approx(
            {k: v for k, v in before.figures.items() if "drawn" not in k}, nan_ok=True
        )
    # the driver and its workers tell each other of ids and states, and never of a rollout's text or tokens
    tables = (tmp_path / "other" / "tables" / "answers").rglob("*.parquet")
    rolled = [own for own in map(pd.read_parquet, tables) if LOGPROBS in own]
    texts = [text for own in rolled for text in own["text"] if len(text) > 8]
    assert len(texts) >= 20
    assert passed
    for text in texts:
        assert not any(text.encode() in one for one in passed), text
    # the same work is found again, also by a plan; and a plan of nothing yet does not fail
    tree = checked | {"store": str(tmp_path / "other"), "arms": own}
    again, _ = run(tree, tmp_path)
    assert again.cached == len(again.stages)
    with open_here(tree, tmp_path, mode="plan") as planned:
        rows = make_plan(planned, parse_experiment(tree))
    assert [row for row in rows if row.remaining] == []
    with open_here(tree | {"store": str(tmp_path / "nothing")}, tmp_path, mode="plan") as planned:
        assert any("rollouts" in row.remaining for row in make_plan(planned, parse_experiment(tree)))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_workers_on_ray_write_the_same_examples(
    own_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = own_world | {"arms": arms("ogls"), "rounds": 1}
    _, expected = run(tree, tmp_path)
    monkeypatch.setattr("jobs.stages.drawn.ROWS", 6)
    _, outcome = run(tree | {"store": str(tmp_path / "other")}, tmp_path, on_ray=True)
    (path,) = expected.paths
    assert len(examples_of(outcome, path)) == 24
    are_the_same(examples_of(outcome, path), examples_of(expected, path))
