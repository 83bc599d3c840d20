"""What a server sends instead of an answer: a status, an error inside a 200, and when to call again."""

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

SAID = 300  # how many characters of a server's words are kept
MOST_PAUSE_S = 120.0  # if a server asks for a longer pause, it is not called again
KEY_REFUSED = 401
OF_TEACHER = (402, 403, 404, 405, 407, 410)  # may concern one question or all: credit, model, address
OF_PARAMETER = (400, 422)  # may concern one question, or a parameter of all calls
TEMPORARY = (408, 409, 425, 429)
WORDS = ("message", "msg", "detail", "error", "error_message", "errors", "status_msg", "description")
INSIDE = ("metadata", "raw", "base_resp")  # where gateways put what the server behind them said


class NoAnswer(Exception):
    """A call gave no answer.

    Attributes:
        used: tokens of prompt and answer that the server reports all the same. They are paid for.
        is_final: whether another call would fail in the same way.
        is_of_teacher: whether it may concern every question: the credit, the model, the address.
        after_s: how long the server asks to wait before another call.
    """

    kind = ""  # printed before the server's words
    may_cost = False  # whether a call without reported tokens may cost something

    def __init__(
        self,
        problem: str,
        used: tuple[int, int] | None = None,
        is_final: bool = False,
        is_of_teacher: bool = False,
    ) -> None:
        super().__init__(problem)
        self.used, self.is_final, self.is_of_teacher = used, is_final, is_of_teacher
        self.after_s = 0.0

    def wait_for(self, headers: Mapping[str, str]) -> None:
        """Read from the reply's headers when to call again."""
        self.after_s = retry_after(headers)
        if self.after_s > MOST_PAUSE_S:
            self.is_final = True
            self.args = (f"{self} (it asks to wait {self.after_s:.0f} s)",)


class Refused(NoAnswer):
    """A server refuses to answer, in its own words."""


class KeyRefused(NoAnswer):
    """A server refuses the key, so every question will fail."""


def refused_with(status: int, body: str) -> NoAnswer:
    """The error of a reply with an error status."""
    told = f"HTTP {status}: {words_of_body(body) or 'no message'}"
    if status == KEY_REFUSED:
        return KeyRefused(told, is_final=True)
    is_temporary = status in TEMPORARY or status >= 500
    is_of_teacher = status in OF_TEACHER or status in OF_PARAMETER
    return Refused(told, is_final=not is_temporary, is_of_teacher=is_of_teacher)


def error_in(found: Any) -> str:
    """The words of an error that stands in place of an answer. Empty if there is none."""
    if not isinstance(found, Mapping):
        return ""
    error = found.get("error")
    if error and not _says_nothing(error):
        code = error.get("code") if isinstance(error, Mapping) else None
        words = words_of(error) or json.dumps(error, default=str)
        return f"{words} (code {code})" if code not in (None, "") else words
    if found.get("choices"):
        return ""
    return words_of({name: found[name] for name in (*WORDS, *INSIDE) if name in found})


def _says_nothing(error: Any) -> bool:
    """Whether an error object has only empty values, as some servers send beside every answer."""
    return isinstance(error, Mapping) and not any(bool(value) for value in error.values())


def words_of_body(body: str) -> str:
    """The words in the body of an error: JSON, a page or plain text."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    return _line(words_of(found) or _plain(body))


def words_of(found: Any) -> str:
    """The words of an error object. A gateway's own words come first, then those of the server behind it."""
    if isinstance(found, str):
        return _line(_plain(found))
    if isinstance(found, list):
        return next((words for words in map(words_of, found[:3]) if words), "")
    if not isinstance(found, Mapping):
        return ""
    place = found.get("loc")
    if isinstance(place, list) and isinstance(found.get("msg"), str):  # of FastAPI
        return _line(f"{found['msg']}: {'.'.join(map(str, place))}")
    first = next((words for name in WORDS if (words := words_of(found.get(name)))), "")
    more = next((words for name in INSIDE if (words := words_of(found.get(name)))), "")
    return _line(f"{first}: {more}" if first and more and more not in first else first or more)


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a server asks to wait. It sends them in (milli)seconds or as a date. 0 if it sends
    none.
    """
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        told = headers.get(name, "")
        try:
            wait_s = float(told) / per_second
        except ValueError:
            continue
        return max(wait_s, 0.0) if math.isfinite(wait_s) else 0.0
    try:
        return max(parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _plain(text: str) -> str:
    """A page's text without markup."""
    if not text.lstrip().startswith("<"):
        return text
    return re.sub(r"<[^>]*>", " ", re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", text[: 2**14]))


def _line(text: str) -> str:
    return " ".join(text[: 2**14].split())[:SAID]
