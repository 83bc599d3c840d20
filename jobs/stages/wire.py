"""One POST to a server that is not trusted. The whole call ends within a time limit. Its body is bounded
before and after decompression. It is not redirected to another server.

A client's usual timeouts are per read, so a server that sends a byte now and then keeps a call open for ever.
Only a deadline over the whole call, headers included, ends that. So calls run on an event loop of their own,
and threads wait for them.
"""

import asyncio
import json
import re
import threading
import weakref
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from cluster.errors import describe
from jobs.stages.refusal import NoAnswer, Refused
from jobs.stages.secret import Secret

MOST_BYTES = 16 * 2**20  # a hundred thousand tokens of any script take less than a tenth
MOST_WORDS_BYTES = 2**16  # of an error's body; the words that are kept are much shorter
MOST_STEPS = 5  # redirects between paths of one server
CODINGS = ("gzip", "x-gzip", "deflate")
WINDOWS = (47, -15)  # zlib's wbits: with a header, then raw, which some servers send as deflate


@dataclass(frozen=True)
class Response:
    """A reply as text, with the key removed. `held_key` says whether the key was in it."""

    status: int
    headers: Mapping[str, str]
    text: str
    held_key: bool


class Wire:
    """The way to one server's chat completions.

    Args:
        timeout_s: the time limit of a whole call, from its connection to its last byte.
        connections: the most connections at once.
    """

    def __init__(self, base_url: str, key: Secret, timeout_s: float, connections: int) -> None:
        self.url, self.key, self.timeout_s = base_url.rstrip("/") + "/chat/completions", key, timeout_s
        headers = {
            "Authorization": f"Bearer {key.value}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx2.AsyncClient(headers=headers, timeout=None, limits=limits)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop, self._client), daemon=True).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def post(self, body: Mapping[str, Any]) -> Response:
        """Send a body. Returns the reply, whatever its status.

        Raises:
            NoAnswer: no complete reply came, or it was larger than any answer.
            Refused: the server redirects to another one.
        """
        content = json.dumps(body, allow_nan=False).encode()
        return asyncio.run_coroutine_threadsafe(self._post(content), self._loop).result()

    async def _post(self, content: bytes) -> Response:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._send(self._client.build_request("POST", self.url, content=content))
        except TimeoutError as error:
            raise NoAnswer(f"no whole answer within timeout_s, {self.timeout_s:g} s") from error
        except httpx2.HTTPError as error:
            raise NoAnswer(
                f"the connection failed or was lost: {self.key.hide(describe(error)).rstrip(': ')}"
            ) from error

    async def _send(self, request: httpx2.Request) -> Response:
        """Send a request. Follows redirects to other paths of the same server."""
        for _ in range(MOST_STEPS):
            response = await self._client.send(request, stream=True)
            try:
                onward = response.next_request
                if onward is None:
                    return await self._read(response)
                if onward.method != "POST" or _origin(onward) != _origin(request):
                    raise _leads_to(self.key.hide(str(onward.url)), response.status_code)
                request = onward
            finally:
                await response.aclose()
        raise _leads_to(self.key.hide(str(request.url)), response.status_code)

    async def _read(self, response: httpx2.Response) -> Response:
        """The body of a reply. Of an error only the beginning is read."""
        most = MOST_BYTES if response.is_success else MOST_WORDS_BYTES
        raw = bytearray()
        async for piece in response.aiter_raw():
            raw += piece
            if len(raw) > most:
                break
        body = unpacked(bytes(raw), response.headers.get("content-encoding", ""), most)
        if response.is_success and max(len(body), len(raw)) > most:
            told = f"a body of more than {most // 2**20} MiB, which no answer has"
            raise NoAnswer(told, is_final=True)
        text = decoded(body[:most], response.headers.get("content-type", ""))
        return Response(response.status_code, response.headers, self.key.hide(text), self.key.is_in(text))


def _origin(request: httpx2.Request) -> tuple[str, str, int | None]:
    """What a redirect must not change if the key is to be sent along."""
    return request.url.scheme, request.url.host, request.url.port


def _leads_to(where: str, status: int) -> Refused:
    told = f"HTTP {status}: the server redirects to {where[:200]}, where no key is sent; set base_url to it"
    return Refused(told, is_final=True, is_of_teacher=True)


def _run(loop: asyncio.AbstractEventLoop, client: httpx2.AsyncClient) -> None:
    """Run a loop until it is stopped, then close its connections."""
    loop.run_forever()
    loop.run_until_complete(client.aclose())
    loop.close()


CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]{1,40})", re.IGNORECASE)


def decoded(body: bytes, content_type: str) -> str:
    """A body as text: in UTF-8, or in the encoding that the server names if it is not UTF-8. Bytes that are
    neither are replaced.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        named = CHARSET.search(content_type)
    try:
        if named is not None and "utf" not in named[1].casefold():
            return body.decode(named[1])
    except (LookupError, UnicodeDecodeError):
        pass
    return body.decode("utf-8-sig", "replace")


def _members(raw: bytes, window: int, most: int) -> bytes:
    """Decompress all members of a body, up to shortly after `most` bytes."""
    found = b""
    while raw and len(found) <= most:
        member = zlib.decompressobj(window)
        found += member.decompress(raw, most + 1 - len(found))
        raw = member.unused_data
    return found


def unpacked(raw: bytes, coding: str, most: int) -> bytes:
    """Decompress a body. A longer body is cut shortly after `most` bytes.

    Raises:
        NoAnswer: the coding was not requested, or the body is not in it.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return raw
    if coding not in CODINGS:
        raise NoAnswer(f"a body in the coding {coding[:40]}, which was not requested", is_final=True)
    for window in WINDOWS:
        try:
            return _members(raw, window, most)
        except zlib.error:
            continue
    raise NoAnswer(f"a body that is not in {coding}, as it says")
