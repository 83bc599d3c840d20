"""Reads a final answer as a quantity, several values, an interval, an equation, a time, words, or an
expression for computer algebra. Nothing is guessed: if a part of the text is unknown, the reading is None.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache

from selection import algebra
from selection.expressions import expression
from selection.numerals import DECIMAL_COMMA, VALUES
from selection.phrases import hour, in_base, infinite, said_twice, time_of, words_said
from selection.quantities import Quantity, in_a_phrase, quantity
from selection.readings import Named, Reading, Several, Words, latex_of
from selection.relations import related
from selection.structures import bracketed, closes_at, listed, parts_told, plus_minus, union
from selection.typography import plain

LONGEST = 2000  # characters of a final answer that is read
LEAD = re.compile(
    r"^(?:(?:the )?(?:final |correct |right )?answer(?: is|:)|"
    r"(?:so|thus|hence|therefore|that|indeed|then),?(?=\s)|"
    r"(?:it|this|that|which|there|they) (?:is|was|are|were|will be|would be|equals)(?=\s)|"
    r"(?:is|equals|equal to|equals to|exactly|precisely|approximately|approx\.?|only|just|simply|"
    r"a total of)(?=\s)|"
    r"(?:the )?(?:ordered (?:pair|triple)|point|vector|interval|coordinates)(?=\s)|"
    r"at\s+(?=\d{1,2}(?::|\s*[ap]\.?m))|=(?!=)|\\approx(?![A-Za-z])|\\therefore(?![A-Za-z])|:)\s*",
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
# how a value was rounded, and its decimal beside it
ROUNDED = re.compile(
    r"\s*,?\s*\(?\s*(?:when |if )?(?:(?:rounded|correct|accurate|given)\s+)?(?:(?:up"
    r"|down)\s+)?to\s+(?:the\s+)?(?:nearest\s+[\w-]+(?: \w+)?|"
    r"(?:\d+|one|two|three|four)\s*(?:d\.?\s?p\.?|s\.?\s?f\.?|sig\.? figs?|decimals?(?: places?)?"
    r"|significant (?:figures?|digits?)))\s*\)?$"
    r"|\s*\((?:\d+|one|two|three)\s*(?:d\.?\s?p\.?|s\.?\s?f\.?)\)$"
    r"|\s*\(rounded\)$",
    re.IGNORECASE,
)
AS_DECIMAL = re.compile(
    r"(?P<exact>.+?)\s*,?\s*(?:\(\s*(?:or|or about|or approximately|about|approximately|approx\.?|i\.e\.,?"
    r"|=|\\approx|~)\s*"
    r"(?P<inside>-?[$]?\d[\d.,]*(?:\s*[^\W\d_]+)?)\s*\)|,?\s*or\s+(?:about|approximately|approx\.?"
    r"|roughly)\s+(?P<behind>-?[$]?\d[\d.,]*(?:\s*[^\W\d_]+)?))$",
    re.IGNORECASE,
)
RATHER = re.compile(r"\s+(?:rather than|instead of|and not)\s+[^\s]+(?:\s+[a-z]+)?$")
BASED = re.compile(r"\(?(\d[\dA-F]*)\)?\s*(?:_\s*\{?\s*(\d{1,2})\s*\}?|(?:in )?base (\d{1,2}))")
PREFIXED = re.compile(r"0([xXbBoO])([\da-fA-F]+)")  # of program code
IN_BASE = re.compile(r"(?<=\d)\s*_\s*\{?\s*(two|three|four|five|six|seven|eight|nine|twelve|sixteen)\s*\}?$")
MODULO = re.compile(
    r"(?:[a-zA-Z]\s*\\equiv\s*)?(-?\d+)\s*(?:\\pmod\s*\{?\s*(\d+)\s*\}?|"
    r"\(\s*(?:\\bmod|\\mod|mod)\s*\{?\s*(\d+)\s*\}?\s*\))"
)
BASE_OF = {"x": 16, "b": 2, "o": 8}
BUILDER = re.compile(r"\\?\{\s*([a-z])\s*(?:\\in\s*\\mathbb\s*\{?\s*R\s*\}?\s*)?(?:\||:)\s*(.+?)\s*\\?\}")
COPULA = re.compile(
    r"(?<=[\w%)])\s*(?:です|である|입니다|이다|है|হল|'(?:d[iıuü]r|t[iıuü]r))$"
)  # behind an answer: 18です
MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}\s*(.*?)\s*\\end\{\1\}")
DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*degrees")
TRIGONOMETRIC = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
DATED = re.compile(r"\d{1,4}([-/])\d{1,2}\1\d{1,4}")  # a date or a score, not to be calculated
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
    bare = RATHER.sub("", ROUNDED.sub("", bare)) or bare
    if (told := AS_DECIMAL.fullmatch(bare)) and len(bare) <= LONGEST:
        exact, rounded = _read(told["exact"]), _read(told["inside"] or told["behind"])
        if exact is not None and isinstance(rounded, Quantity) and not HEDGED.search(told["exact"]):
            return exact if about_equal(exact, rounded) else Several("set", (exact, rounded))
    found = _read(bare)
    if found is None and BECAUSE.search(bare):
        shorter = BECAUSE.sub("", bare)
        found = _read(without_lead(shorter)) if shorter and not _or_number(bare[len(shorter) :]) else None
    return found


def _or_number(rest: str) -> bool:
    """Whether an explanation takes its answer back."""
    return bool(
        re.search(r"\b(?:maybe|perhaps|unless|but|or|wrong|incorrect|false|not (?:right|correct))\b", rest)
    )


def without_lead(text: str) -> str:
    """The text without introductory words, and without a full stop at its end."""
    before = ""
    while before != text:
        before = text
        text = LEAD.sub("", text.strip())
        text = re.sub(r"(?<!\.)[.,;:।]$", "", text)
        text = COPULA.sub("", text)
    return text


def about_equal(exact: Reading, rounded: Quantity) -> bool:
    """Whether a decimal is the rounded value of a number, to a hundredth of it."""
    latex = latex_of(exact.value if isinstance(exact, Named) else exact)
    value = None if latex is None else algebra.parsed(latex)
    try:
        number = math.nan if value is None else float(value.evalf())
    except (AttributeError, TypeError, ValueError):
        return False
    return abs(number - float(rounded.value)) <= 0.01 * abs(number)


def vector(text: str) -> Reading | None:
    """A matrix of one row or one column, as a tuple. None if the text is none."""
    found = MATRIX.fullmatch(without_lead(plain(text)))
    rows = [row.split("&") for row in found[2].split("\\\\") if row.strip()] if found else []
    if not rows or (len(rows) > 1 and any(len(row) > 1 for row in rows)):
        return None
    cells = [_read(cell.strip()) for row in rows for cell in row]
    known = tuple(cell for cell in cells if cell is not None)
    return Several("tuple", known) if len(known) == len(cells) > 1 else None


def _read(text: str) -> Reading | None:
    """Read text without typography, by its form."""
    if not text or len(text) > LONGEST:
        return None
    text = IN_BASE.sub(lambda found: f"_{VALUES[found[1]]}", text)
    if (based := BASED.fullmatch(text)) is not None:
        return in_base(based[1], int(based[2] or based[3]))
    if re.fullmatch(r"12 (?:midnight|noon)", text, re.IGNORECASE):
        return time_of(text)
    if (coded := PREFIXED.fullmatch(text)) is not None:
        return in_base(coded[2], BASE_OF[coded[1].casefold()])
    if (said := hour(text) or quantity(text) or said_twice(text)) is not None:
        return said
    found: Reading | None
    if TRIGONOMETRIC.search(text):
        text = DEGREES.sub(r"(\1\\cdot\\pi/180)", text)
    for by_form in (infinite, time_of, words_said):
        if (found := by_form(text)) is not None:
            return found
    text = SPOKEN.sub(lambda found: f" {SPOKEN_SIGNS[found[1].casefold()]} ", text)
    if built := BUILDER.fullmatch(text):
        return _read(built[2])
    if HEDGED.search(text) or RANGE.fullmatch(text):
        return None
    if re.fullmatch(r"\d+(?:\.\d+)?\s*(?:'{1,2}|\")", text):  # feet, minutes, inches or seconds
        return None
    if DATED.fullmatch(text):
        return Words(text)
    is_braced = text.startswith("{") and text.endswith("}") and closes_at(text, 0) == len(text) - 1
    if is_braced and "," not in text:
        return _read(text[1:-1].strip())
    for structure in (parts_told, union, bracketed, listed, related, plus_minus):
        if structure is listed and re.fullmatch(DECIMAL_COMMA, text.lstrip("-")):
            return Several("set", tuple(Quantity(Fraction(p)) for p in text.split(",")))
        matched, found = structure(text, _read)
        if matched:
            return found
    return in_a_phrase(text) or expression(text)
