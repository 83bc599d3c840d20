"""Token data: order independent of workers, packing without loss or waste, round trip, examples that take no
memory.
"""

import math
import random
import tempfile
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadInput
from cluster.seeds import derive_seed
from cluster.storage import Place
from training.batches import (
    IGNORED,
    Layout,
    collate,
    count_steps,
    deal,
    deal_groups,
    fold,
    global_batches,
    pack,
)
from training.data import (
    ALONE,
    Example,
    Examples,
    count_examples,
    count_groups,
    join_examples,
    write_examples,
)

EXAMPLES = [
    Example(tuple(range(10, 10 + n)), n // 3, n - n // 5, 0.5 + n % 2) for n in (30, 12, 25, 7, 18, 41, 9, 22)
]
LENGTHS = [e.length for e in EXAMPLES]
LAYOUTS: tuple[Layout, ...] = ("packed", "padded", "alone")
lengths_drawn = st.lists(st.integers(1, 400), min_size=1, max_size=60)


def test_examples_survive_a_round_trip(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "e.arrow"))
    write_examples(place, EXAMPLES)
    assert list(Examples(place)) == EXAMPLES
    assert Examples(place).lengths.tolist() == LENGTHS
    assert Examples(place).loss_tokens.tolist() == [e.loss_tokens for e in EXAMPLES]
    assert Examples(place).weight.tolist() == [e.weight for e in EXAMPLES]
    assert count_examples(place) == 8
    write_examples(place, [])
    assert list(Examples(place)) == []


def test_gaps_survive_a_round_trip_and_have_no_loss(tmp_path: Path) -> None:
    """A trajectory of three turns, with what others say between them."""
    whole = Example(tuple(range(50, 80)), 5, 28, 2.0, gaps=((9, 14), (20, 22)))
    one, other, both, plain = (Place(str(tmp_path / name)) for name in ("one", "other", "both", "plain"))
    write_examples(one, [EXAMPLES[0], whole])
    write_examples(other, EXAMPLES[1:3])
    write_examples(plain, [EXAMPLES[0]])
    assert join_examples([one, other, plain], both) == 5
    found = Examples(both)
    assert list(found) == [EXAMPLES[0], whole, *EXAMPLES[1:3], EXAMPLES[0]]
    assert found.loss_tokens.tolist() == [e.loss_tokens for e in found]
    assert found.loss_tokens[1] == 23 - 7
    assert found.longest_turn.tolist() == [e.loss_tokens if not e.gaps else 6 for e in found]
    assert "gaps" not in pa.ipc.open_file(str(other)).schema.names, "other files are as they were"
    batch = collate([[0, 1]], [whole, EXAMPLES[1]])
    learned = [i for i, label in enumerate(batch.labels[0][: whole.length]) if label != IGNORED]
    assert learned == [*range(5, 9), *range(14, 20), *range(22, 28)]
    arrays = {"a": np.zeros((1, 16, 1), np.float32)}
    with pytest.raises(ValueError, match="gaps and arrays"):
        write_examples(one, [Example(whole.ids, 5, 28, gaps=whole.gaps, arrays=arrays)])


def test_examples_are_mapped_and_not_held(tmp_path: Path) -> None:
    """Four bytes a token in the file, and none of them in the process until a batch asks for it."""
    place = Place(str(tmp_path / "e.arrow"))
    write_examples(place, [Example(tuple(range(3, 3003)), 1000, 3000)] * 2000)
    assert Path(place.text).stat().st_size < 4.1 * 2000 * 3000
    before = anonymous_bytes()
    rows = Examples(place)
    assert rows[1999].ids[-1] == 3002
    assert anonymous_bytes() - before < 2 * 2**20


