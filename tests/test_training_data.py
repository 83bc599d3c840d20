"""Token data: order independent of workers, packing without loss or waste, round trip."""

from pathlib import Path

import pytest

from cluster.storage import Place
from training.data import IGNORED, Example, collate, count_steps, global_batch, pack, read_examples, split_over_workers, write_examples

EXAMPLES = [Example(tuple(range(10, 10 + n)), n // 3, n - n // 5, 0.5 + n % 2) for n in (30, 12, 25, 7, 18, 41, 9, 22)]
LENGTHS = [e.length for e in EXAMPLES]


def test_examples_survive_a_round_trip(tmp_path: Path) -> None:
    write_examples(Place(str(tmp_path / "e.parquet")), EXAMPLES)
    assert read_examples(Place(str(tmp_path / "e.parquet"))) == EXAMPLES


def test_an_epoch_sees_every_example_once_in_an_order_that_follows_from_the_seed() -> None:
    first = [i for step in range(4) for i in global_batch(8, 2, seed=1, step=step)]
    assert sorted(first) == list(range(8))
    assert first == [i for step in range(4) for i in global_batch(8, 2, seed=1, step=step)]
    assert first != [i for step in range(4) for i in global_batch(8, 2, seed=2, step=step)]
    assert first != [i for step in range(4, 8) for i in global_batch(8, 2, seed=1, step=step)]


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_workers_share_a_batch_without_losing_or_doubling_an_example(workers: int) -> None:
    batch = global_batch(8, 7, seed=0, step=0)
    shares = split_over_workers(batch, LENGTHS, workers)
    assert sorted(i for share in shares for i in share) == sorted(batch)
    totals = [sum(LENGTHS[i] for i in share) for share in shares]
    assert max(totals) - min(totals) <= max(LENGTHS)


@pytest.mark.parametrize("budget", [1, 50, 90, 10_000])
def test_packing_keeps_every_example_and_the_budget(budget: int) -> None:
    micro = pack(list(range(8)), LENGTHS, budget)
    assert sorted(i for batch in micro for row in batch for i in row) == list(range(8))
    for batch in micro:
        width = max(sum(LENGTHS[i] for i in row) for row in batch)
        assert len(batch) * width <= budget or (len(batch) == 1)
    if budget == 10_000:
        rows = [row for batch in micro for row in batch]
        assert len(rows) == -(-sum(LENGTHS) // max(LENGTHS))  # as few rows as the tokens allow


def test_packed_rows_restart_positions_and_put_loss_on_answers_only() -> None:
    batch = collate([[1, 3], [0]], EXAMPLES, pad_id=99)
    first, third = EXAMPLES[1], EXAMPLES[3]
    row = batch.input_ids[0]
    assert row[: first.length] == list(first.ids[: first.length])
    assert batch.position_ids[0][first.length : first.length + third.length] == list(range(third.length))
    kept = [(i, label) for i, label in enumerate(batch.labels[0]) if label != IGNORED]
    assert [label for _, label in kept] == list(first.ids[first.loss_start : first.loss_end] + third.ids[third.loss_start : third.loss_end])
    assert all(row[i] == label for i, label in kept)
    assert set(row[first.length + third.length :]) <= {99}
    assert {len(r) for part in (batch.input_ids, batch.labels, batch.weights, batch.position_ids) for r in part} == {len(row)}


def test_a_set_smaller_than_the_batch_is_used_whole() -> None:
    assert sorted(global_batch(3, 8, 0, 5)) == [0, 1, 2]
    assert count_steps(3, 8, epochs=4, steps=None) == 4
    assert count_steps(3, 8, epochs=4, steps=9) == 9
