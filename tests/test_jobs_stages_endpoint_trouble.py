"""An endpoint's trouble is one answer's: the others come, the budget counts, the run goes on."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cluster.errors import BadInput
from cluster.models.messages import plain
from cluster.storage import Place
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.teachers import EndpointTeacher
from jobs.run.store import read_fallbacks
from jobs.run.tables import Owner, Table
from jobs.run.views import View
from jobs.stages import endpoint as endpoint_module
from jobs.stages.answers import Answer, Ask
from jobs.stages.completion import is_same_model
from jobs.stages.endpoint import EndpointAsker
from jobs.stages.hosted import Draw
from jobs.stages.journal import Journal, read_journal
from jobs.stages.secret import Secret
from tests.runs import open_here
from tests.test_jobs_stages_ask import endpoint, put
from tests.test_jobs_stages_completion import body
from tests.test_jobs_stages_wire import send, serving

KEY = "sk-a-key-1234"
ASKS = [Ask(plain(f"What is {k}?"), 0) for k in range(4)]


@dataclass(frozen=True)
class Told:
    """What came of asking: the answers with their questions, how many calls that took, and their view."""

    rows: pd.DataFrame
    calls: int
    view: View


Asking = Callable[..., Told]
Reply = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]
FLAGGED = b'{"error": {"message": "This question was flagged", "code": 403}}'


@pytest.fixture(autouse=True)
def _key_and_short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr(endpoint_module, "PAUSE_S", 0.01)
    monkeypatch.setattr(endpoint_module, "OTHERS_S", 0.1)


@pytest.fixture
def asked(small_world: dict[str, Any], tmp_path: Path) -> Asking:
    """Ask the four questions of a server whose replies `act` chooses by question and by how often it came."""

    def ask(act: Callable[[str, int], Reply], asks: list[Ask] = ASKS, **options: Any) -> Told:
        times: dict[str, int] = {}

        def reply(to: Any) -> None:
            said = to.said
            times[said] = times.get(said, 0) + 1
            status, content, *headers = act(said, times[said])
            send(to, content, status, **(headers[0] if headers else {}))

        with serving(reply) as server:
            priced = {"usd_per_million_output_tokens": 1e6, "max_retries": 2, "concurrency": 1}
            url = f"http://127.0.0.1:{server.server_port}/v1"
            tree = endpoint(small_world, url, Path("m"), **(priced | options))
            with open_here(tree, tmp_path) as here:
                view = put(here, tree, asks)
                rows = view.read()
        texts = {a.key: a.prompt.text for a in asks}
        return Told(rows.assign(question=[texts[key] for key in rows["key"]]), len(server.seen), view)

    return ask


def good(text: str = "A: 7", **more: Any) -> Reply:
    return 200, body({"role": "assistant", "content": text}, **more).encode()


@pytest.mark.parametrize("status", [400, 402, 403, 404, 405, 410, 413, 422])
def test_a_question_that_is_refused_fails_alone_and_is_asked_once(asked: Asking, status: int) -> None:
    told = asked(lambda said, _: (status, FLAGGED) if said == "What is 1?" else good())
    assert list(told.rows.loc[told.rows["finish"] == "failed", "question"]) == ["What is 1?"]
    words = told.rows.loc[told.rows["finish"] == "failed", "error"].item()
    assert words == f"HTTP {status}: This question was flagged"
    assert (told.calls, told.rows["usd"].sum()) == (4, 21.0)


@pytest.mark.parametrize("status", [402, 403, 404, 405])
def test_a_teacher_that_refuses_every_question_ends_the_run_with_its_words(
    asked: Asking, status: int
) -> None:
    with pytest.raises(BadInput, match=r"remote refuses every question.*was flagged"):
        asked(lambda said, _: (status, FLAGGED))


@pytest.mark.parametrize("status", [400, 422])
def test_a_parameter_that_every_call_is_refused_for_ends_the_run_and_a_few_questions_do_not(
    asked: Asking, status: int
) -> None:
    with pytest.raises(BadInput, match=r"remote refuses every question.*extra_body: \{seed: null\}"):
        asked(lambda said, _: (status, FLAGGED))
    few = asked(lambda said, _: (status, FLAGGED), ASKS[:3])
    assert set(few.rows["finish"]) == {"failed"}


def test_where_others_were_answered_before_a_question_asked_alone_fails_alone(
    asked: Asking,
) -> None:
    asked(lambda said, _: good())
    late = [Ask(plain("What is 9?"), 0)]
    told = asked(lambda said, _: (403, FLAGGED), [*ASKS, *late])
    assert list(told.rows.loc[told.rows["finish"] == "failed", "question"]) == ["What is 9?"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            (200, b'{"error": {"message": "Rate limit exceeded", "code": 429}}'),
            "Rate limit exceeded (code 429)",
        ),
        ((200, body(finish="error").encode()), "it ended with error"),
        ((200, b"<html>Log in</html>"), "malformed response: a page, not JSON: Log in"),
        ((200, b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
        ((429, b'{"error": {"message": "slow down"}}', {"Retry_After": "-1"}), "HTTP 429: slow down"),
        ((529, b'{"error": {"message": "overloaded"}}'), "HTTP 529: overloaded"),
        ((302, b"", {"Location": "http://x.example/"}), "redirects to"),
    ],
)
def test_trouble_with_one_question_is_told_in_the_servers_words(
    asked: Asking, reply: Reply, words: str
) -> None:
    told = asked(lambda said, _: reply if said == "What is 1?" else good())
    assert (told.rows["finish"] == "failed").sum() == 1
    assert words in told.rows.loc[told.rows["finish"] == "failed", "error"].item()
    assert told.calls == (4 if reply[0] == 302 else 6)


@pytest.mark.parametrize(
    ("first", "usd"),
    [
        ((200, b'{"error": {"message": "Provider returned error", "code": 502}}'), 0.0),
        ((200, b'{"choices": [{"error": {"message": "x", "code": 502}, "finish_reason": "error"}]}'), 0.0),
        ((200, body(finish="abort").encode()), 7.0),
        ((200, b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}'), 7.0),
        ((503, b"<html>busy</html>", {"Retry_After": "0"}), 0.0),
        ((408, b""), 0.0),
    ],
)
def test_what_is_gone_at_the_next_call_costs_what_it_told(asked: Asking, first: Reply, usd: float) -> None:
    told = asked(lambda said, time: first if time == 1 else good())
    assert set(told.rows["finish"]) == {"stop"}
    assert (told.calls, told.rows["usd"].sum()) == (8, 4 * (7.0 + usd))


@pytest.mark.parametrize("count", ["1e30", "NaN", "-1000000000", "1e999", "9" * 30, '"-5"', "null", "[1]"])
def test_no_count_ends_a_run_or_gives_money_back(asked: Asking, count: str) -> None:
    """The answers are four characters: two tokens by their length."""
    odd = body().replace('"completion_tokens": 7', f'"completion_tokens": {count}').encode()
    told = asked(lambda said, _: (200, odd), budget_usd=5.0)
    assert (told.rows["finish"] == "stop").sum() == 3
    assert told.rows["error"].str.contains("budget of 5").sum() == 1
    assert list(told.rows.loc[told.rows["finish"] == "stop", "usd"]) == [2.0] * 3
    assert told.calls == 3


def test_answers_of_another_model_than_was_asked_for_are_counted_by_name(asked: Asking) -> None:
    """A proxy falls back to a smaller model where the large one is busy. The model asked for is `m`."""
    said = {
        "What is 0?": "m",
        "What is 1?": "org/m-2026-08-06",
        "What is 2?": "m-mini",
        "What is 3?": "m-mini",
    }
    told = asked(lambda q, _: (200, json.dumps(json.loads(body()) | {"model": said[q]}).encode()))
    line = read_fallbacks(told.view.table.directory)["model"]
    assert line.endswith("the server names other models: 2 of m-mini answers")
    assert (told.rows["finish"] == "stop").all()


@pytest.mark.parametrize(
    ("asked_for", "said", "is_same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-5", "gpt-5-nano", False),
        ("claude-sonnet-4", "claude-sonnet-4-20250514", True),
        ("anthropic/claude-sonnet-4", "claude-sonnet-4@20250514", True),
        ("Qwen/Qwen3-8B", "qwen3-8b", True),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-80B", False),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base", False),
        ("/models/llama/", "llama", True),
        ("deepseek/deepseek-r1", "deepseek/deepseek-r1:free", True),
        ("gemini-2.5-pro", "gemini-2.5-flash", False),
        ("mistral-large-latest", "mistral-large-2411", True),
        ("llama3.1:8b", "llama3.1:70b", False),
        ("m", "", True),
    ],
)
def test_names_of_one_model_are_told_from_those_of_another(asked_for: str, said: str, is_same: bool) -> None:
    assert is_same_model(asked_for, said) == is_same


def test_a_key_in_an_answer_is_marked_and_counted_and_stored_nowhere(
    asked: Asking, small_world: dict[str, Any]
) -> None:
    """Also where JSON spells it with an escape, in its reasoning, its calls, and as the reason of its end."""
    spelled = body({"content": f"A: {KEY}"}).replace("sk-", "\\u0073k-")
    call = {"function": {"name": "f", "arguments": {"key": KEY}}}
    replies = {
        "What is 0?": body({"content": f"Bearer {KEY}", "reasoning": f"the key is {KEY}"}),
        "What is 1?": spelled,
        "What is 2?": body({"content": None, "tool_calls": [call]}),
        "What is 3?": body({"content": None}, f"error {KEY}"),
    }
    told = asked(lambda said, _: (200, replies[said].encode()), max_retries=0)
    assert sorted(told.rows["text"]) == ["", "", "<think>\nthe key is ***\n</think>\n\nBearer ***", "A: ***"]
    view = told.view
    assert read_fallbacks(view.table.directory)["key"].startswith("the server put the key into 3 answers")
    for path in Path(small_world["store"]).rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_odd_characters_are_an_answer_like_any_other(asked: Asking) -> None:
    odd = {
        "What is 0?": body({"content": "half \ud800 of it"}).encode(),
        "What is 1?": body({"content": "nul \x00 in it"}).encode(),
        "What is 2?": b"\xef\xbb\xbf" + body({"content": "a mark before it"}).encode(),
        "What is 3?": body({"content": "bytes"}).encode().replace(b"bytes", b"\xff\xfe bytes"),
    }
    told = asked(lambda said, _: (200, odd[said]))
    assert set(told.rows["text"]) == {
        "half \ufffd of it",
        "nul  in it",
        "a mark before it",
        "\ufffd\ufffd bytes",
    }


POISON = [
    {"prompt_tokens": 10**30},
    {"prompt_tokens": -5, "usd": -4.0},
    {"usd": float("nan")},
    {"usd": float("inf")},
    {"text": None},
    {"finish": 7},
    {"token_ids": ["x"]},
]


@pytest.mark.parametrize("poison", POISON)
def test_a_journal_that_no_part_can_hold_is_named_and_asked_again(
    asked: Asking, poison: dict[str, Any]
) -> None:
    """An earlier version journalled what servers counted, and every later run died of it."""
    place = asked(lambda said, _: good(), ASKS[:1]).view.table.directory / "journal"
    place.path.mkdir()
    whole = vars(Answer("A: 8", "stop", answer_tokens=3, limit_tokens=8, usd=3.0))
    lines = [{"key": ASKS[1].key.hex(), "value": whole}, {"key": ASKS[2].key.hex(), "value": whole | poison}]
    odd = ["[1]", '{"key": 5}', '{"key": "x", "value": [', "[" * 100_000, "\udcff"]
    text = "\n".join([*map(json.dumps, lines), *odd])
    (place.path / "old.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    assert [a is not None for _, a in read_journal(place / "old.jsonl")] == [True, False, False]
    assert Journal(place).refused == 2
    told = asked(lambda said, _: good())
    assert told.calls == 2
    assert sorted(told.rows["text"]) == ["A: 7", "A: 7", "A: 7", "A: 8"]
    assert told.rows["usd"].sum() == 24.0
    view = told.view
    assert "2 journalled answers" in read_fallbacks(view.table.directory)["journal"]
    assert not place.exists()


def test_a_question_that_is_refused_alone_in_its_shard_waits_for_the_others(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of one endpoint run side by side; the refused one ends first, before another was answered."""
    monkeypatch.setattr(endpoint_module, "OTHERS_S", 30.0)
    refused = threading.Event()

    def reply(to: Any) -> None:
        if to.said == "What is 0?":
            send(to, FLAGGED, 403)
            refused.set()
        else:
            refused.wait(30)
            send(to, body().encode())

    with serving(reply) as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        teacher = parse_experiment(endpoint(small_world, url, Path("m"))).teachers[0]
        assert isinstance(teacher, EndpointTeacher)
        table = Table(Place(str(tmp_path / "table")), Owner("answers", 1, {"endpoint": "remote"}, {}))
        asker = EndpointAsker(teacher, Draw(0.0, 1.0, 8, 0), table, frozenset(), Secret(KEY))
        with ThreadPoolExecutor(2) as shards:
            first, second = (shards.submit(asker.compute, [ask]) for ask in ASKS[:2])
            assert list(first.result()["finish"]) == ["failed"]
            assert list(second.result()["finish"]) == ["stop"]


def test_a_refused_key_waits_for_no_pauses_of_other_calls(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other call would be made again in an hour, and an hour later the run would end."""
    monkeypatch.setattr(endpoint_module, "PAUSE_S", 3600.0)
    monkeypatch.setattr(endpoint_module, "LONGEST_S", 3600.0)
    busy = threading.Event()

    def reply(to: Any) -> None:
        if to.said == "What is 0?":
            busy.set()
            send(to, b"", 503)
        else:
            busy.wait(30)
            send(to, f'{{"error": "no such key: {KEY}"}}'.encode(), 401)

    with serving(reply) as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        tree = endpoint(small_world, url, Path("m"))
        with (
            open_here(tree, tmp_path) as here,
            pytest.raises(BadInput, match=r"refuses.*no such key: \*\*\*"),
        ):
            put(here, tree, ASKS[:2])
