r"""Reads one quantity: a number with its sign, currency, scale, percent sign and unit, and nothing
unknown.

The whole text has to be read. The text after the number is a unit, a noun or words without meaning
(`units.EMPTY`). With anything else it is no quantity. The text has no typography, see `typography.plain`.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from selection.numerals import (
    BARE_POWER,
    GROUPED,
    INTEGER_OR_GROUPS,
    MONEY_LETTERS,
    NUMERAL,
    PARTS,
    POINTED,
    POWER,
    REPEATING,
    SCALE,
    SCALE_LETTERS,
    SCALES,
    VALUES,
    Number,
    numeral,
    power_of_ten,
    words_to_number,
)
from selection.units import CURRENCIES, CURRENCY, KNOWN, Unit, read_unit, unit_of
from selection.vocabulary import EMPTY, FUNCTIONS, TELLING, words

SIGN = re.compile(r"\s*([-+]|(?:negative|minus)(?=\s))\s*", re.IGNORECASE)
MONEY = re.compile(rf"\s*({CURRENCY})\s*")
MIXED = re.compile(
    rf"({INTEGER_OR_GROUPS})(?:\s*\\frac\s*\{{\s*(\d+)\s*\}}\s*\{{\s*(\d+)\s*\}}"
    r"|(?:\s+|\s+and\s+|\s*&\s*)(\d+)\s*/\s*(\d+)(?![\d/]))"
)
FRACTION = re.compile(
    r"(?:\\frac\s*\{\s*(-?\d[\d,]*)\s*\}\s*\{\s*(-?\d[\d,]*)\s*\}"
    r"|\{?\s*(\d[\d,]*)\s*\}?\s*/\s*\{?\s*(-?\d[\d,]*)\s*\}?(?![\d/.])"
    r"|(\d[\d,]*) (?:out of (?=\d)|in (?=\d[\d,]*$))(\d[\d,]*)(?![\d/.]))"
)
NUMBER = re.compile(rf"(?:{'|'.join((*GROUPED, REPEATING, POINTED))})(?![\d.,]*\d)")
TENS = re.compile(POWER)
ALONE = re.compile(BARE_POWER)
AND_PART = re.compile(
    rf"({INTEGER_OR_GROUPS})\s+and\s+(an?|one|two|three|four|five)[\s-]+({'|'.join(PARTS)})s?(?![A-Za-z])",
    re.IGNORECASE,
)
PERCENT = re.compile(
    r"\s*(?:%|(?:per ?cent|percentage points?|percentage|pct|prozent|procent|por ciento|pour ?cent)"
    r"(?![A-Za-z])\.?)",
    re.IGNORECASE,
)
PART = re.compile(rf"\s*-?({'|'.join(PARTS)})s(?![A-Za-z])", re.IGNORECASE)
ORDINAL = re.compile(r"(?:st|nd|rd|th)(?![A-Za-z])")
ONE_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)\.?")
SEVERAL_UNITS = re.compile(rf"{ONE_UNIT.pattern}(?:(?:\s*,\s*|\s+|\s*,?\s+and\s+){ONE_UNIT.pattern}){{1,3}}")
AROUND = re.compile(r"^[({\[]\s*(.*?)\s*[)}\]]$")
# words before a number after which it is another one: the square of 5, anything other than 100
CHANGES = re.compile(
    r"\b(?:whether|unless|if|than|excluding|excepting|except|besides|within|exceeds?|exceeded|such as|"
    r"used to|close to|including|minimum of|maximum of|as many as|beyond|nowhere near|far from|"
    r"different from|unequal to|presumably|hopefully|supposedly|seemingly|hardly|circa|exceeding|near|"
    r"bounded by|divisible by|differs? (?:from|by)|ending (?:in|with)|ends? (?:in|with)|start(?:ing"
    r"|s) (?:at|from|with)|"
    r"beginning (?:at|with)|numbers? (?:from|above|below)|rul(?:es?|ed|ing) out|starting from)\b|"
    r"\b(?:squares?|cubes?|(?:\w+ )?roots?|reciprocal|opposite|negative|inverse|complement|absolute value|"
    r"hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|tenths?|multiples?|divisors?|factors?|powers?|twice|"
    r"double|triple|factorial|logarithm|log|sine|cosine|tangent|sin|cos|tan|derivative|digits?|"
    r"predecessor|successor|percent|per cent|dozens?|hundreds|thousands|millions|billions|instead|most|"
    r"each|one|some|none|multiplicity|order|base|ratio|product|quotient|negation|fraction)\b of\s*$",
    re.IGNORECASE,
)
# the cost of 18 apples is no 18; the sum of 18, the area of 18 cm is
OF_THINGS = re.compile(
    r"\bthe\s+(?:total |whole |average )?(?:costs?|prices?|weights?|areas?|sum|values?|volumes?|lengths?|"
    r"perimeters?|probability|average|mean) of\s*$",
    re.IGNORECASE,
)
BOOKED = re.compile(rf"\(\s*({CURRENCY}\s*\d[^()-]*)\)")  # a negative amount, as accountants write it
PAIR = re.compile(r"-?\d{1,3},\d{3}")
# in "the minimum number of coins is 12" they tell which number it is
NAMING = words(
    """minimum maximum max min remainder root third fourth fifth sixth eighth tenth number least most
    positive"""
)
LONGEST_PHRASE = 14  # the most words around the only number of a sentence


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and what it counts.

    Attributes:
        value: the number without the unit's factor. A percentage is not divided by a hundred.
        doubtful: other possible values of the number.
        digits: significant digits of a decimal, 0 of any other number.
    """

    value: Fraction
    unit: Unit | None = None
    is_percent: bool = False
    doubtful: tuple[Fraction, ...] = ()
    digits: int = 0


