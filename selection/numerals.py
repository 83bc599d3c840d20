r"""Reads numbers exactly as people write them: grouped digits of every country, mixed numbers, powers of ten,
repeating decimals, scale words and number words.

Some numerals have two readings (`1.234` is a decimal here and a thousand elsewhere). One of them counts, the
others are doubtful. An answer that is right only by a doubtful reading is neither right nor wrong. The text
has no typography, see `typography.plain`.
"""

import re
from dataclasses import dataclass
from fractions import Fraction


def spoken(text: str) -> list[str]:
    """The words of a text in their order."""
    return text.split()


LARGEST_EXPONENT = 5000  # the largest exponent of a power that is computed here
POINTED = r"(?:\d+(?:\.\d*)?|\.\d+)"
GROUPED = (
    r"[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?:\.\d+)?",  # 1,234,567.8
    r"[1-9]\d?(?:,\d{2})+,\d{3}(?![\d,])(?:\.\d+)?",  # 12,34,567
    r"[1-9]\d{0,2}(?: \d{3})+(?![\d ]*\d)(?:[.,]\d+)?",  # 1 234 567,8
    r"\d{1,3}(?:'\d{3})+(?![\d'])(?:[.,]\d+)?",  # 1'234'567.8
    r"\d{1,3}(?:_\d{3})+(?![\d_])(?:\.\d+)?",  # 1_234_567
    r"\d{1,3}(?:\.\d{3}){2,}(?![\d.])(?:,\d+)?",  # 1.234.567,8
    r"\d{1,3}(?:\.\d{3})+,\d+(?![\d,.])",  # 1.234,5
)
DECIMAL_COMMA = r"\d+,\d+(?![\d,.])"
REPEATING = r"\d*\.\d*(?:\\overline\s*\{?\d+\}?|\\bar\s*\{?\d+\}?|\\dot\s*\{?\d\}?|\(\d+\)|\.{3})"
NUMERAL = re.compile(rf"(?<![\w.,])(?:{'|'.join((*GROUPED, REPEATING, POINTED))})")
GROUPS = re.compile(rf"(?<![\w.,'])(?:{'|'.join(GROUPED)})(?![\w]*\\overline)")
EXPONENT = r"(?:\{\s*([-+]?\d+)\s*\}|\(\s*([-+]?\d+)\s*\)|([-+]?\d+))"
POWER = rf"(?:\s*(?:\\times|\\cdot|\*|x|X)\s*10\s*\^\s*{EXPONENT}|[eE]([-+]?\d+)(?!\w))"
BARE_POWER = rf"10\s*\^\s*{EXPONENT}"
INTEGER_OR_GROUPS = rf"(?:{'|'.join(GROUPED[:2])}|\d+)"

SMALL = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
"""
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
VALUES = {word: i for i, word in enumerate(spoken(SMALL))}
VALUES |= {word: 20 + 10 * i for i, word in enumerate(spoken(TENS))}
FIRST = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
ORDINALS = {word: i for i, word in enumerate(spoken(FIRST), 1)}
PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10, "hundredth": 100, "thousandth": 1000}
TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen eleven"
PARTS |= {f"{word}th": VALUES[word] for word in spoken(TEENS)} | {"twelfth": 12}
PARTS |= {f"{word[:-1]}ieth": VALUES[word] for word in spoken(TENS)}
PARTS |= {"millionth": 10**6, "billionth": 10**9}
SCALES = {
    "quintillion": 10**18, "millionen": 10**6, "milliarde": 10**9, "milliarden": 10**9, "millones": 10**6,
    "millón": 10**6, "docena": 12, "docenas": 12, "milhões": 10**6,
    "тысяча": 1000, "тысячи": 1000, "тысяч": 1000, "миллион": 10**6, "миллиона": 10**6,
    "миллионов": 10**6, "миллиард": 10**9, "миллиарда": 10**9, "milliards": 10**9, "tausend": 1000,
    "hundred": 100, "thousand": 1000, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9,
    "trillion": 10**12, "dozen": 12, "score": 20, "mn": 10**6, "mio": 10**6, "bn": 10**9, "mil": 10**6,
    "hundreds": 100, "thousands": 1000, "lakhs": 10**5, "millions": 10**6, "crores": 10**7, "billions": 10**9,
    "trillions": 10**12, "dozens": 12, "quadrillion": 10**15, "lac": 10**5, "tn": 10**12,
    "тыс": 1000, "млн": 10**6, "млрд": 10**9, "mila": 1000, "mille": 1000, "milione": 10**6, "milioni": 10**6,
    "miliardo": 10**9, "miliardi": 10**9, "duizend": 1000, "miljoen": 10**6, "miljard": 10**9, "tysiąc": 1000,
    "tysiące": 1000, "tysięcy": 1000, "milion": 10**6, "miliony": 10**6, "milionów": 10**6, "miliard": 10**9,
    "miliardy": 10**9, "miliardów": 10**9, "milyon": 10**6, "milyar": 10**9, "nghìn": 1000, "ngàn": 1000,
    "triệu": 10**6, "tỷ": 10**9, "dutzend": 12, "douzaine": 12, "douzaines": 12, "dozzina": 12, "dozzine": 12,
    "dúzia": 12, "dúzias": 12, "dozijn": 12, "tuzin": 12, "tuziny": 12, "tuzinów": 12,
    "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "만": 10**4, "억": 10**8,
}  # fmt: skip
SCALE_LETTERS = {"k": 1000, "K": 1000, "M": 10**6}  # directly behind the digits
MONEY_LETTERS = SCALE_LETTERS | {"m": 10**6, "B": 10**9, "b": 10**9, "T": 10**12, "t": 10**12}
SCALE = re.compile(  # mN and MN are newtons
    rf"\s*-?\s*(?!(?-i:[mM]N)(?![A-Za-z]))({'|'.join(sorted(SCALES, key=len, reverse=True))})(?![A-Za-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number.

    Attributes:
        doubtful: its values by readings that do not count.
        digits: significant digits of a decimal. 0 if there is no point, or if digits repeat.
    """

    value: Fraction
    doubtful: tuple[Fraction, ...] = ()
    digits: int = 0


