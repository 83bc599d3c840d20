"""Verdicts on answers, with reasons, from the final answer and the references.

Symbolic mathematics on a model's text, or a user's own function, may hang or crash. So `checking` runs this
module in a child process that is killed at a wall-clock limit.
"""

import inspect
import json
import math
import numbers
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from cluster.errors import BadInput
from cluster.models.reasoning import split_reasoning, without_channels
from cluster.own_modules import import_module, own_folders, stamp_of
from selection.choices import told_choice
from selection.comparison import COMPARISONS, UnreadableReference
from selection.extraction import extract_final, stands_alone
from selection.opposites import opposed, swapped
from selection.typography import composed

# an answer that cannot be read is unparsed and never wrong; an unreadable reference has its own state
State = Literal["correct", "wrong", "unparsed", "unreadable_reference", "timed_out", "checker_error"]
# `none` accepts every answer; `judge` asks a model and is implemented elsewhere
Method = Literal["math", "exact", "numeric", "choice", "function", "none", "judge"]
METHODS = (*COMPARISONS, "function", "none", "judge")


@dataclass(frozen=True)
class VerifySettings:
    """How answers are checked. `pattern` is a regular expression whose first group is the final answer.
    `function` is `package.module:name`, for method `function`. A check that takes longer than `timeout_s` has
    the verdict `timed_out`. `tolerance` is how far two numbers may be apart under `numeric` and `math`,
    relative to the larger one.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: Method = "math"
    pattern: str | None = None
    function: str | None = None
    timeout_s: float = 5.0
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """The input of a check.

    Attributes:
        references: right answers, of which one is enough.
        row: JSON text of the question's row with its messages and the answer's tool calls. Empty if the check
            does not need it.
    """

    text: str
    references: tuple[str, ...]
    row: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, and the final answer that was found in the text ("" if none)."""

    state: State
    extracted: str


