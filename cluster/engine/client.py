"""Calls to an engine that we own, over its socket or its port. Threads may share a client."""

import json
from collections.abc import Mapping
from typing import Any

CONNECT_S, HEALTH_S = 10.0, 10.0  # seconds for a connection, and for an engine's word that it is well
MOST_WORDS = 400  # characters of an error's text that are kept


class NoEngine(Exception):
    """There is no engine at the other end, or it ended during the call."""


class Refusal(Exception):
    """The engine refuses a call."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"HTTP {status}: {' '.join(words.split())[:MOST_WORDS]}")
        self.status = status

    @property
    def may_pass(self) -> bool:
        """Whether the same call may be answered later: the engine is busy, starting, or about to end."""
        return self.status in (408, 425, 429) or self.status >= 500


class EngineClient:
    """The way to one engine.

    Args:
        key: a secret that calls carry, for an engine that listens on a port.
        socket: the path of its socket. None if it has a port.
        timeout_s: the seconds that one call may take.
    """

    def __init__(self, base: str, key: str, socket: str | None, timeout_s: float) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        self._http = httpx2.Client(
            base_url=base,
            headers={"Authorization": f"Bearer {key}"},
            transport=httpx2.HTTPTransport(uds=socket, limits=limits),
            timeout=httpx2.Timeout(timeout_s, connect=CONNECT_S),
        )

    def get(self, path: str) -> int:
        """The status of a GET.

        Raises:
            NoEngine: nothing answered in time.
        """
        return int(self._send("GET", path, None, HEALTH_S).status_code)

    def ask(self, path: str) -> Any:
        """The JSON of a GET. None if there is none."""
        try:
            return self._send("GET", path, None, HEALTH_S).json()
        except (NoEngine, ValueError):
            return None

    def post(self, path: str, body: Mapping[str, Any], as_text: bool = False) -> Any:
        """Send a body and return the reply's JSON, or its text if it is not JSON or `as_text`.

        Raises:
            NoEngine: no whole reply came.
            Refusal: the engine refuses the call.
        """
        reply = self._send("POST", path, body)
        if reply.status_code >= 300:
            raise Refusal(reply.status_code, reply.text)
        if as_text:
            return reply.text
        try:
            return reply.json()
        except ValueError:
            return reply.text

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float | None = None
    ) -> Any:
        import httpx2

        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {"Content-Type": "application/json"} if content else {}
        own = httpx2.USE_CLIENT_DEFAULT if timeout_s is None else httpx2.Timeout(timeout_s)
        try:
            return self._http.request(method, path, content=content, headers=headers, timeout=own)
        except httpx2.HTTPError as error:
            raise NoEngine(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._http.close()
