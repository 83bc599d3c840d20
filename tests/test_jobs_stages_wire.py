"""Calls of servers that nobody trusts, on loopback: what comes back is one answer's affair."""

import gzip
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobs.stages.refusal import NoAnswer, Refused, refused_with, retry_after
from jobs.stages.secret import Secret
from jobs.stages.wire import MOST_BYTES, Wire

KEY = Secret("sk-a-key-1234")
MIB = 2**20


class Server(ThreadingHTTPServer):
    """Gives every request to one function, which finds its last turn in `said`, and keeps its path."""

    daemon_threads = True
    seen: list[str]


@contextmanager
def serving(act: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.seen.append(self.path)
            self.said = sent.get("messages", [{"content": ""}])[-1]["content"]
            try:
                act(self)
            except OSError:  # the client has had enough
                self.close_connection = True

    server = Server(("127.0.0.1", 0), Handler)
    server.seen = []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def send(to: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    to.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        to.send_header(name.replace("_", "-"), value)
    to.end_headers()
    to.wfile.write(body)


def wire_to(server: Server, timeout_s: float = 30.0) -> Wire:
    return Wire(f"http://127.0.0.1:{server.server_port}/v1/", KEY, timeout_s, 4)


def packed(body: bytes, window: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize("place", ["headers", "body", "silence"])
def test_a_call_ends_in_time_however_slowly_a_server_speaks(place: str) -> None:
    """A byte now and then kept a call for ever, since every read was in time."""
    ended = threading.Event()

    def drip(to: BaseHTTPRequestHandler) -> None:
        start = b"HTTP/1.1 200 OK\r\n"
        to.wfile.write(start if place == "headers" else start + b"Content-Length: 9999\r\n\r\n")
        while not ended.wait(0.05):
            if place != "silence":
                to.wfile.write(b"x")
                to.wfile.flush()

    with serving(drip) as server:
        try:
            with pytest.raises(NoAnswer, match=r"timeout_s, 0\.5 s") as told:
                wire_to(server, 0.5).post({})
        finally:
            ended.set()
    assert not told.value.is_final


@pytest.mark.parametrize("coding", ["", "identity", "gzip", "deflate", "raw"])
def test_what_a_body_was_packed_with_makes_no_difference(coding: str) -> None:
    body = json.dumps({"said": "sieben ≠ 8" * 1000}).encode()
    pack = {
        "gzip": lambda: gzip.compress(body),
        "deflate": lambda: packed(body, 15),
        "raw": lambda: packed(body, -15),
    }
    name = {"raw": "deflate"}.get(coding, coding)

    def answer(to: BaseHTTPRequestHandler) -> None:
        send(to, pack.get(coding, lambda: body)(), **({"Content_Encoding": name} if name else {}))

    with serving(answer) as server:
        assert json.loads(wire_to(server).post({}).text) == json.loads(body)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_body_is_bounded_before_and_after_it_is_unpacked(is_packed: bool, status: int) -> None:
    """2 GiB of spaces in 2 MB of gzip took 6.3 GiB of memory. Of an error's body the beginning is read."""
    sent = []

    def flood(to: BaseHTTPRequestHandler) -> None:
        if is_packed:
            packer = zlib.compressobj(9, zlib.DEFLATED, 31)
            body = b"".join(packer.compress(b" " * MIB) for _ in range(40)) + packer.flush()
            return send(to, body, status, Content_Encoding="gzip")
        to.send_response(status)
        to.send_header("Content-Length", str(10**12))
        to.end_headers()
        while True:
            to.wfile.write(b" " * MIB)
            sent.append(1)

    with serving(flood) as server:
        if status == 200:
            with pytest.raises(NoAnswer, match="more than 16 MiB") as told:
                wire_to(server).post({})
            assert told.value.is_final
        else:
            assert len(wire_to(server).post({}).text) <= MOST_BYTES // 16
    assert len(sent) < 100


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "x" * 5000])
def test_a_coding_that_nobody_asked_for_is_named(coding: str) -> None:
    with (
        serving(lambda to: send(to, b"{}", Content_Encoding=coding)) as server,
        pytest.raises(NoAnswer, match="coding") as told,
    ):
        wire_to(server).post({})
    assert len(str(told.value)) < 200


def test_half_a_body_and_a_torn_connection_are_calls_to_make_again() -> None:
    def tear(to: BaseHTTPRequestHandler) -> None:
        to.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"choices":')
        to.wfile.flush()
        to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        to.connection.close()
        to.close_connection = True

    with serving(tear) as server:
        with pytest.raises(NoAnswer, match="the connection failed or was lost") as told:
            wire_to(server).post({})
        with pytest.raises(NoAnswer, match="the connection failed or was lost"):
            Wire(f"https://127.0.0.1:{server.server_port}", KEY, 5.0, 1).post({})
    assert not told.value.is_final


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_key_goes_to_no_other_server(status: int) -> None:
    with serving(lambda to: send(to, b"{}")) as other:
        for url in (
            f"http://127.0.0.1:{other.server_port}/v1/chat",
            "https://elsewhere.example/v1",
            "//x.example/",
        ):
            with (
                serving(lambda to, url=url: send(to, b"", status, Location=url)) as server,  # type: ignore[misc]
                pytest.raises(Refused, match="redirects to") as told,
            ):
                wire_to(server).post({})
            assert told.value.is_final
        assert other.seen == []


def test_another_path_of_the_same_server_is_followed_but_not_round_and_round() -> None:
    def lead(to: BaseHTTPRequestHandler) -> None:
        if to.path == "/v2":
            send(to, b'{"there": 1}')
        else:
            send(to, b"", 308, Location="/v2" if to.path.startswith("/v1") else to.path)

    with serving(lead) as server:
        assert wire_to(server).post({}).text == '{"there": 1}'
        assert server.seen == ["/v1/chat/completions", "/v2"]
        with pytest.raises(Refused, match="redirects to"):
            Wire(f"http://127.0.0.1:{server.server_port}/round", KEY, 5.0, 1).post({})


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"error": {"message": "no such model", "code": 404}}', 404, "no such model"),
        (b'{"error": "model not found"}', 404, "model not found"),
        (b'{"detail": [{"loc": ["body"], "msg": "too long"}]}', 422, "too long"),
        (b'{"object": "error", "message": "context length"}', 400, "context length"),
        (b'{"base_resp": {"status_msg": "no credit"}}', 402, "no credit"),
        (b'[{"error": {"message": "in a list"}}]', 400, "in a list"),
        (
            b'{"error": {"message": "Failed", "metadata": {"raw": "{\\"error\\": \\"overloaded\\"}"}}}',
            502,
            "overloaded",
        ),
        (b"<html><head><style>p {}</style><title>Forbidden</title></head></html>", 403, "Forbidden"),
        (b"upstream\r\n  is gone \x00", 503, "upstream is gone"),
        (b"", 500, "no message"),
        (b"[" * 100_000, 500, "[[["),
        (b"\xff\xfe\xc0", 500, "\ufffd"),
    ],
)
def test_an_errors_words_are_kept_whatever_they_stand_in(body: bytes, status: int, words: str) -> None:
    with serving(lambda to: send(to, body, status)) as server:
        got = wire_to(server).post({})
    problem = refused_with(got.status, got.text)
    assert words in str(problem)
    assert str(problem).startswith(f"HTTP {status}: ")
    assert len(str(problem)) < 400
    assert "<" not in str(problem)
    assert problem.is_final == (status < 500)


