"""A small real HTTP proxy that injects faults in front of an OpenAI-compatible server, one plan entry per
request.
"""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("ok", "429", "500", "slow", "malformed", "empty", "half")


def completion(message: str, finish: str = "stop") -> bytes:
    """A chat completion of 5 prompt and 7 answer tokens with this message."""
    choice = f'{{"message": {message}, "finish_reason": "{finish}"}}'
    return f'{{"choices": [{choice}], "usage": {{"prompt_tokens": 5, "completion_tokens": 7}}}}'.encode()


# Answers of this proxy's own, without a server behind it.
BODIES = {
    "seven": completion('{"role": "assistant", "content": "seven tokens"}'),
    "null": completion('{"role": "assistant", "content": null}', "length"),
    "surrogate": completion('{"role": "assistant", "content": "half \\ud83d"}'),
    "no message": b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}',
    "no text": completion('{"role": "assistant", "content": 3}'),
    "reasoned": completion('{"role": "assistant", "content": "A:7", "reasoning_content": "3 and 4"}'),
    "thought": completion('{"role": "assistant", "content": null, "reasoning": "let me"}', "length"),
    "parts": completion('{"role": "assistant", "content": [{"type": "text", "text": "A:7"}]}'),
    "calls": completion(
        '{"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", '
        '"function": {"name": "add", "arguments": "{\\"a\\": 1}"}}]}',
        "tool_calls",
    ),
    "refusal": completion('{"role": "assistant", "content": null, "refusal": "I will not."}'),
    "untold": b'{"choices": [{"message": {"content": "twelve characters twice."}, "finish_reason": "stop"}]}',
    "right": completion('{"role": "assistant", "content": "It is.\\nVERDICT: right"}'),
    "undecided": completion('{"role": "assistant", "content": "Hard to say."}'),
}


class FaultProxy:
    """Forwards POSTs to `target`; the n-th request gets the n-th fault of `plan`, later ones `after`."""

    def __init__(self, target: str, plan: list[str], after: str = "ok") -> None:
        self.target, self.plan, self.after = target, list(plan), after
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.stop_slow = threading.Event()
        lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    fault = proxy.plan.pop(0) if proxy.plan else proxy.after
                    proxy.seen.append(fault)
                    proxy.bodies.append(json.loads(body))
                    proxy.headers.append({k.lower(): v for k, v in self.headers.items()})
                if fault == "slow":
                    proxy.stop_slow.wait()  # longer than the client's limit; released when the test ends
                    return
                if fault in ("400", "401", "429", "500"):
                    self._answer(
                        int(fault),
                        b'{"error": {"message": "injected", "you sent": "'
                        + self.headers.get("Authorization", "").encode()
                        + b'"}}',
                    )
                elif fault in BODIES:
                    self._answer(200, BODIES[fault])
                elif fault == "malformed":
                    self._answer(200, b'{"id": "x", "object": "chat.completion"}')
                elif fault == "empty":
                    self._answer(200, b'{"choices": []}')
                elif fault == "half":
                    self._answer(200, b'{"choices": [{"message": {"role": "assi')
                else:
                    request = urllib.request.Request(
                        proxy.target + self.path, body, {"Content-Type": "application/json"}
                    )
                    with urllib.request.urlopen(request, timeout=120) as response:
                        self._answer(response.status, response.read())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.stop_slow.set()
        self.server.shutdown()
        self.server.server_close()
