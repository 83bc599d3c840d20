"""An engine of the standard library alone: /health, and an echo of token ids on /v1/completions. It has a
child process, and both have a name in /dev/shm open, as in real engines. It can be told to fail.

    plain_engine.py (--uds PATH | --port N) [--shared NAME] [--dies WORDS] [--never-ready]
"""

import argparse
import json
import os
import socketserver
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Calls(BaseHTTPRequestHandler):
    """Answers calls. With a key in the environment, only calls that carry it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(503 if "--never-ready" in sys.argv else 200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = os.environ.get("ENGINE_KEY")
        if key is not None and self.headers["Authorization"] != f"Bearer {key}":
            return self.reply(401, {"error": "no key"})
        said = {"token_ids": body["prompt"][::-1], "finish_reason": "stop"}
        return self.reply(200, {"choices": [said], "pid": os.getpid(), "child": child.pid})

    def reply(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def address_string(self) -> str:
        return "local"


class OnSocket(socketserver.ThreadingUnixStreamServer):
    """An HTTP server on a Unix socket."""

    daemon_threads = True


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--uds", "--port", "--shared", "--dies", "--model"):
        parser.add_argument(name)
    parser.add_argument("--never-ready", action="store_true")
    given = parser.parse_args()
    if given.dies:
        print("loading weights")
        sys.exit(given.dies)
    shared = [os.open(f"/dev/shm/{given.shared}", os.O_RDWR | os.O_CREAT)] if given.shared else []
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=shared)
    server: Any = (
        OnSocket(given.uds, Calls) if given.uds else HTTPServer(("127.0.0.1", int(given.port)), Calls)
    )
    server.serve_forever()