def check_settings(settings: VerifySettings) -> None:
    """Refuse settings with which answers cannot be checked.

    Raises:
        BadInput: the function cannot be imported, or the pattern has not exactly one group.
    """
    if settings.function is not None and not isinstance(settings.function, str):
        raise BadInput(
            "verify.function is no text", type(settings.function).__name__, "package.module:function", ""
        )
    for name, value, low in (("timeout_s", settings.timeout_s, 0.0), ("tolerance", settings.tolerance, -1.0)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise BadInput(f"verify.{name} is no number", repr(value), "a number", "")
        if not low < value < math.inf or value < 0:
            raise BadInput(f"verify.{name} is out of range", value, "0 or more" if low else "more than 0", "")
    if settings.method == "function" and not settings.function:
        remedy = "set verify.function, or --function"
        raise BadInput("method function names no function", "", "package.module:function", remedy)
    if settings.method == "function" or settings.function:
        _refuse_uncallable(load_function(settings.function or ""), settings.function or "")
    if settings.pattern is None:
        return
    try:
        groups = re.compile(settings.pattern).groups
    except re.error as error:
        raise BadInput(
            "verify.pattern is not a regular expression", settings.pattern, "", str(error)
        ) from error
    if groups != 1:
        raise BadInput(
            "verify.pattern needs exactly one group", settings.pattern, "one ( ) around the answer", ""
        )


def load_function(path: str) -> Callable[..., bool]:
    """Import a user's check by its path `package.module:function`. It gets (answer text, reference). The
    reference is a list if there are several or none. With a parameter `row` it also gets the question's row.

    The user's module comes before an installed one of the same name; see `cluster.own_modules`.

    Raises:
        BadInput: it cannot be imported or is not callable.
    """
    return _load_function(path, tuple(own_folders()), stamp_of(path.partition(":")[0].split(".")))


@lru_cache(maxsize=8)
def _load_function(
    path: str, _folders: tuple[Path, ...], _stamp: tuple[int, int] | None
) -> Callable[..., bool]:
    module, _, name = path.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # a user's module may do anything while it is imported
        what = f"{type(error).__name__}: {error}"
        raise BadInput("cannot import verify.function", path, "package.module:function", what) from error
    if not callable(function):
        raise BadInput("verify.function is not callable", path, "a function (answer, reference) -> bool", "")
    return function  # type: ignore[no-any-return]


def reads_rows(settings: VerifySettings) -> bool:
    """Whether the user's function has a parameter `row`."""
    if not settings.function:
        return False
    try:
        return "row" in inspect.signature(load_function(settings.function or "")).parameters
    except ValueError:  # some functions written in C tell no parameters
        return False


def _refuse_uncallable(function: Callable[..., Any], path: str) -> None:
    """Refuse what cannot be called with an answer and a reference.

    Raises:
        BadInput: a class, an async function, or one with other parameters.
    """
    expected = "a function (answer, reference) -> bool, with row as a third parameter if it wants it"
    if inspect.isclass(function) or inspect.iscoroutinefunction(function):
        kind = "a class" if inspect.isclass(function) else "an async function"
        raise BadInput("verify.function cannot be called as a check", f"{path}, {kind}", expected, "")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return
    given: dict[str, Any] = {"row": {}} if "row" in signature.parameters else {}
    try:
        signature.bind("answer", "reference", **given)
    except TypeError as error:
        raise BadInput(
            "verify.function cannot be called as a check", f"{path}{signature}: {error}", expected, ""
        ) from error


def judge(text: str, given: str | tuple[str, ...], settings: VerifySettings, row: str = "") -> Verdict:
    """Check one answer in this process, with no time limit.

    Raises:
        BadInput: there is no reference.
    """
    references = (given,) if isinstance(given, str) else given
    if settings.method == "none":
        return Verdict("correct", "")
    if settings.method == "function":
        return _by_function(text, references, settings, row)
    text, references = composed(text), tuple(map(composed, references))
    if not references:
        raise BadInput("no reference to check against", "", f"one, for method {settings.method}", "")
    got, is_marked = result_in(text, settings)
    if got is None:
        return Verdict("unparsed", "")
    compare, found, reason = COMPARISONS[settings.method], [], ""
    for reference in references:
        final = final_of_reference(reference, settings.pattern)
        try:
            is_same = compare(got, final, settings.tolerance)
            is_read = settings.method in ("math", "numeric") and got != final
            is_doubtful = is_same and is_read and (opposed(got, final) or swapped(got, final))
            found.append(None if is_doubtful else is_same)
        except UnreadableReference as error:
            reason = f"the reference {reference[:60]!r} is {error}"
    if not found:
        return Verdict("unreadable_reference", reason)
    if True in found:
        return Verdict("correct", got)
    is_wrong = False in found and (is_marked or settings.method != "exact")
    return Verdict("wrong" if is_wrong else "unparsed", got)


# what a program reads and no reader, and the sign at the end of a proof
NO_ANSWERS = re.compile(r"<(tool_call|tool_response|reasoning)>.*?</\1>", re.DOTALL)
END_OF_PROOF = re.compile(r"[\s$]*(?:\\(?:black)?square|\\qed|[∎□■]|Q\.E\.D\.?)[\s$.]*\Z")


def result_in(text: str, settings: VerifySettings) -> tuple[str | None, bool]:
    """The final answer of a text, as it stands there, and whether a mark tells where it stands. None if there
    is none.
    """
    if "<|channel|>" in text:
        text = without_channels(text)
    said = split_reasoning(text)[1]  # reasoning is no answer
    if "</" in said:
        said = NO_ANSWERS.sub("", said)
    got = extract_final(said, settings.pattern)
    if got and settings.pattern is None and not got[-1].isdigit():
        got = END_OF_PROOF.sub("", got)
    is_marked = got is not None or settings.pattern is not None
    if not is_marked:
        got = stands_alone(said)
    if got is None and settings.method == "choice":
        got = told_choice(said)
    return (got or "").strip() or None, is_marked


def majority(
    texts: Sequence[str], settings: VerifySettings, check: Callable[[str, str], bool] | None = None
) -> str | None:
    """The result that more texts end in than in any other, and at least two. None if there is no such result.

    Args:
        check: whether a text comes to a result. By default in this process, with no time limit.

    >>> said = ["The answer is 12.", "Answer: 12.0", "Answer: 7", "I do not know"]
    >>> majority(said, VerifySettings("numeric"))
    '12'
    >>> majority(["Answer: 3", "Answer: 4"], VerifySettings("numeric"))
    >>> majority(["Answer: 3"], VerifySettings("numeric"))
    """

    def here(text: str, result: str) -> bool:
        return judge(text, result, settings).state == "correct"

    is_same = check or here
    groups: list[tuple[str, int]] = []
    for text in texts:
        got, _ = result_in(text, settings)
        if got is None:
            continue
        own = next((k for k, (first, _) in enumerate(groups) if first == got or is_same(text, first)), None)
        if own is None:
            groups.append((got, 1))
        else:
            groups[own] = groups[own][0], groups[own][1] + 1
    sizes = sorted((size for _, size in groups), reverse=True)
    if not sizes or sizes[0] < 2 or sizes[:2].count(sizes[0]) > 1:
        return None
    return max(groups, key=lambda group: group[1])[0]


def unreadable(references: tuple[str, ...], settings: VerifySettings) -> str:
    """Why a method can read none of these references. "" if it can read one. Only for methods that need no
    computer algebra for that.

    >>> unreadable(("a few",), VerifySettings(method="numeric"))
    "'a few' is not one number"
    """
    if settings.method not in ("numeric", "choice"):
        return ""
    reason = ""
    for reference in references:
        final = final_of_reference(reference, settings.pattern)
        try:
            COMPARISONS[settings.method](final, final, settings.tolerance)
        except UnreadableReference as error:
            reason = reason or f"{reference[:60]!r} is {error}"
        else:
            return ""
    return reason


@lru_cache(maxsize=4096)
def final_of_reference(reference: str, pattern: str | None) -> str:
    """The text that an answer is compared with: the final answer of a worked reference, otherwise all of it.
    It is cached, because a question's answers come together.
    """
    said = split_reasoning(reference)[1] or reference
    return (extract_final(said, pattern) or said).strip()


def _by_function(text: str, references: tuple[str, ...], settings: VerifySettings, row: str) -> Verdict:
    function = load_function(settings.function or "")
    given: Any = references[0] if len(references) == 1 else list(references)
    right = function(text, given, row=json.loads(row)) if reads_rows(settings) else function(text, given)
    return Verdict("correct" if is_right(right, settings.function or "") else "wrong", "")


def is_right(value: Any, function: str) -> bool:
    """What a user's check returned: True or False, or 1 or 0 as a number.

    Raises:
        TypeError: something else, such as a tuple, a text or a part of a reward, of which nobody could say
            whether it means right.
    """
    plain = value.item() if hasattr(value, "item") and not isinstance(value, type) else value
    if isinstance(plain, bool | int | float) and plain in (0, 1):
        return bool(plain)
    raise TypeError(f"{function} returned {value!r:.60}; a check returns True or False")
