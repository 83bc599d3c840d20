"""What endpoints are paid is counted and kept: over kills, other runs, other limits and odd answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.models.messages import plain
from cluster.storage import Place
from jobs.run.run import Run
from jobs.run.tables import KEY
from jobs.run.views import View
from jobs.stages.answers import Answer, Ask, request_of
from jobs.stages.journal import Journal, spent_on
from tests.fault_proxy import FaultProxy
from tests.runs import open_here
from tests.test_jobs_stages_ask import endpoint, pool_of, put

NOBODY = "http://127.0.0.1:9"
ASKS = [Ask(plain(f"What is {k}?"), 0) for k in range(6)]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setenv("TEST_KEY", "sk-test")
    server = FaultProxy(NOBODY, [], after="seven")
    yield server
    server.close()


def tree_of(small_world: dict[str, Any], proxy: FaultProxy, **changes: Any) -> dict[str, Any]:
    priced = {"usd_per_million_output_tokens": 1e6, "concurrency": 1, "max_retries": 5}
    return endpoint(small_world, proxy.url, Path("m"), **(priced | changes))


def journal_of(tree: dict[str, Any], here: Run, asks: list[Ask], text: str, limit: int = 8) -> Place:
    """Answers that were paid and journalled by a run that was killed before their part was written."""
    view = put(here, tree, [Ask(plain("another question"), 0)])  # so that the table is there
    place = view.table.directory / "journal"
    journal = Journal(place)
    for ask in asks:
        journal.write(ask.key.hex(), Answer(text, "stop", answer_tokens=7, limit_tokens=limit, usd=7.0))
    return place


def texts(view: View) -> list[str]:
    return sorted(view.read()["text"])


def test_another_run_does_not_forget_what_was_paid_and_is_in_no_part(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    tree = tree_of(small_world, proxy)
    with open_here(tree, tmp_path) as here:
        place = journal_of(tree, here, ASKS[:4], "paid before")
        put(here, tree, ASKS[4:])  # a run that needs none of it, and finishes its view
        assert place.glob("*.jsonl")
        calls = len(proxy.seen)
        view = put(here, tree, ASKS)
    assert len(proxy.seen) == calls
    assert texts(view) == ["paid before"] * 4 + ["seven tokens"] * 2
    assert not place.exists()


def test_a_journalled_answer_that_ended_by_itself_serves_a_larger_limit(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    tree = tree_of(small_world, proxy)
    with open_here(tree, tmp_path) as here:
        journal_of(tree, here, ASKS, "paid before")
    larger = tree | {"generate": tree["generate"] | {"max_new_tokens": 100}}
    calls = len(proxy.seen)
    with open_here(larger, tmp_path) as here:
        view = put(here, larger, ASKS)
    assert len(proxy.seen) == calls
    assert texts(view) == ["paid before"] * 6


def test_an_answer_without_content_is_one_call_and_its_price_counts(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    proxy.after = "null"
    tree = tree_of(small_world, proxy)
    with open_here(tree, tmp_path) as here:
        rows = put(here, tree, ASKS).read()
    assert len(proxy.seen) == len(ASKS)
    assert list(rows["finish"]) == ["length"] * 6
    assert rows["usd"].sum() == 7.0 * 6


def test_what_malformed_answers_cost_counts_against_the_budget(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    proxy.after = "no message"
    tree = tree_of(small_world, proxy, budget_usd=10.0, max_retries=1)
    with open_here(tree, tmp_path) as here:
        rows = put(here, tree, ASKS).read()
    assert len(proxy.seen) == 2  # one answer, tried twice, at 14 USD
    assert rows["usd"].sum() == 14.0
    assert rows["error"].str.contains("budget of 10").sum() == 5


def test_half_a_character_stops_nothing(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    proxy.after = "surrogate"
    tree = tree_of(small_world, proxy)
    with open_here(tree, tmp_path) as here:
        assert texts(put(here, tree, ASKS)) == ["half \ufffd"] * 6


def test_what_was_spent_is_read_off_the_parts_whoever_wrote_them(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    tree = tree_of(small_world, proxy)
    with open_here(tree, tmp_path) as here:
        view = put(here, tree, ASKS)
    keys = request_of(ASKS).keys
    assert spent_on(view.table, frozenset(keys)) == 42.0
    assert spent_on(view.table, frozenset(keys[:2])) == 14.0
    assert sorted(view.read()[KEY]) == keys


def test_every_endpoint_with_failures_is_tried_again(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    other = FaultProxy(NOBODY, ["500"] * 3, after="seven")
    proxy.plan = ["500"] * 3
    tree = tree_of(small_world, proxy, max_retries=0)
    first = tree["teachers"][0]
    tree = tree | {"teachers": [first, first | {"name": "second", "base_url": other.url}]}
    from jobs.experiment.questions import Fields
    from jobs.files.questions import read_questions

    questions = {q.id: q for q in read_questions(Path(tree["questions"]["train"]), Fields()).questions[:5]}
    failures = []
    try:
        for retry in (False, True):
            with open_here(tree, tmp_path) as here:
                here.retry_failed = retry
                failures.append(int((pool_of(here, tree, questions)["state"] == "failed").sum()))
    finally:
        other.close()
    assert failures == [6, 0]