def numeral(text: str) -> Number | None:
    r"""Read a text that is one numeral, without a sign.

    >>> numeral("1,234.5").value, numeral("1.234,5").value, numeral(r"0.\overline{3}").value
    (Fraction(2469, 2), Fraction(2469, 2), Fraction(1, 3))
    >>> numeral("1.234")
    Number(value=Fraction(617, 500), doubtful=(Fraction(1234, 1),), digits=4)
    """
    if re.fullmatch(POINTED, text):
        grouped = re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", text)
        return Number(Fraction(text), (Fraction(text.replace(".", "")),) if grouped else (), _digits(text))
    if re.fullmatch(REPEATING, text):
        return _repeating(text)
    if re.fullmatch("|".join(GROUPED), text):
        ungrouped = without_groups(text)
        decimal = re.fullmatch(r"[1-9]\d{0,2},(?!000)\d{3}", text)  # nobody writes 64 as 64,000
        doubt = (Fraction(text.replace(",", ".")),) if decimal else ()
        return Number(Fraction(ungrouped), doubt, _digits(ungrouped))
    return None


def without_groups(text: str) -> str:
    """The text with the digits of every grouped numeral joined, and with decimal points.

    >>> without_groups("1,234 + 1 000 000"), without_groups("1.234,5"), without_groups("1, 2, 300")
    ('1234 + 1000000', '1234.5', '1, 2, 300')
    """
    return GROUPS.sub(_joined, text)


def _joined(found: re.Match[str]) -> str:
    text = found[0]
    if re.fullmatch(GROUPED[5], text) or re.fullmatch(GROUPED[6], text):
        return text.replace(".", "").replace(",", ".")
    if " " in text or "'" in text:
        return text.replace(" ", "").replace("'", "").replace(",", ".")
    return text.replace(",", "").replace("_", "")


def _digits(text: str) -> int:
    return len(text.replace(".", "").lstrip("0")) if "." in text else 0


def _repeating(text: str) -> Number | None:
    """Read a decimal whose end repeats. A line, parentheses or following dots mark it."""
    if text.endswith("..."):
        whole, _, behind = text[:-3].partition(".")
        seen = re.fullmatch(r"(\d*?)(?:(\d)\2{2,}|(\d{2,6}?)\3+)", behind)
        if seen is None:
            return None
        first, again = seen[1], seen[2] or seen[3]
    else:
        split = re.fullmatch(r"(\d*)\.(\d*)(?:\\[a-z]+\s*\{?|\()(\d+)[})]?", text)
        if split is None:
            return None
        whole, first, again = split[1], split[2], split[3]
    repeats = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(first))
    return Number(Fraction(f"{whole or 0}.{first or 0}") + repeats)


def power_of_ten(groups: tuple[str | None, ...]) -> Fraction | None:
    """The power that `POWER` or `BARE_POWER` found. None if it is too large to compute."""
    exponent = int(next(group for group in groups if group is not None))
    return Fraction(10) ** exponent if abs(exponent) <= LARGEST_EXPONENT else None


def words_to_number(text: str) -> Fraction | None:
    """Read a number that is written in words.

    >>> words_to_number("twenty-one"), words_to_number("three and a half"), words_to_number("two thirds")
    (Fraction(21, 1), Fraction(7, 2), Fraction(2, 3))
    """
    words = text.casefold().replace("-", " ").split()
    if not words or any(not word.isalpha() for word in words):
        return None
    if len(words) == 1 and words[0] in ORDINALS:
        return Fraction(ORDINALS[words[0]])
    for end in ("and a half", "and one half", "and a quarter", "and three quarters"):
        if len(words) > 2 and " ".join(words).endswith(end):
            whole = _whole(words[: -len(end.split())])
            share = {"and a quarter": Fraction(1, 4), "and three quarters": Fraction(3, 4)}
            return None if whole is None else whole + share.get(end, Fraction(1, 2))
    last = words[-1] if words[-1] in PARTS else words[-1].removesuffix("s")
    if last in PARTS and (len(words) > 1 or last == "half"):
        count = _whole(words[:-1] or ["one"])
        return None if count is None or count >= 100 else Fraction(count, PARTS[last])
    whole = _whole(words)
    return None if whole is None else Fraction(whole)


def _whole(words: list[str]) -> int | None:
    """A whole number in words: parts below a hundred, multiplied by the scales that follow."""
    total, group, last = 0, 0, ""
    if len(words) > 1 and words[0] in ("a", "an"):
        words = ["one", *words[1:]]
    for word in words:
        if word == "and" and last in SCALES:
            continue
        if word in VALUES:
            value = VALUES[word]
            fits = not last or last in SCALES or (last in spoken(TENS) and value < 10 and value > 0)
            if not fits:
                return None
            group += value
        elif word in SCALES and last and word not in ("score", "mil", "mn", "mio", "bn", "tn"):
            if SCALES[word] in (100, 12):
                group *= SCALES[word]
            else:
                total, group = total + group * SCALES[word], 0
        else:
            return None
        last = word
    return total + group if last else None
