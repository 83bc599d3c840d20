r"""Reading a final answer as what it says: a quantity, several values, an interval, an equation, a time,
words, or an expression for computer algebra. Nothing is guessed: text of which a part is unknown reads as
None.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from selection.numerals import DECIMAL_COMMA, POINTED, without_groups
from selection.quantities import Quantity, in_a_phrase, quantity
from selection.typography import plain
from selection.units import Unit, read_unit
from selection.vocabulary import ENGLISH, FUNCTIONS, TELLING


@dataclass(frozen=True, slots=True)
class Words:
    """Plain words without case, articles and a trailing point."""

    text: str


@dataclass(frozen=True, slots=True)
class Expression:
    """LaTeX for computer algebra, and a unit behind it."""

    latex: str
    unit: Unit | None = None


@dataclass(frozen=True, slots=True)
class Several:
    """More than one value.

    Attributes:
        kind: `set` where the order says nothing, `tuple` where it does, `ratio`.
        is_braced: written in braces, so surely a set.
    """

    kind: str
    items: tuple["Reading", ...]
    is_braced: bool = False


@dataclass(frozen=True, slots=True)
class Intervals:
    """A union of intervals: each low, high, and whether its ends belong to it; None as an end is infinite."""

    parts: tuple[tuple["Reading | None", "Reading | None", bool, bool], ...]
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """`x = 5`: a name, its value, and the equation as LaTeX of its two sides."""

    name: str
    value: "Reading"
    sides: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation or inequality that names nothing: its sign and two sides as LaTeX."""

    sign: str
    sides: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Based:
    """A whole number in a base that is told: its value and the base."""

    value: int
    base: int
    digits: str


@dataclass(frozen=True, slots=True)
class Time:
    """A time of day or a span: minutes, and which half of the day if it is said."""

    minutes: Fraction
    half: str
    ratio: Fraction | None


@dataclass(frozen=True, slots=True)
class Infinite:
    """Plus or minus infinity."""

    sign: int


Reading = Quantity | Words | Expression | Several | Intervals | Named | Relation | Time | Infinite | Based

