"""Threads suit the model: small ones in lanes of one thread each, and whoever waits sleeps."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cluster import threads
from cluster.models.loading import ModelSource, load_model
from cluster.models.rendering import Rendered
from cluster.models.sampling import Completion, Sampling, sample
from cluster.threads import lanes_of, one_thread, side_by_side, waiting
from selection.scoring import Scorer
from tests.architectures import tiny_model as tiny_architecture
from tests.runs import ROOT
from training.trainer import worker_environment


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def model_of(parameters: int, device: str = "cpu") -> Any:
    kind = SimpleNamespace(type=device)
    return SimpleNamespace(device=kind, parameters=lambda: [torch.empty(parameters, device="meta")])


@pytest.mark.usefixtures("three_threads")
def test_a_small_model_has_one_thread_a_batch_and_a_large_one_all_of_them() -> None:
    with one_thread(model_of(threads.SMALL - 1)):
        assert torch.get_num_threads() == 1
    for other in (model_of(threads.SMALL), model_of(1000, "cuda")):
        assert lanes_of(other) == 1
        with one_thread(other):
            assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 3
    assert lanes_of(model_of(1000)) == 3
    with pytest.raises(KeyError), one_thread(model_of(1000)):
        raise KeyError
    assert torch.get_num_threads() == 3


def test_lanes_keep_the_order_run_side_by_side_and_hand_on_what_is_raised() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def work(item: int) -> tuple[int, int]:
        meeting.wait()  # never passed by one lane alone
        return item, torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert list(side_by_side(3, work, range(9))) == [(k, 1) for k in range(9)]
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(2, lambda k: 1 // k, [1, 0, 2]))
    assert list(side_by_side(1, str, [1, 2])) == ["1", "2"]


def rows_of(vocabulary: int, count: int) -> list[Rendered]:
    rng = torch.Generator().manual_seed(5)
    rows = []
    for k in range(count):
        ids = torch.randint(3, vocabulary, (8 + k % 7,), generator=rng).tolist()
        rows.append(Rendered(tuple(ids), 3, len(ids)))
    return rows


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "bloom", "mixtral", "mamba", "jamba"])
def test_lanes_give_the_numbers_that_one_thread_gives(name: str) -> None:
    """The same batches: not even a last digit moves, whoever else is in the model at that time."""
    model = tiny_architecture(name, vocab_size=99)
    rows = rows_of(99, 60)
    several, alone = Scorer(model, frozenset(), token_budget=120), Scorer(model, frozenset(), token_budget=40)
    assert (several.lanes, several.token_budget) == (3, 40)
    alone.lanes, alone.token_budget = 1, 40
    assert several.score(rows) == alone.score(rows)


@pytest.mark.usefixtures("three_threads")
def test_a_row_that_fails_in_a_lane_costs_its_neighbours_nothing(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(load_model(ModelSource(str(tiny_model))), frozenset(), token_budget=90)
    rows = rows_of(99, 30)
    whole = scorer.score(rows)
    score_batch = Scorer._score_batch

    def fails(self: Scorer, members: Any, vocabulary: Any) -> Any:
        if any(m.row == 17 for m in members):
            raise MemoryError("row 17")
        return score_batch(self, members, vocabulary)

    monkeypatch.setattr(Scorer, "_score_batch", fails)
    found = scorer.score(rows)
    assert isinstance(found[17], MemoryError)
    for k in set(range(30)) - {17}:
        assert found[k].answer_loss == pytest.approx(whole[k].answer_loss, rel=1e-5)  # type: ignore[union-attr]


def test_texts_do_not_hang_on_how_many_lanes_sample_them(tiny_model: Path, three_threads: None) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    prompts = [list(row.ids) for row in rows_of(99, 50)]
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(sample(model, prompts, Sampling(6, frozenset())))
    assert all(isinstance(one, Completion) for one in found[0])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("said", "policy"),
    [
        ({}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ({"GOMP_SPINCOUNT": "1000"}, None),
        ({"KMP_BLOCKTIME": "1"}, None),
    ],
)
def test_threads_sleep_while_they_wait_unless_a_user_says_how(
    said: dict[str, str], policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, and in train workers wherever they are."""
    for name in threads.SET_BY_USERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    ours = policy == "PASSIVE"
    assert waiting() == ({"OMP_WAIT_POLICY": "PASSIVE"} if ours else {})
    assert worker_environment(False).get("OMP_WAIT_POLICY") == ("PASSIVE" if ours else None)


def test_the_command_line_says_so_before_torch_is_there() -> None:
    plain = {k: v for k, v in os.environ.items() if k not in threads.SET_BY_USERS}
    code = (
        "import os, sys; sys.argv[1:] = ['--version']\n"
        "from jobs.commands import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE False"
