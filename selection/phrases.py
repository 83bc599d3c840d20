"""Reads final answers that are not written as mathematics: words, times of day, numbers in a base, numbers
given twice.
"""

import re
from fractions import Fraction

from selection.amounts import same_quantity
from selection.expressions import FUNCTION_WORD, RUN
from selection.quantities import Quantity, quantity
from selection.readings import Based, Infinite, Reading, Several, Time, Words
from selection.vocabulary import ENGLISH, TELLING

CLOCK = re.compile(
    r"(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)(?:\s*:\s*(\d+))?\s*([ap])?\.?\s*(m)?\.?(?:\s+o'clock)?",
    re.IGNORECASE,
)
HOUR = re.compile(r"(\d{1,2})\s*(?:([ap])\.?\s*m\.?|o'clock)", re.IGNORECASE)
ARTICLES = re.compile(r"^(?:(?:the|a|an|to the|on|in|at|it is|it's)\s+)+")
NO_SOLUTION = re.compile(
    r"(?:there (?:is|are) )?no (?:real )?solutions?(?: exists?)?|\\emptyset|\\\{\s*\\\}|(?:the )?empty set"
)
DATE = re.compile(
    r"(?:jan|febr)uary \d{1,2}|(?:march|april|may|june|july|august) \d{1,2}|"
    r"(?:septem|octo|novem|decem)ber \d{1,2}"
)
ALL_REALS = re.compile(
    r"(?:the set of )?(?:all )?reals?(?: numbers?)?|\\mathbb\s*\{\s*r\s*\}|\\mathbb r|"
    r"\(\s*-\s*\\infty\s*,\s*\+?\\infty\s*\)"
)
NAMED_TIMES = {"noon": 720, "midday": 720, "midnight": 0}
SAME_WORDS = {"does not exist": "dne", "doesn't exist": "dne", "not defined": "undefined"}
YES_NO = re.compile(r"(yes|no|true|false)\b\s*(?:[,.;:-]|$)", re.IGNORECASE)
LETTER = re.compile(r"\(?([A-J])\)(?:\s|$)|\(([A-J])\)")


def in_base(digits: str, base: int) -> Based | None:
    """A whole number in a base. None if its digits are not of that base."""
    try:
        return Based(int(digits, base), base, digits) if base > 1 else None
    except ValueError:
        return None


def hour(text: str) -> Time | None:
    """`8 a.m.` or `8 o'clock`."""
    found = HOUR.fullmatch(text)
    if found is None:
        return None
    half = (found[2] or "").lower()
    hours = int(found[1]) % 12 + 12 * (half == "p") if half else int(found[1])
    return Time(Fraction(hours * 60), half, None)


def said_twice(text: str) -> Quantity | None:
    """`7 (seven)`: a quantity with itself or plain words in parentheses."""
    text = re.sub(r"^([^\[\]]+\s)\[([^\[\]]+)\]$", r"\1(\2)", text)  # 18 [apples]
    found = re.fullmatch(r"([^()]+?)\s*\(([^()]+)\)", text)
    one, other = (quantity(found[1]), quantity(found[2])) if found else (None, None)
    if found is None or one is None or re.search(r"[\\^*/+=]", text):
        return None
    if other is not None:
        return one if same_quantity(one, other) else None
    plain_words = re.fullmatch(r"[A-Za-z][A-Za-z ]+", found[2]) and " " in text[: found.start(2) - 1][-1:]
    return one if plain_words and not set(found[2].casefold().split()) & TELLING else None


def infinite(text: str) -> Infinite | None:
    found = re.fullmatch(
        r"([-+]?)\s*(?:\{?\\infty\}?|inf|oo)|(negative |positive )?infinit(?:y|e)", text, re.IGNORECASE
    )
    return Infinite(-1 if found[1] == "-" or (found[2] or "")[:1] in ("n", "N") else 1) if found else None


def words_said(text: str) -> Words | None:
    """Read text as words: it has no digit and is no mathematics."""
    lower = text.casefold().rstrip(".!")
    if NO_SOLUTION.fullmatch(lower):
        return Words("no real solution" if "real" in lower else "no solution")
    if ALL_REALS.fullmatch(lower):
        return Words("all real numbers")
    if found := YES_NO.match(text):
        is_bound = re.match(
            r"\s*(?:if|unless|only|when|provided|but|except|otherwise)\b", text[found.end() :]
        )
        return None if is_bound else Words(found[1].casefold())
    if found := LETTER.fullmatch(text.strip()) or re.match(r"\(([A-J])\)\s+(?=\S)", text):
        return Words((found[1] or found[2]).casefold())
    if re.search(r"[\d\\=<>^{}+/*|]", text) and not DATE.fullmatch(lower):
        return None
    runs = RUN.findall(text)
    if not runs or (
        all(len(run) <= 3 and run.casefold() not in ENGLISH for run in runs) and _mathematical(text)
    ):
        return None
    if len(runs) == 1 and runs[0] == text and len(text) <= 2 and text.casefold() not in ENGLISH:
        return None
    said = ARTICLES.sub("", " ".join(lower.split()))
    return Words(SAME_WORDS.get(said, said)) if said else None


def _mathematical(text: str) -> bool:
    return bool(FUNCTION_WORD.search(text) or re.search(r"[()]|\b[a-z]\b", text))


def time_of(text: str) -> Reading | None:
    """A time of day, or a ratio."""
    if (named := re.sub(r"^12\s+", "", text.casefold())) in NAMED_TIMES:
        return Time(Fraction(NAMED_TIMES[named]), "p" if NAMED_TIMES[named] else "a", None)
    if found := re.fullmatch(r"(\d+) to (\d+)", text):
        return Several("to", (Quantity(Fraction(found[1])), Quantity(Fraction(found[2]))))
    found = CLOCK.fullmatch(text)
    if found is None:
        parts = re.split(r"\s*:\s*", text)
        if len(parts) > 1 and all(re.fullmatch(r"\d+(?:\.\d+)?", part) for part in parts):
            return Several("ratio", tuple(Quantity(Fraction(part)) for part in parts))
        return None
    first, second = Fraction(found[1]), Fraction(found[2])
    half = (found[4] or "").lower()
    is_time = half or (re.fullmatch(r"[0-5]\d", found[2]) and re.fullmatch(r"[01]?\d|2[0-3]", found[1]))
    if (
        found[3] is not None
        and not half
        and not re.fullmatch(r"\d{1,2}:[0-5]\d:[0-5]\d", text.replace(" ", ""))
    ):
        parts = [found[1], found[2], found[3]]
        return Several("ratio", tuple(Quantity(Fraction(part)) for part in parts))
    if not is_time and found[3] is None:
        return Several("ratio", (Quantity(first), Quantity(second)))
    hours = first % 12 + 12 * (half == "p") if half else first
    ratio = first / second if second and not half and not found[3] else None
    return Time(hours * 60 + second + Fraction(int(found[3] or 0), 60), half, ratio)