LEAD = re.compile(
    r"^(?:(?:the )?(?:final |correct |right )?answer(?: is|:)|"
    r"(?:so|thus|hence|therefore|that|indeed|then),?(?=\s)|"
    r"(?:it|this|that|which|there|they) (?:is|was|are|were|will be|would be|equals)(?=\s)|"
    r"(?:is|equals|equal to|equals to|exactly|precisely|approximately|approx\.?|only|just|simply|"
    r"a total of)(?=\s)|"
    r"(?:the )?(?:ordered (?:pair|triple)|point|vector|interval|coordinates)(?=\s)|"
    r"=(?!=)|\\approx(?![A-Za-z])|\\therefore(?![A-Za-z])|:)\s*",
    re.IGNORECASE,
)
BECAUSE = re.compile(
    r"\s*(?:,|;|\()?\s*(?:\b(?:because|since)\b|,\s*(?:as|which|so|given that|where|not)\b|"
    r"\.\s+(?=[A-Z])).*$",
    re.DOTALL,
)
HEDGED = re.compile(
    r"\b(?:not|maybe|perhaps|possibly|probably|likely|might|unclear|unsure|uncertain|unknown|guess|wrong|"
    r"incorrect|either|neither|isn't|about|around|roughly|nearly|almost|at least|at most|more than|less than|"
    r"fewer than|greater than|up to|between|but|or more|or less|or so|cannot|can't|could|(?-i:may))\b|\?",
    re.IGNORECASE,
)
FUNCTION_WORD = re.compile(
    rf"(?<![A-Za-z\\])({'|'.join(sorted(FUNCTIONS, key=len, reverse=True))})(?![A-Za-z])"
)
BRACED_ARGUMENT = re.compile(
    rf"(\\(?:{'|'.join(sorted(FUNCTIONS - {'sqrt'}, key=len, reverse=True))}))\s*"
    r"\{((?:[^{}]|\{[^{}]*\})*)\}"
)
COUNTED_FRACTION = re.compile(r"(?<![\w.}^_])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
BEFORE_BRACKET = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(?=\{?[(\[])")
COMMAND = re.compile(r"\\[A-Za-z]+")
ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-zA-Z]*\}")
RUN = re.compile(r"[^\W\d_]{2,}")
RELATIONS = re.compile(r"\\(?:le|ge|ne|in|approx|equiv)(?![A-Za-z])|<=|>=|!=|:=|==|[=<>]")
SIGN_OF = {r"\le": "<=", r"\ge": ">=", r"\ne": "!=", "==": "=", ":=": "=", r"\approx": "=", r"\in": "in"}
NAME = re.compile(
    r"(?:\\(?:vec|bar|hat|overline|mathbf)\s*\{?\s*[A-Za-z]\s*\}?|\\[A-Za-z]+|[A-Za-z])(?:'{1,2})?(?:_\{?[\w]+\}?)?(?:\s*\(\s*[\w,\s]+\s*\))?|"
    r"\|?[A-Z]{2,3}\|?|\\angle\s*[A-Z]+|"
    r"\(\s*[a-z](?:_\{?\w\}?)?(?:\s*,\s*[a-z](?:_\{?\w\}?)?)+\s*\)"
)
WORD_NAME = re.compile(r"[A-Za-z][A-Za-z'-]+(?:\s+[A-Za-z'-]+){0,6}")
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
BASED = re.compile(r"\(?(\d[\dA-F]*)\)?\s*(?:_\s*\{?\s*(\d{1,2})\s*\}?|(?:in )?base (\d{1,2}))")
NAMED_TIMES = {"noon": 720, "midday": 720, "midnight": 0}
BUILDER = re.compile(r"\\?\{\s*([a-z])\s*(?:\\in\s*\\mathbb\s*\{?\s*R\s*\}?\s*)?(?:\||:)\s*(.+?)\s*\\?\}")
SAME_WORDS = {"does not exist": "dne", "doesn't exist": "dne", "not defined": "undefined"}
YES_NO = re.compile(r"(yes|no|true|false)\b\s*(?:[,.;:-]|$)", re.IGNORECASE)
LETTER = re.compile(r"\(?([A-J])\)(?:\s|$)|\(([A-J])\)")
SPOKEN = re.compile(r"(?<=[\d)}])\s+(plus|minus|times|divided by)\s+(?=[\d(\\$-])", re.IGNORECASE)
SPOKEN_SIGNS = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
RANGE = re.compile(r"\$?\d+(?:\.\d+)?(?:\s+to\s+|-)\$?\d+(?:\.\d+)?%?(?:\s+[A-Za-z].*)?|\d+-\d+/\d+")


@lru_cache(maxsize=4096)
def read(text: str) -> Reading | None:
    r"""Read a final answer.

    >>> read(r"\textbf{18}").value, read("x = 5").name, read("[1, 2)").parts[0][2:]
    (Fraction(18, 1), 'x', (True, False))
    >>> read("3 or 4").kind, read("not 5")
    ('set', None)
    """
    bare = without_lead(plain(text))
    found = _read(bare)
    if found is None and BECAUSE.search(bare):
        shorter = BECAUSE.sub("", bare)
        found = _read(without_lead(shorter)) if shorter and not _or_number(bare[len(shorter) :]) else None
    return found


def _or_number(rest: str) -> bool:
    """Whether an explanation takes back what it explains."""
    return bool(re.search(r"\b(?:maybe|perhaps|unless|but|or)\b", rest))


def without_lead(text: str) -> str:
    """Text without words that only lead to the answer, and without a point behind it."""
    before = ""
    while before != text:
        before = text
        text = LEAD.sub("", text.strip())
        text = re.sub(r"(?<!\.)[.,;:]$", "", text)
    return text


def _read(text: str) -> Reading | None:
    """Read text without typography, by what its form says."""
    if not text or len(text) > 2000:
        return None
    if (based := BASED.fullmatch(text)) is not None:
        return _in_base(based[1], int(based[2] or based[3]))
    if (said := _hour(text) or quantity(text) or _said_twice(text)) is not None:
        return said
    found: Reading | None
    for by_form in (_infinite, _time, _words):
        if (found := by_form(text)) is not None:
            return found
    text = SPOKEN.sub(lambda found: f" {SPOKEN_SIGNS[found[1].casefold()]} ", text)
    if built := BUILDER.fullmatch(text):
        return _read(built[2])
    if HEDGED.search(text) or RANGE.fullmatch(text):
        return None
    if text.startswith("{") and text.endswith("}") and "," not in text and _closes(text, 0) == len(text) - 1:
        return _read(text[1:-1].strip())
    for structure in (_union, _bracketed, _listed, _related, _plus_minus):
        if structure is _listed and re.fullmatch(DECIMAL_COMMA, text.lstrip("-")):
            return Several("set", tuple(Quantity(Fraction(p)) for p in text.split(",")))
        matched, found = structure(text)
        if matched:
            return found
    return in_a_phrase(text) or _expression(text)


def _in_base(digits: str, base: int) -> Based | None:
    """A whole number in a base, None where its digits are not of that base."""
    try:
        return Based(int(digits, base), base, digits) if base > 1 else None
    except ValueError:
        return None


def _hour(text: str) -> Time | None:
    """`8 a.m.` or `8 o'clock`."""
    found = HOUR.fullmatch(text)
    if found is None:
        return None
    half = (found[2] or "").lower()
    hours = int(found[1]) % 12 + 12 * (half == "p") if half else int(found[1])
    return Time(Fraction(hours * 60), half, None)


def _said_twice(text: str) -> Quantity | None:
    """`7 (seven)`: a quantity with itself or plain words in parentheses."""
    text = re.sub(r"^([^\[\]]+\s)\[([^\[\]]+)\]$", r"\1(\2)", text)  # 18 [apples]
    found = re.fullmatch(r"([^()]+?)\s*\(([^()]+)\)", text)
    one, other = (quantity(found[1]), quantity(found[2])) if found else (None, None)
    if found is None or one is None or re.search(r"[\\^*/+=]", text):
        return None
    if other is not None:
        return one if one.value == other.value else None
    plain_words = re.fullmatch(r"[A-Za-z][A-Za-z ]+", found[2]) and " " in text[: found.start(2) - 1][-1:]
    return one if plain_words and not set(found[2].casefold().split()) & TELLING else None


def _infinite(text: str) -> Infinite | None:
    found = re.fullmatch(r"([-+]?)\s*\{?\\infty\}?|(negative |positive )?infinit(?:y|e)", text, re.IGNORECASE)
    return Infinite(-1 if found[1] == "-" or (found[2] or "")[:1] in ("n", "N") else 1) if found else None


def _words(text: str) -> Words | None:
    """Words: text that holds no digit and is no mathematics."""
    lower = text.casefold().rstrip(".!")
    if NO_SOLUTION.fullmatch(lower):
        return Words("no real solution" if "real" in lower else "no solution")
    if ALL_REALS.fullmatch(lower):
        return Words("all real numbers")
    if found := YES_NO.match(text):
        return Words(found[1].casefold())
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


def _time(text: str) -> Reading | None:
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


def _closes(text: str, at: int) -> int:
    """Where the bracket at this place closes, -1 where it does not; brackets of intervals may differ."""
    depth = 0
    for place in range(at, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place
    return -1


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split where a separator stands outside all brackets."""
    parts, depth, begin, place = [], 0, 0, 0
    while place < len(text):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        found = separator.match(text, place) if depth <= 0 else None
        if found and found.end() > place:
            parts.append(text[begin:place])
            begin = place = found.end()
        else:
            place += 1
    return [part.strip() for part in (*parts, text[begin:])]


Structured = tuple[bool, Reading | None]
CUP = re.compile(r"\\cup(?![A-Za-z])")
SEPARATOR = re.compile(r"\s*[,;]\s*(?:and\s|or\s)?\s*|\s+(?:and|or)\s+")
COMMA = re.compile(r"\s*[,;]\s*")


def _union(text: str) -> Structured:
    parts = split_top(re.sub(r"^[a-z]\s*\\in(?![A-Za-z])\s*", "", text), CUP)
    if len(parts) < 2:
        return False, None
    found = [as_intervals(_read(part)) for part in parts]
    return True, None if None in found else Intervals(tuple(p for one in found if one for p in one.parts))


def as_intervals(reading: Reading | None) -> Intervals | None:
    """The intervals that something could be: a pair in parentheses is an open one too."""
    if isinstance(reading, Intervals):
        return reading
    if isinstance(reading, Several) and reading.kind == "tuple" and len(reading.items) == 2:
        low, high = reading.items
        return Intervals(((_end(low), _end(high), False, False),))
    return None


def _end(reading: Reading) -> Reading | None:
    return None if isinstance(reading, Infinite) else reading


def _bracketed(text: str) -> Structured:
    r"""`(a, b)`, `[a, b)`, `{a, b}`, `\{a, b\}`, `\langle a, b \rangle`."""
    text = text.replace(r"\langle", "(").replace(r"\rangle", ")")
    opened = text.replace(r"\{", "{").replace(r"\}", "}")
    if opened[:1] not in "([{]" or opened[-1:] not in ")]}[" or len(opened) < 2:
        return False, None
    inside = opened[1:-1]
    if opened[0] in "([{" and _closes(opened, 0) != len(opened) - 1:
        return False, None
    parts = split_top(inside, COMMA)
    if len(parts) < 2:
        if opened[0] == "{" and text.startswith("\\{"):
            one = _read(inside.strip())
            return True, Several("set", (one,), True) if one is not None else None
        return False, None
    items = tuple(_read(part) for part in parts)
    if any(item is None for item in items):
        return True, None
    known = tuple(item for item in items if item is not None)
    ends = (opened[0], opened[-1])
    if ends == ("{", "}"):
        return True, Several("set", known, True)
    if ends != ("(", ")") and len(known) == 2:
        return True, Intervals(((_end(known[0]), _end(known[1]), ends[0] == "[", ends[1] == "]"),))
    if any(isinstance(item, Infinite) for item in known) and len(known) == 2:
        return True, Intervals(((_end(known[0]), _end(known[1]), False, False),))
    return True, Several("tuple", known)


def _listed(text: str) -> Structured:
    """Values between commas, `and`, `or`."""
    parts = split_top(text, SEPARATOR)
    if len(parts) < 2:
        return False, None
    if re.fullmatch(r"[1-9]\d{0,2}(?:, \d{3})+", text) and any(part[0] == "0" for part in parts[1:]):
        return True, quantity(text.replace(" ", ""))
    if sum(bool(re.search(r"[\d\\]", part)) for part in parts) == 1 and (told := in_a_phrase(text)):
        return True, told
    first = re.match(rf"({NAME.pattern})\s*=\s*", parts[0])
    if first and not any("=" in part for part in parts[1:]):
        parts[0] = parts[0][first.end() :]
    items = [_read(part) for part in parts if part]
    if len(items) < 2 or any(item is None or isinstance(item, Words) for item in items):
        return True, None
    known = tuple(item for item in items if item is not None)
    names = [item.name for item in known if isinstance(item, Named)]
    if len(names) == len(known) and len(set(names)) == 1:
        known = tuple(item.value for item in known if isinstance(item, Named))
    if all(isinstance(item, Intervals) for item in known):
        joined = tuple(part for item in known if isinstance(item, Intervals) for part in item.parts)
        return True, Intervals(joined) if re.search(r"\bor\b", text) else None
    return True, Several("set", known)


def _related(text: str) -> Structured:
    """Equations and inequalities."""
    signs = [SIGN_OF.get(s[0], s[0]) for s in _found_at_top(text)]
    if not signs:
        return False, None
    parts = split_top(text, re.compile(rf"\s*(?:{RELATIONS.pattern})\s*"))
    if signs == ["in"] or signs[0] == "\\equiv":
        return True, _read(parts[1]) if signs == ["in"] and NAME.fullmatch(parts[0]) else None
    if signs.count("=") == len(signs) and r"\approx" in text and not NAME.fullmatch(parts[0]):
        claims = [_read(part) for part in parts[-2:]]
        known = tuple(claim for claim in claims if claim is not None)
        return True, Several("approx", known) if len(known) == 2 and not _variables(parts[0]) else None
    if set(signs) == {"="}:
        return True, _equation(parts)
    return True, _inequality(parts, signs)


def _found_at_top(text: str) -> list[re.Match[str]]:
    found, depth, place = [], 0, 0
    while place < len(text):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        match = RELATIONS.match(text, place) if depth <= 0 else None
        if match:
            found.append(match)
        place = match.end() if match else place + 1
    return found


def _equation(parts: list[str]) -> Reading | None:
    first, last = parts[0], parts[-1]
    if not all(parts):
        return _read(last) if last and len(parts) == 2 else None
    if NAME.fullmatch(first) or (WORD_NAME.fullmatch(first) and first.casefold() not in FUNCTIONS):
        if any(word in TELLING for word in first.casefold().split()):
            return None
        value = _read(last)
        sides = _sides(first, last) if NAME.fullmatch(first) else None
        return None if value is None else Named(first.replace(" ", ""), value, sides)
    if NAME.fullmatch(last) and len(parts) == 2 and quantity(first) is not None:
        return _equation([last, first])
    if not _variables(first):
        return _read(last)
    sides = _sides(first, last)
    return None if sides is None or len(parts) > 2 else Relation("=", sides)


def _sides(left: str, right: str) -> tuple[str, str] | None:
    one, other = _expression(left), _read(right)
    if isinstance(one, Expression) and other is not None and (latex := latex_of(other)):
        return one.latex, latex
    return None


def _variables(text: str) -> bool:
    return bool(re.search(r"[A-Za-z]", FUNCTION_WORD.sub("", COMMAND.sub("", text))))


def latex_of(reading: Reading) -> str | None:
    """A value as LaTeX for computer algebra."""
    if isinstance(reading, Expression):
        return reading.latex
    if isinstance(reading, Quantity):
        value = reading.value / 100 if reading.is_percent else reading.value
        over, under = value.numerator, value.denominator
        return (
            str(over)
            if under == 1
            else rf"({over})/({under})"
            if over < 0
            else rf"\frac{{{over}}}{{{under}}}"
        )
    return None


def _inequality(parts: list[str], signs: list[str]) -> Reading | None:
    """Intervals where one name stands between constants, else a relation."""
    if len(parts) == 2 and signs[0] == "!=":
        sides = _sides(*parts)
        return Relation("!=", sides) if sides else None
    if "!=" in signs or "=" in signs:
        return None
    if len(parts) == 3 and NAME.fullmatch(parts[1]) and signs[0][0] == signs[1][0]:
        low, high = (_read(parts[0]), _read(parts[2]))
        if signs[0][0] == ">":
            low, high, signs = high, low, signs[::-1]
        if low is None or high is None:
            return None
        return Intervals(((_end(low), _end(high), signs[0][1:] == "=", signs[1][1:] == "="),), parts[1])
    if len(parts) != 2:
        return None
    for name, other, sign in (
        (*parts, signs[0]),
        (*parts[::-1], signs[0].translate(str.maketrans("<>", "><"))),
    ):
        bound = _read(other) if NAME.fullmatch(name) and not _variables(other) else None
        if bound is not None:
            closed = sign[1:] == "="
            end = _end(bound)
            part = (None, end, False, closed) if sign[0] == "<" else (end, None, closed, False)
            return Intervals((part,), name)
    sides = _sides(*parts)
    return Relation(signs[0], sides) if sides else None


def _plus_minus(text: str) -> Structured:
    if r"\pm" not in text or r"\mp" in text:
        return r"\mp" in text, None
    both = [_read(re.sub(r"^\+\s*", "", re.sub(r"\\pm(?![A-Za-z])", sign, text).strip())) for sign in "+-"]
    if both[0] is None or both[1] is None:
        return True, None
    return True, Several("set", (both[0], both[1]))


def _expression(text: str) -> Expression | None:
    """What computer algebra may be asked about: no word that it would take for a product of letters."""
    text, unit = _without_unit(without_groups(text))
    bare = FUNCTION_WORD.sub(" ", COMMAND.sub(" ", ENVIRONMENT.sub(" ", text)))
    for run in RUN.findall(bare):
        if len(run) > 3 or run.casefold() in ENGLISH:
            return None
    if (
        re.search(r"[\"?:;$€£~#@]|\.{3}|[^ -~]|,(?!\d{3})|(?<![\w)}\]|!])!|\\text", bare)
        or "mod" in text
        or not re.search(r"\w", text)
    ):
        return None
    if re.search(r"\d\s*_", text) or re.search(r"[A-Za-z]\d", bare):  # another base, H2O
        return None
    if text.count("(") != text.count(")") or text.count("{") != text.count("}"):
        return None
    if re.search(r"(?<![\w.])\d[\d.]*\s+\d", text):  # two numbers side by side are no product
        return None
    return Expression(_for_algebra(text), unit)


def _without_unit(text: str) -> tuple[str, Unit | None]:
    """An expression and the unit that stands behind it."""
    found = re.match(r"(.*[\d)}A-Za-z])\s+((?:[A-Za-zµ]|\$).*)$", text)
    places = [m.start() for m in re.finditer(r"\s+(?=[A-Za-zµ])", text)] if found else []
    for place in places:
        head, tail = text[:place], text[place:]
        if head.count("{") != head.count("}") or re.search(r"[-+*/=^_(]$|\\cdot$|\\times$", head.rstrip()):
            continue
        if (
            FUNCTION_WORD.match(tail.strip())
            or not re.search(r"[A-Za-z]{2,}|^\s*[mgshL]\b", tail)
            or "\\" in tail
        ):
            continue
        unit = read_unit(tail)
        if unit is not None:
            return head, unit if unit.dimensions else None
    return text, None


def _for_algebra(text: str) -> str:
    """LaTeX that computer algebra reads exactly: decimals as fractions, functions as commands, products with
    their sign where it would read a mixed number.
    """
    text = FUNCTION_WORD.sub(r"\\\1 ", text).replace("%", r"\cdot\frac{1}{100}")
    text = BRACED_ARGUMENT.sub(r"\1(\2)", text)
    text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text)
    text = re.sub(rf"\^\s*(-?{POINTED})", r"^{\1}", text)
    text = COUNTED_FRACTION.sub(_improper, text)
    text = BEFORE_BRACKET.sub(r"\1\\cdot ", text)
    text = re.sub(r"(?<![\d.])(\d*)\.(\d+)", _exact_decimal, text)
    text = re.sub(r"(?<=[\w)}])\s*x\s*(?=10\s*\^)", r"\\times ", text)
    return text.replace("*", r"\cdot ")


def _improper(found: re.Match[str]) -> str:
    """A mixed number as one fraction; a whole number beside an improper fraction is a factor."""
    whole, over, under = (int(group) for group in found.groups())
    if 0 < over < under:
        return rf"\frac{{{whole * under + over}}}{{{under}}}"
    return rf"{whole}\cdot\frac{{{over}}}{{{under}}}"


def _exact_decimal(found: re.Match[str]) -> str:
    return rf"\frac{{{int((found[1] or '0') + found[2])}}}{{{10 ** len(found[2])}}}"