def anonymous_bytes() -> int:
    """Memory of this process that is no mapped file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def test_an_epoch_sees_every_example_once_in_an_order_that_follows_from_the_seed() -> None:
    first = list(global_batches(8, 2, 1, 0, 4))
    assert sorted(i for batch in first for i in batch) == list(range(8))
    assert first == list(global_batches(8, 2, 1, 0, 4))
    assert first != list(global_batches(8, 2, 2, 0, 4))
    assert first != list(global_batches(8, 2, 1, 4, 8))
    assert first[2:] + list(global_batches(8, 2, 1, 4, 6)) == list(global_batches(8, 2, 1, 2, 6)), (
        "a resume sees other batches"
    )


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_any_seed_of_63_bits_draws_and_derives(seed: int, other: int) -> None:
    import torch

    assert sorted(next(global_batches(5, 5, seed, 3, 4))) == list(range(5))
    torch.Generator().manual_seed(derive_seed(seed, 0, 1))
    np.random.default_rng(derive_seed(seed, "a"))
    assert 0 <= derive_seed(seed, other) < 2**63
    assert seed == other or derive_seed(seed, 1) != derive_seed(other, 1)


@given(lengths_drawn, st.integers(1, 1000), st.sampled_from(LAYOUTS))
def test_no_micro_batch_is_over_its_budget_and_no_example_is_lost(
    lengths: list[int], budget: int, layout: Layout
) -> None:
    """A budget of 50 and lengths of 100, 60 and 40 gave one batch of two rows, 200 tokens wide."""
    micro = pack(range(len(lengths)), lengths, budget, layout)
    assert sorted(i for rows in micro for row in rows for i in row) == list(range(len(lengths)))
    for rows in micro:
        width = max(sum(lengths[i] for i in row) for row in rows)
        assert len(rows) * width <= budget or [len(row) for row in rows] == [1]
        assert layout == "packed" or all(len(row) == 1 for row in rows)
        assert layout != "alone" or len(rows) == 1


@given(lengths_drawn, st.integers(1, 9), st.integers(1, 1000), st.sampled_from(LAYOUTS), st.integers(1, 500))
def test_workers_share_a_batch_and_make_as_many_passes_as_one_another(
    lengths: list[int], workers: int, budget: int, layout: Layout, alone_above: int
) -> None:
    shares = deal(range(len(lengths)), lengths, workers, budget, layout, alone_above)
    assert len({len(share) for share in shares}) == 1
    micro = [rows for share in shares for rows in share]
    assert sorted(i for rows in micro for row in rows for i in row) == list(range(len(lengths)))
    for rows in micro:
        width = max((sum(lengths[i] for i in row) for row in rows), default=0)
        assert len(rows) * width <= budget or [len(row) for row in rows] == [1]
        if any(lengths[i] > alone_above for row in rows for i in row):
            assert [len(row) for row in rows] == [1]
    empty = sum(not rows for rows in micro)
    several = any(len(row) > 1 for rows in micro for row in rows) or any(len(rows) > 1 for rows in micro)
    assert empty == 0 or not several, "a worker had nothing to do while another had two examples in a pass"
    assert empty < workers


@given(lengths_drawn, st.integers(1, 1000), st.floats(1, 1e6))
def test_folded_rows_hold_the_same_examples_for_less_work_within_the_budget(
    lengths: list[int], budget: int, even_width: float
) -> None:
    def tokens_and_work(rows: list[list[int]]) -> tuple[int, float]:
        width = max(sum(lengths[i] for i in row) for row in rows)
        return len(rows) * width, len(rows) * width * (1 + width / even_width)

    for rows in pack(range(len(lengths)), lengths, budget):
        folded = fold(rows, lengths, budget, even_width)
        assert sorted(i for row in folded for i in row) == sorted(i for row in rows for i in row)
        (tokens, work), (_, work_before) = tokens_and_work(folded), tokens_and_work(rows)
        assert work <= work_before
        assert tokens <= budget or folded == rows
        assert fold(rows, lengths, budget, math.inf) == rows


def test_short_examples_are_not_laid_in_one_wide_row_where_attention_costs_much() -> None:
    """Eight word problems in one row of 962 tokens took 1.3 times as long as in four rows."""
    (share,) = deal(range(8), [89, 126, 158, 91, 122, 162, 89, 125], 1, 4096, even_width=3 * 576)
    (rows,) = share
    assert len(rows) == 4
    assert max(sum([89, 126, 158, 91, 122, 162, 89, 125][i] for i in row) for row in rows) < 260


def test_rows_are_as_few_as_the_tokens_allow() -> None:
    (rows,) = pack(range(8), LENGTHS, 10_000)
    assert len(rows) == -(-sum(LENGTHS) // max(LENGTHS))


def test_at_most_a_tenth_of_the_passes_is_empty_on_long_tailed_lengths() -> None:
    """Median 1,500 tokens, up to 12,000, eight workers: 38 % were empty where all steps had as many passes as
    the longest.
    """
    rng = np.random.default_rng(0)
    lengths = np.minimum(12_000, rng.lognormal(math.log(1500), 0.9, 6400)).astype(int)
    empty = passes = 0
    for batch in global_batches(len(lengths), 64, 0, 0, 100):
        shares = deal(batch, lengths, 8, 4096)
        passes += 8 * len(shares[0])
        empty += sum(not rows for share in shares for rows in share)
    assert empty <= 0.1 * passes, f"{empty / passes:.3f}"


def test_packed_rows_restart_positions_and_put_loss_on_answers_only() -> None:
    batch = collate([[1, 3], [0]], EXAMPLES)
    first, third = EXAMPLES[1], EXAMPLES[3]
    row = batch.input_ids[0]
    assert row[: first.length] == list(first.ids[: first.length])
    assert batch.position_ids[0][first.length : first.length + third.length] == list(range(third.length))
    kept = [(i, label) for i, label in enumerate(batch.labels[0]) if label != IGNORED]
    assert [label for _, label in kept] == list(
        first.ids[first.loss_start : first.loss_end] + third.ids[third.loss_start : third.loss_end]
    )
    assert all(row[i] == label for i, label in kept)
    assert set(row[first.length + third.length :]) <= {first.ids[0]}
    every = (batch.input_ids, batch.labels, batch.weights, batch.position_ids, batch.real)
    assert {len(r) for part in every for r in part} == {len(row)}
    assert [sum(real) for real in batch.real] == [first.length + third.length, EXAMPLES[0].length]


def test_padding_is_hidden_by_a_mask_where_rows_are_not_packed() -> None:
    batch = collate([[1], [0]], EXAMPLES)
    assert set(batch.inputs("packed")) == {"input_ids", "position_ids"}
    assert batch.inputs("padded")["attention_mask"] == batch.real
    assert set(collate([[1]], EXAMPLES).inputs("padded")) == {"input_ids"}


def test_a_set_smaller_than_the_batch_is_used_whole() -> None:
    assert sorted(next(global_batches(3, 8, 0, 5, 6))) == [0, 1, 2]
    assert count_steps(3, 8, epochs=4, steps=None) == 4
    assert count_steps(3, 8, epochs=4, steps=9) == 9


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_the_most_loaded_worker_has_little_more_than_its_share(workers: int) -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(200, 2000, 256)
    shares = deal(range(256), lengths, workers, 4096)
    totals = [sum(int(lengths[i]) for rows in share for row in rows for i in row) for share in shares]
    assert max(totals) <= 1.1 * sum(totals) / workers


sizes = st.lists(st.integers(1, 5), min_size=1, max_size=12)


@given(
    sizes,
    st.integers(1, 4),
    st.integers(10, 200),
    st.sampled_from(["packed", "padded"]),
    st.integers(0, 2**63 - 1),
)
def test_a_group_is_drawn_whole_and_is_in_one_micro_batch(
    sizes: list[int], workers: int, budget: int, layout: Layout, seed: int
) -> None:
    """Groups of one to five examples; of size one every second is a group of none."""
    rng = random.Random(seed)
    rows = [
        Example(tuple(range(3, 3 + n)), 1, n, 1.0, ALONE if size == 1 and k % 2 else 1000 - k)
        for k, size in enumerate(sizes)
        for n in (rng.randint(2, 60) for _ in range(size))
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Place(f"{folder}/e.arrow")
        write_examples(place, rows)
        examples = Examples(place)
        assert count_groups(place) == len(sizes) == len(examples.group_lengths)
    batch = next(global_batches(len(sizes), max(1, len(sizes) // 2), seed, 0, 1))
    shares = deal_groups(batch, examples, workers, budget, layout)
    assert len({len(share) for share in shares}) == 1
    micro = [[i for row in rows_of for i in row] for share in shares for rows_of in share]
    assert sorted(i for one in micro for i in one) == sorted(i for g in batch for i in examples.members(g))
    for g in batch:
        assert sum(set(examples.members(g)) <= set(one) for one in micro) == 1, g
    for rows_of in (rows_of for share in shares for rows_of in share if rows_of):
        laid = collate(rows_of, examples)
        for row, owners, groups in zip(rows_of, laid.owners, laid.groups, strict=True):
            assert [o for o in dict.fromkeys(owners) if o != ALONE] == row
            assert groups == [ALONE if o == ALONE else examples.group[o] for o in owners]


beginnings = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=6)


@given(beginnings, st.integers(1, 3), st.integers(10, 90), st.integers(0, 2**63 - 1))
def test_a_groups_common_beginning_is_there_once(
    told: list[tuple[int, int]], workers: int, budget: int, seed: int
) -> None:
    """Groups of one to four examples that begin alike, some of them for less than their prompt."""
    rng = random.Random(seed)
    rows = list[Example]()
    for group, (alike, size) in enumerate(told):
        common = tuple(rng.choices(range(3, 9), k=alike))
        for _ in range(size):
            ids = (*common, *rng.choices(range(3, 9), k=rng.randint(2, 12)))
            start = rng.randint(1, len(ids) - 1)
            rows.append(Example(ids, start, rng.randint(start + 1, len(ids)), group=group))
    with tempfile.TemporaryDirectory() as folder:
        write_examples(Place(f"{folder}/e.arrow"), rows)
        examples = Examples(Place(f"{folder}/e.arrow"))
    for group in range(len(told)):
        own = [rows[i] for i in examples.members(group)]
        alike = sum(
            1 for _ in takewhile(lambda at: len(set(at)) == 1, zip(*(e.ids for e in own), strict=False))
        )
        expected = min([alike, *(e.loss_start - 1 for e in own)]) if len(own) > 1 else 0
        assert {int(examples.common[i]) for i in examples.members(group)} == {expected}
    shares = deal_groups(range(len(told)), examples, workers, budget, "shared")
    seen = list[int]()
    for rows_of in (rows_of for share in shares for rows_of in share if rows_of):
        batch = collate(rows_of, examples, examples.common)
        (row,), (ids,), (places,) = rows_of, batch.input_ids, batch.position_ids
        drawn = iter(row)
        for begin, fork, *ends in batch.trees:
            for start, end in pairwise([fork, *ends]):
                example = rows[next(drawn)]
                assert tuple(ids[begin:fork] + ids[start:end]) == example.ids[: example.length]
                assert places[begin:fork] + places[start:end] == list(range(example.length))
        labels = [label for label in batch.labels[0] if label != IGNORED]
        assert labels == [t for i in row for t in rows[i].ids[rows[i].loss_start : rows[i].loss_end]]
        assert batch.lengths == [rows[i].loss_tokens for i in row]
        groups = {int(examples.group[i]) for i in row}
        assert len(ids) == sum(int(examples.shared_lengths[g]) for g in groups)
        assert len(ids) <= budget or len(groups) == 1
        seen += row
    assert sorted(seen) == list(range(len(rows)))


def test_groups_that_are_scattered_or_cannot_share_a_pass_are_refused(tmp_path: Path) -> None:
    pair = [Example((3, 4, 5), 1, 3, 1.0, g) for g in (7, 7, 8)]
    place = Place(str(tmp_path / "e.arrow"))
    with pytest.raises(ValueError, match="not neighbours"):
        write_examples(place, [*pair, pair[0]])
    write_examples(place, pair)
    with pytest.raises(BadInput, match="a group must stay in one pass"):
        deal_groups([0, 1], Examples(place), 1, 100, "alone")
    with pytest.raises(BadInput, match="a group must stay in one pass"):
        deal_groups([0, 1], Examples(place), 1, 100, "packed", alone_above=2)
