"""Is an answer right? Extraction of the final answer, comparison with the reference, and a verdict with its
reason.

Comparison may hang or crash (symbolic mathematics on text that a model wrote, or a user's own function), so
it runs in a child process that is killed at a wall-clock limit; a signal or a thread cannot stop it safely.
"""

import importlib
import multiprocessing as mp
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ClassVar, Literal

from cluster.errors import BadInput
from cluster.models.reasoning import split_reasoning

State = Literal["correct", "wrong", "unparsed", "timed_out", "checker_error"]
Method = Literal["math", "exact", "numeric", "choice", "function"]
BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
MARKUP = r"[*_`\s]*"  # chat models set the word, the answer or both in bold
FINAL_MARKS = (
    re.compile(r"^\s*####\s*(.+?)\s*$", re.MULTILINE),
    re.compile(
        rf"^{MARKUP}(?:A|Answer|Final answer){MARKUP}:{MARKUP}(.+?)\s*$", re.MULTILINE | re.IGNORECASE
    ),
    re.compile(
        rf"(?:final )?answer{MARKUP}is{MARKUP}:?{MARKUP}(.+?)\s*\.?{MARKUP}$", re.MULTILINE | re.IGNORECASE
    ),
)
WORDS = re.compile(r"[^\W\d_]{2,}(?:[\s-]+[^\W\d_]+)*")
CHOICE = re.compile(r"^\(?([A-Za-z])\)?[.:)]?(?:\s|$)")
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


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


def extract_final(text: str, pattern: str | None = None) -> str | None:
    r"""Find the final answer in a worked answer: the last match of `pattern`, else `\boxed{}`, `####`, `A:`,
    "answer is".

    There is no fall-back to the last number or to a substring: those pass 12 for 2.

    >>> extract_final(r"so \boxed{\frac{1}{2}}. Check with 10 items")
    '\\frac{1}{2}'
    >>> extract_final("after 15 steps we have 7") is None
    True
    """
    if pattern is not None:
        found = re.findall(pattern, text, re.MULTILINE)
        last = found[-1] if found else None
        return (last[0] if isinstance(last, tuple) else last) if last is not None else None
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    found_last = [found[-1] for found in (list(mark.finditer(text)) for mark in FINAL_MARKS) if found]
    if not found_last:
        return None
    return str(max(found_last, key=lambda match: match.start(1)).group(1)).strip("*_` ")


def _last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` whose braces balance."""
    for match in reversed(list(BOXED.finditer(text))):
        depth = 1
        for i in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[match.end() : i]
    return None


def parse_number(text: str) -> Decimal | None:
    """Read text that is one number, with thousands separators, a currency sign, a percent sign or a unit
    around it.

    >>> parse_number("$1,234.50"), parse_number("3 or 4")
    (Decimal('1234.50'), None)
    """
    found = NUMBER.findall(text)
    if len(found) != 1:
        return None
    try:
        return Decimal(found[0].replace(",", ""))
    except InvalidOperation:
        return None


def _same_exact(got: str, reference: str, settings: VerifySettings) -> bool | None:
    return " ".join(got.split()) == " ".join(reference.split())


def _same_number(got: str, reference: str, settings: VerifySettings) -> bool | None:
    a, b = parse_number(got), parse_number(reference)
    if b is None:
        raise BadInput(
            "the reference is not one number",
            repr(reference[:60]),
            "a number",
            "use verify.method exact or math",
        )
    if a is None:
        return None
    return abs(a - b) <= Decimal(str(settings.tolerance)) * max(Decimal(1), abs(b))


def _same_choice(got: str, reference: str, settings: VerifySettings) -> bool | None:
    a, b = CHOICE.match(got.strip()), CHOICE.match(reference.strip())
    if b is None:
        raise BadInput(
            "the reference is not a choice letter",
            repr(reference[:60]),
            "A, (B) or c.",
            "use verify.method exact",
        )
    return None if a is None else a.group(1).upper() == b.group(1).upper()


def _same_math(got: str, reference: str, settings: VerifySettings) -> bool | None:
    """math-verify's symbolic comparison, its own alarms off: the child process is the limit."""
    from math_verify import parse, verify

    # as mathematics, a word is a product of its letters: "seat" would equal "east"
    if WORDS.fullmatch(reference):
        return got.casefold().strip(".") == reference.casefold()
    gold = parse(f"${reference}$", parsing_timeout=None)
    if not gold:
        raise BadInput(
            "the reference is no mathematics",
            repr(reference[:60]),
            "a number, an expression or a word",
            "use verify.method exact",
        )
    mine = parse(f"${got}$", parsing_timeout=None)
    if not mine:
        return None
    return bool(verify(gold, mine, timeout_seconds=None))


Comparison = Callable[[str, str, VerifySettings], bool | None]
COMPARISONS: dict[str, Comparison] = {
    "math": _same_math,
    "exact": _same_exact,
    "numeric": _same_number,
    "choice": _same_choice,
}


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
    same = COMPARISONS[settings.method](got.strip(), gold.strip(), settings)
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
