"""Odd answers of servers: what they say is kept, what they cost is counted, none is asked for again."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.models.messages import Message, Prompt, ToolCall, plain, write_calls
from jobs.stages.answers import Ask
from jobs.stages.completion import Malformed, read_reply
from tests.fault_proxy import FaultProxy, completion
from tests.runs import open_here
from tests.test_jobs_stages_ask import endpoint, put

ASKS = [Ask(plain(f"What is {k}?"), 0) for k in range(4)]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setenv("TEST_KEY", "sk-test")
    server = FaultProxy("http://127.0.0.1:9", [], after="seven")
    yield server
    server.close()


def tree_of(small_world: dict[str, Any], proxy: FaultProxy, **options: Any) -> dict[str, Any]:
    priced = {"usd_per_million_output_tokens": 1e6, "concurrency": 1, "max_retries": 5}
    return endpoint(small_world, proxy.url, Path("m"), **(priced | options))


@pytest.mark.parametrize(
    ("body", "text", "finish", "calls"),
    [
        ("reasoned", "<think>\n3 and 4\n</think>\n\nA:7", "stop", ""),
        ("thought", "<think>\nlet me", "length", ""),
        ("parts", "A:7", "stop", ""),
        ("calls", "", "stop", write_calls((ToolCall("add", '{"a": 1}', "c"),))),
        ("null", "", "length", ""),
    ],
)
def test_what_a_server_says_is_kept_whole_and_asked_for_once(
    small_world: dict[str, Any],
    tmp_path: Path,
    proxy: FaultProxy,
    body: str,
    text: str,
    finish: str,
    calls: str,
) -> None:
    proxy.after = body
    with open_here(tree := tree_of(small_world, proxy), tmp_path) as here:
        rows = put(here, tree, ASKS).read()
    assert len(proxy.seen) == len(ASKS)
    assert set(zip(rows["text"], rows["finish"], rows["tool_calls"], strict=True)) == {(text, finish, calls)}
    assert rows["usd"].sum() == 7.0 * len(ASKS)


def test_an_answer_that_is_kept_back_is_a_paid_failure_with_its_reason(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    proxy.after = "refusal"
    with open_here(tree := tree_of(small_world, proxy), tmp_path) as here:
        rows = put(here, tree, ASKS).read()
    assert len(proxy.seen) == len(ASKS)
    assert set(rows["finish"]) == {"failed"}
    assert rows["error"].str.contains("withheld the answer: I will not").all()
    assert rows["usd"].sum() == 28.0


def test_what_failed_calls_cost_stays_with_the_answer_that_came_after(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    proxy.plan = ["no message", "seven", "no message", "400"]
    with open_here(tree := tree_of(small_world, proxy), tmp_path) as here:
        rows = put(here, tree, ASKS).read()
    assert sorted(rows["usd"]) == [7.0, 7.0, 7.0, 14.0]
    assert rows["usd"].sum() == 7.0 * (len(proxy.seen) - 1)


@pytest.mark.parametrize("usage", ["{}", '{"total_tokens": 900}', '{"prompt_tokens": null}', "5"])
def test_usage_without_numbers_is_none(usage: str) -> None:
    body = f'{{"choices": [{{"message": {{"content": "a"}}, "finish_reason": "stop"}}], "usage": {usage}}}'
    assert read_reply(body).used is None


@pytest.mark.parametrize(
    ("finish", "is_good"), [("stop", True), ("tool_calls", True), ("error", False), ("abort", False)]
)
def test_an_answer_that_ended_oddly_is_none(finish: str, is_good: bool) -> None:
    reply = read_reply(completion('{"content": "half of it"}', finish).decode())
    assert (reply.refusal == "") == is_good


def test_odd_replies_that_can_be_read_are() -> None:
    parts = (
        '[{"type": "thinking", "thinking": [{"type": "text", "text": "why"}]}, {"type": "text", "text": "a"}]'
    )
    assert read_reply(completion(f'{{"content": {parts}}}').decode()).text == "<think>\nwhy\n</think>\n\na"
    call = '{"tool_calls": [{"function": {"name": "now", "arguments": ""}}]}'
    assert json.loads(read_reply(completion(call).decode()).calls)[0]["function"]["arguments"] == {}
    assert read_reply(completion('{"content": "why</think>a"}').decode()).text == "<think>why</think>a"
    told = '{"content": "a", "reasoning_content": "", "reasoning": "why"}'
    assert read_reply(completion(told).decode()).reasoning == "why"


def test_a_server_that_tells_no_usage_still_ends_at_the_budget(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    """24 characters are counted as 7 tokens."""
    proxy.after = "untold"
    with open_here(tree := tree_of(small_world, proxy, budget_usd=10.0), tmp_path) as here:
        rows = put(here, tree, ASKS).read()
    assert len(proxy.seen) == 2
    assert rows["usd"].sum() == 14.0


def test_a_budget_ends_the_retries_of_one_question_too(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    """Four questions whose answers came malformed were asked 24 times, past a budget of 2."""
    proxy.after = "no message"
    with open_here(tree := tree_of(small_world, proxy, budget_usd=2.0), tmp_path) as here:
        rows = put(here, tree, ASKS).read()
    assert len(proxy.seen) == 1
    assert rows["usd"].sum() == 7.0
    assert rows["error"].str.contains("budget of 2").all()


def test_calls_send_what_the_experiment_says(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    thinking = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": None}
    tree = tree_of(small_world, proxy, extra_body=thinking, limit_name="max_completion_tokens")
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    call = ToolCall("add", '{"a": 1}', "c")
    talk = (
        Message("system", "s"),
        Message("user", "use it"),
        Message("assistant", "", "thinking", (call,)),
        Message("tool", "3", name="add", tool_call_id="c"),
    )
    with open_here(tree, tmp_path) as here:
        first = put(here, tree, [Ask(Prompt(talk, json.dumps([tool])), 0)])
    sent = proxy.bodies[0]
    assert sent["max_completion_tokens"] == 8
    assert not {"max_tokens", "temperature"} & set(sent)
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["tools"] == [tool]
    function = {"name": "add", "arguments": '{"a": 1}'}
    assert sent["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "use it"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": function, "id": "c"}],
        },
        {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c"},
    ]
    told = tree_of(small_world, proxy, extra_body={"top_k": 1})
    with open_here(told, tmp_path) as here:
        assert put(here, told, ASKS).table.owner.id != first.table.owner.id


@pytest.mark.parametrize(
    "body",
    [
        b"[1, 2]",
        b"null",
        b'"x"',
        b'{"choices": {}}',
        b'{"choices": [3], "usage": 5}',
        completion('{"role": "assistant", "content": [{"type": "image_url"}]}'),
        completion('{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}'),
    ],
)
def test_what_is_no_completion_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_reply(body.decode())


def test_the_next_shards_calls_begin_while_one_call_is_slow(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call is held until all other questions, of six shards, have been answered."""
    monkeypatch.setenv("TEST_KEY", "sk-test")
    others, released = threading.Event(), []
    lock, seen = threading.Lock(), []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                seen.append(1)
                is_first = len(seen) == 1
                if len(seen) == 24:
                    others.set()
            if is_first:
                released.append(others.wait(60))
            body = completion('{"role": "assistant", "content": "seven tokens"}')
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        tree = endpoint(small_world, url, Path("m"), concurrency=2)
        with open_here(tree, tmp_path, on_ray=True) as here:
            view = put(here, tree, [Ask(plain(f"What is {k}?"), 0) for k in range(24)])
    finally:
        server.shutdown()
        server.server_close()
    assert len(view.read()) == 24
    assert released == [True]