def test_which_statuses_are_asked_again_and_which_may_hold_for_all() -> None:
    kinds = {status: refused_with(status, "") for status in range(300, 600)}
    assert {s for s, p in kinds.items() if not p.is_final} == {408, 409, 425, 429, *range(500, 600)}
    assert {s for s, p in kinds.items() if p.is_of_teacher} == {400, 402, 403, 404, 405, 407, 410, 422}


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({}, 0, 0),
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after": " 1.5 "}, 1.5, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25, 0.25),
        ({"retry-after": "-5"}, 0, 0),
        ({"retry-after": "nan"}, 0, 0),
        ({"retry-after": "inf"}, 0, 0),
        ({"retry-after": "9" * 400}, 0, 0),
        ({"retry-after": "soon"}, 0, 0),
        ({"retry-after": ""}, 0, 0),
        ({"retry-after": formatdate(0, usegmt=True)}, 0, 0),
        ({"retry-after": "Wed, 99 Foo 2026 00:00:00 GMT"}, 0, 0),
        ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, 0, 0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], low: float, high: float) -> None:
    assert low <= retry_after(headers) <= high


def test_a_date_to_come_back_at_is_waited_for() -> None:
    began = time.time()
    asked = retry_after({"retry-after": formatdate(began + 3600, usegmt=True)})
    passed = time.time() - began
    assert 3598 - passed <= asked <= 3600  # a date has whole seconds


def test_a_server_that_asks_for_a_day_is_not_waited_for() -> None:
    error = NoAnswer("slow down")
    error.wait_for({"retry-after": "86400"})
    assert error.is_final
    assert str(error) == "slow down (it asks to wait 86400 s)"


def test_a_key_that_comes_back_is_marked_wherever_it_stands() -> None:
    echo = f'{{"words": "Bearer {KEY.value}", "{KEY.value}": 1}}'.encode()
    for status in (200, 400):
        with serving(lambda to, status=status: send(to, echo, status)) as server:  # type: ignore[misc]
            got = wire_to(server).post({})
        assert KEY.value not in got.text
        assert got.held_key


@pytest.mark.parametrize("word", ["none", "EMPTY", "ollama", "x", "0", "1234", "12345678"])
def test_a_word_in_place_of_a_key_is_looked_for_nowhere(word: str) -> None:
    assert Secret(word).hide(f"{word} of them: {word}") == f"{word} of them: {word}"


@pytest.mark.parametrize("key", ["sk-test", "k3y-12", "a" * 16, "abc.def/ghi+=="])
def test_a_key_is_hidden_and_never_printed(key: str) -> None:
    assert Secret(key).hide(f"it is {key}!") == "it is ***!"
    assert key not in repr(Secret(key))


def test_what_is_no_json_is_sent_to_nobody() -> None:
    with serving(lambda to: send(to, b"{}")) as server:
        for odd in ({"x": float("nan")}, {"x": object()}):
            with pytest.raises((ValueError, TypeError)):
                wire_to(server).post(odd)
        half: dict[str, Any] = {"x": "half \ud83d"}
        assert wire_to(server).post(half).status == 200
        assert len(server.seen) == 1