def quantity(text: str) -> Quantity | None:
    r"""Read a text that is one quantity. None if any part of it is unknown.

    >>> quantity("-$1,250.50").value, quantity("11 5/6").value, quantity("$1.5M").value
    (Fraction(-2501, 2), Fraction(71, 6), Fraction(1500000, 1))
    >>> quantity("3 or 4"), quantity("H2O"), quantity("2 10/3")
    (None, None, None)
    """
    text = text.strip()
    if (booked := BOOKED.fullmatch(text)) and (read := quantity(booked[1])) is not None:  # ($1,250)
        return Quantity(-read.value, read.unit, read.is_percent, (*read.doubtful, read.value), read.digits)
    inside = AROUND.match(text)
    if inside and PAIR.fullmatch(inside[1]):  # (100,200)
        return None
    while inside and "(" not in inside[1] and "{" not in inside[1] and "[" not in inside[1]:
        text, inside = inside[1], AROUND.match(inside[1])
    sign, money, rest = _front(text)
    found = _number(rest)
    if found is None:
        return _in_words(text)
    number, behind, is_pure = found
    return _with_rest(number, sign, money, behind, is_pure) or (None if money else compound(text))


def compound(text: str) -> Quantity | None:
    """Read a quantity in several units of one dimension. The result is in the first of them.

    >>> compound("5 hours and 30 minutes").value
    Fraction(11, 2)
    """
    text = re.sub(r"^(\d+)' ?(\d+(?:\.\d+)?)\"$", r"\1 ft \2 inches", text)
    text = re.sub(r"^(\d+)\s*h(?:rs?)?\s*(\d+)\s*m(?:ins?)?$", r"\1 hours \2 minutes", text)
    if not SEVERAL_UNITS.fullmatch(text):
        return None
    total, first, last = Fraction(0), None, None
    for number, word in ONE_UNIT.findall(text):
        unit = unit_of("inch" if word == "in" else word)
        if unit is None or unit.counts_nouns or (first is not None and unit.dimensions != first.dimensions):
            return None
        if last is not None and unit.factor >= last:  # 2 cm and 3 cm are two lengths
            return None
        first, last = first or unit, unit.factor
        total += Fraction(number) * unit.factor
    return None if first is None or not first.dimensions else Quantity(total / first.factor, first)


def _front(text: str) -> tuple[int, str, str]:
    """The sign, the currency and the rest. Sign and currency may come in either order."""
    sign, money, seen = 1, "", True
    while seen:
        seen = False
        if (found := SIGN.match(text)) and found.end() < len(text):
            if found[1] != "+":
                sign = -sign
            text, seen = text[found.end() :], True
        elif not money and (found := MONEY.match(text)):
            money, text, seen = found[1], text[found.end() :], True
    return sign, money, text


def _number(text: str) -> tuple[Number, str, bool] | None:
    """The number at the beginning of a text, the text after it, and whether the number is one numeral."""
    if found := MIXED.match(text):
        whole, over, under = found[1], found[2] or found[4], found[3] or found[5]
        if not 0 < int(over) < int(under):
            return None
        return Number(_plain(whole) + Fraction(int(over), int(under))), text[found.end() :], False
    if found := AND_PART.match(text):
        over, under = VALUES.get(found[2].casefold(), 1), PARTS[found[3].casefold()]
        return Number(_plain(found[1]) + Fraction(over, under)), text[found.end() :], False
    if found := FRACTION.match(text):
        over, under = found[1] or found[3] or found[5], found[2] or found[4] or found[6]
        if not _plain(under):
            return None
        return Number(_plain(over) / _plain(under)), text[found.end() :], False
    if (found := ALONE.match(text)) is not None:
        power = power_of_ten(found.groups())
        return None if power is None else (Number(power), text[found.end() :], False)
    found = NUMBER.match(text)
    read = numeral(found[0]) if found else None
    if found is None or read is None:
        return None
    behind = text[found.end() :]
    if tens := TENS.match(behind):
        power = power_of_ten(tens.groups())
        return None if power is None else (Number(read.value * power), behind[tens.end() :], False)
    return read, behind, True


