"""Is an answer right? A verdict with its reason, from the final answer and the reference.

Comparison may hang or crash (symbolic mathematics on text that a model wrote, or a user's own function), so
it runs in a child process that is killed at a wall-clock limit; a signal or a thread cannot stop it safely.
"""

import importlib
import multiprocessing as mp
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ClassVar, Literal

from cluster.errors import BadInput
from cluster.models.reasoning import split_reasoning
from selection.comparison import COMPARISONS
from selection.extraction import extract_final

State = Literal["correct", "wrong", "unparsed", "timed_out", "checker_error"]
Method = Literal["math", "exact", "numeric", "choice", "function"]


@dataclass(frozen=True)
class VerifySettings:
    """How answers are checked. `pattern` is a regular expression whose first group is the final answer."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: Method = "math"
    pattern: str | None = None
    function: str | None = None
    timeout_s: float = 5.0
    tolerance: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """The state, and the final answer that was found in the text ("" if none)."""

    state: State
    extracted: str


def load_function(path: str) -> Callable[[str, str], bool]:
    """Import a user's check by dotted path `package.module:function`; it gets (answer text, reference).

    Raises:
        BadInput: it cannot be imported or is not callable.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            "cannot import verify.function", path, "package.module:function", str(error)
        ) from error
    if not callable(function):
        raise BadInput("verify.function is not callable", path, "a function (answer, reference) -> bool", "")
    return function  # type: ignore[no-any-return]


def judge(text: str, reference: str, settings: VerifySettings) -> Verdict:
    """Check one answer in this process, with no time limit."""
    if settings.method == "function":
        right = load_function(settings.function or "")(text, reference)
        return Verdict("correct" if right else "wrong", "")
    got = extract_final(split_reasoning(text)[1], settings.pattern)  # what is thought on the way is no answer
    if got is None or not got.strip():
        return Verdict("unparsed", "")
    gold = extract_final(reference, settings.pattern) or reference
    same = COMPARISONS[settings.method](got.strip(), gold.strip(), settings.tolerance)
    if same is None:
        return Verdict("unparsed", got.strip())
    return Verdict("correct" if same else "wrong", got.strip())


def _serve(pipe: Connection, settings: VerifySettings) -> None:
    """The child's loop: answer one question at a time until the pipe closes."""
    if settings.method == "math":
        import math_verify  # noqa: F401  # imported before the clock of the first answer starts
    pipe.send("ready")
    while True:
        try:
            text, reference = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(judge(text, reference, settings))
        except BadInput as error:
            pipe.send(error)
        except (
            Exception
        ) as error:  # a user's function or sympy may raise anything; it is a verdict, not a crash
            pipe.send(Verdict("checker_error", f"{type(error).__name__}: {error}"[:200]))


class Verifier:
    """Checks answers in a child process that is killed
    and replaced when one takes longer than `timeout_s`.
    """

    def __init__(self, settings: VerifySettings) -> None:
        self.settings = settings
        if settings.method == "function":
            load_function(settings.function or "")
        if settings.pattern is not None:
            try:
                groups = re.compile(settings.pattern).groups
            except re.error as error:
                raise BadInput(
                    "verify.pattern is not a regular expression", settings.pattern, "", str(error)
                ) from error
            if groups != 1:
                raise BadInput(
                    "verify.pattern needs exactly one group",
                    settings.pattern,
                    "one ( ) around the answer",
                    "",
                )
        self._process: mp.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child process."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _child(self) -> Connection:
        if self._pipe is not None:
            return self._pipe
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.settings), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()
        return self._pipe

    def check(self, text: str, reference: str) -> Verdict:
        """Verify one answer against its reference.

        Raises:
            BadInput: the reference itself cannot be used with this method.
        """
        pipe = self._child()
        pipe.send((text, reference))
        if not pipe.poll(self.settings.timeout_s):
            self.close()
            return Verdict("timed_out", "")
        try:
            verdict = pipe.recv()
        except (EOFError, ConnectionResetError):
            self.close()
            return Verdict("checker_error", "the checking process died")
        if isinstance(verdict, BadInput):
            raise verdict
        return verdict  # type: ignore[no-any-return]

    def check_all(self, pairs: Iterable[tuple[str, str]]) -> list[Verdict]:
        """Verify (answer, reference) pairs in order; a text seen before with the same reference is not
        checked twice.
        """
        known: dict[tuple[str, str], Verdict] = {}
        verdicts = []
        for pair in pairs:
            if pair not in known:
                known[pair] = self.check(*pair)
            verdicts.append(known[pair])
        return verdicts


@lru_cache(maxsize=1)
def process_verifier(settings: VerifySettings) -> Verifier:
    """The one verifier of this process: starting the checking child takes longer than checking a thousand
    answers.
    """
    return Verifier(settings)