def _plain(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _with_rest(number: Number, sign: int, money: str, behind: str, is_pure: bool) -> Quantity | None:
    """The quantity of a number and all the text after it."""
    scale: int | Fraction
    whole = behind
    scale, behind = _scale(behind, bool(money)) if is_pure else (1, behind)
    is_letter = scale > 1 and not money and SCALE.match(whole) is None  # 300K may be kelvins
    while scale > 1 and (more := SCALE.match(behind)):  # two hundred thousand
        scale, behind = scale * SCALES[more[1].casefold()], behind[more.end() :]
    if is_pure and scale == 1 and (found := PART.match(behind)):
        scale, behind = Fraction(1, PARTS[found[1].casefold()]), behind[found.end() :]
    is_percent = False
    if found := PERCENT.match(behind):
        is_percent, behind = True, behind[found.end() :]
    elif is_pure and number.value.denominator == 1 and (found := ORDINAL.match(behind)):
        behind = behind[found.end() :]
    behind = "" if behind.strip(" .") in ("/-", "times") else behind
    unit = read_unit(behind, not behind or not behind[0].isalpha()) if behind.strip(" .,;:!") else None
    if behind.strip(" .,;:") and (unit is None or behind.lstrip().startswith("!")):
        return None
    if unit is not None and unit.counts_nouns and behind[:1].isalpha():  # 3ish
        return None
    if money:
        own = unit_of(money)
        if unit is not None and own is not None and unit.dimensions:
            powers = dict(unit.dimensions) | dict(own.dimensions)
            own = Unit(unit.factor, frozenset(powers.items()))
        unit = own
    value = sign * number.value * scale
    doubtful = tuple(sign * other * scale for other in number.doubtful)
    doubtful += (sign * number.value,) if is_letter else ()
    counts = unit is not None and (unit.dimensions or unit.factor != 1)  # hours per day are a share
    return Quantity(value, unit if counts else None, is_percent, doubtful, number.digits)


def _scale(behind: str, is_money: bool) -> tuple[int, str]:
    """A scale word or letter directly after a number."""
    if found := SCALE.match(behind):
        return SCALES[found[1].casefold()], behind[found.end() :]
    letters = MONEY_LETTERS if is_money else SCALE_LETTERS
    letter = re.match(r"\s?([kKmMbBtT])(?![\w^/])", behind)
    if letter and letter[1] in letters and (is_money or not behind[0].isspace()):
        return letters[letter[1]], behind[letter.end() :]
    return 1, behind


def _in_words(text: str) -> Quantity | None:
    """A number in words, with a noun after it."""
    words = text.rstrip(".!").split()
    if not words or len(words) > 12 or any(character.isdigit() for character in text):
        return None
    sign = 1
    if words[0].casefold() in ("negative", "minus"):
        sign, words = -1, words[1:]
    for count in range(len(words), 0, -1):
        value = words_to_number(" ".join(words[:count]))
        if value is None:
            continue
        behind = " ".join(words[count:])
        if PERCENT.fullmatch(behind):
            return Quantity(sign * value, None, True)
        unit = read_unit(behind) if behind else None
        if behind and unit is None:
            return None
        return Quantity(sign * value, unit if unit and unit.dimensions else None)
    return None


def _is_measure(word: str) -> bool:
    return word.casefold() in KNOWN or word.upper() in CURRENCIES or re.match(CURRENCY, word) is not None


def in_a_phrase(text: str) -> Quantity | None:
    """Read the quantity of a short sentence that has one number, and no word that changes what it means.

    >>> in_a_phrase("She has 18 apples left").value, in_a_phrase("She has at least 18 apples")
    (Fraction(18, 1), None)
    """
    found = NUMERAL.search(text)
    if found is None or found.start() == 0:
        return None
    before = text[: found.start()]
    front = re.match(rf"(.*?)((?:[-+]|{CURRENCY}|\s|\()+)$", before)
    words = [] if front is None else front[1].split()
    if front is None or not words or len(text.split()) > LONGEST_PHRASE:
        return None
    if any(not re.fullmatch(r"[^\W\d_]+(?:['-][^\W\d_]+)*[,:]?", word) for word in words):
        return None
    telling = TELLING | FUNCTIONS | {"and"}
    if len(words) > 2 and words[0].casefold() == "the" and words[-1] in ("is", "was", "equals"):
        telling -= NAMING
    if any(word.strip(",:").casefold() in telling for word in words):
        return None
    if CHANGES.search(front[1]):
        return None
    thing = re.match(r"\s*([^\W\d_]+)", text[found.end() :])
    if OF_THINGS.search(front[1]) and thing and not _is_measure(thing[1]):
        return None
    if not front[2][:1].isspace() and front[2][:1] != "(":  # COVID-15
        return None
    if words[-1][0].isupper() and words[-1].strip(",:").casefold() not in EMPTY:  # March 3, Room 5
        return None
    if len(words[-1]) == 1 and words[-1] != "I":  # a variable, or a name that goes with the number
        return None
    if re.search(r"[,:]$", words[-1]) and len(words) > 3:
        return None
    read = quantity(text[len(front[1]) :])
    if words[-1].casefold() in ("before", "after", "since", "until") and (read is None or read.unit is None):
        return None  # before 1965; after 5 hours is a time
    if read is None or (
        re.search(r"\d", text[found.end() :].replace("^2", "").replace("^3", "")) and not read.unit
    ):
        return None
    return read
