r"""Boxed answers: `\boxed{...}` and `\fbox{...}`, with the text directly around them.

Several boxes next to one another are one answer. If the text continues from one to the next, or takes one
back, the last one counts.
"""

import re
from dataclasses import dataclass

from selection.numerals import VALUES
from selection.units import KNOWN

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(-?\d[\d.,]*\d|[\dA-Za-z]))")
BEFORE = re.compile(
    r"(?:(?:^|[^\w\s)}])\s*|\s)(-|−|±|\\pm\s*|\\neq?\s*|≠\s*|not\s+(?:equal to\s+)?)(?:\$|\\\(|\{)?\s*$"
)
BULLET = re.compile(r"(?:^|\n)\s*-\s+$")
# another value beside that in the box, to the end of its clause: it may be the same one in other words
NUMBER_WORDS = "|".join(sorted(VALUES.keys() - {"one"}))  # "or one of them" is no value
ANOTHER = (
    r"(?:(?:[,(]\s*)?or\s+(?:(?:maybe|perhaps|possibly|even)\s+)?|[,(]\s*(?:maybe|perhaps|possibly)\s+)"
    rf"(?:\w\s*=\s*)?(?:\\\(|\$)?\s*-?(?:\d|\\(?:frac|sqrt|pi)|(?:{NUMBER_WORDS})\b)"
    r"(?:[^.;,\n)]|[.,](?=\d))*"
)
AFTER = re.compile(
    r"\s*(?:\$+|\\\)|\\\]|\*+)?\s*(\\?%|"
    rf"(?:percent|hundred|thousand|million|billion|trillion|dozen)\b|{ANOTHER}|\?"
    r"|\\(?:text|mathrm|textrm)\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?"
    r"|\^\s*\{?\\circ\}?|\\,\s*\\(?:text|mathrm)\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?|[A-Za-z]+(?:\^\d)?\b)"
)
TAKEN_BACK = re.compile(
    r"\b(?:wait|but|no|not|actually|however|wrong|mistake|fails?|incorrect|instead|correction|hmm|recheck|"
    r"let me|so|then|thus|hence|therefore|gives?|finally|now|next|again|which means|substitut\w*)\b",
    re.IGNORECASE,
)
NEAR = 2000  # the most characters of a formula around a box
MOST = 20  # the last boxes of a text that may be one answer
FARTHEST = 160  # the most characters between boxes that are one answer
CLOSER = r"(?:\$+|\\\)|\\\]|[*_\s.,;:)])*"
# a second answer is offered beside the first: the word follows the first box or precedes the second
OFFERED = re.compile(rf"{CLOSER}(?:or|alternatively|otherwise)\b", re.IGNORECASE)
ALTERNATIVE = re.compile(
    r"\b(?:alternatively|or else|another (?:possibility|option|answer))\b|"
    r"\bor\b(?:[\s,:*_$(]|\\[\[(])*"
    r"(?:(?!(?:so|thus|therefore|hence|finally|one|two|three|four|more|less|fewer)\b)"
    r"[\w']+(?:[\s,:*_$(]|\\[\[(])+){0,7}$",
    re.IGNORECASE,
)
MATH_SIGN = re.compile(r"\$\$|(?<!\\)\$|\\[()\[\]]")
RELATED = re.compile(
    r"[=<>,;:&]|\\\\|\\begin\{[^{}]*\}(?:\{[^{}]*\})?|\\text\{[^{}]*\}|"
    r"\\(?:approx|leq?|geq?|neq?|to|iff|implies|therefore|because|quad|qquad|"
    r"(?:[Ll]ong)?(?:[Ll]eft|[Rr]ight|[Ll]eftright)arrow)(?![A-Za-z])"
)
MATH_ENDS = re.compile(
    r"\$|\\[)\]]|[=<>,;&\n]|\\(?:approx|le|ge|leq|geq|ne|implies|Rightarrow|end|quad|qquad|text|mathrm|pmod|\\)"
)
# what makes a box a part of a larger formula: a factor or a bracket before it, a term behind it
NAMED = r"pi|sqrt|sin|cos|tan|log|ln|alpha|beta|gamma|theta|lambda|mu|sigma|phi|omega|pm|mp"
FACTOR = re.compile(
    rf"(?:[\d)}}{{/]|(?<![A-Za-z\\])[A-Za-z]|\\(?:cdot|times|{NAMED})(?![A-Za-z])|\^\{{?|[\w)}}]\s*[-+])\s*$"
)
TERM = re.compile(
    rf"\s*(?:\\[,;!]\s*)*(?:\\(?:times|cdot|div|frac|dfrac|tfrac|binom|left|{NAMED})"
    r"(?![A-Za-z])|[-+*/^!}_]|[A-Za-z](?![A-Za-z])|\()"
)
BRACKET_BEFORE = re.compile(r"(?:\\left)?[(\[][^()\[\]$=]*\Z")
BRACKET_BEHIND = re.compile(r"[^()\[\]$=]*?(?:\\right)?[)\]]")
CLOSES = re.compile(r"(?<!\\)\$(?!\d)")
# commands that are no part of a value, and words in brackets behind one
STYLED = re.compile(
    r"\\(?:text|mathrm|mathbf|underline|boxed|bm|color|textcolor|hspace|vspace|quad)(?![A-Za-z])"
)
WORDS = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}|\bmod\b")
# the same outside of marked mathematics: a factor before the box, a term directly behind it
MULTIPLIED = re.compile(r"\d[\d.]*\s*\\(?:cdot|times)\s*\Z")
DIRECTLY = re.compile(
    r"(?:\\(?:cdot|times|pi|sqrt|frac|dfrac)(?![A-Za-z])[^.,;\n$]*|[/^!][\w{}\\]+|[A-Za-z](?![A-Za-z])"
    r"|\s*[-+*/]\s*\d[\d\s+*/^-]*?)(?=[.,;\s]*(?:\Z|\n|[.,;]\s))"
)
# between two boxes: nothing but signs of a calculation
CALCULATED = re.compile(
    r"[\s$\dA-Za-z]?[\s$\d.{}()\\]*(?:\\(?:cdot|times|div)|[-+*/^=])[^A-Za-z,;]*=?[\s$\d.{}]*"
)
EITHER = re.compile(r"\beither\b[^.\n]*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Box:
    """The beginning and end of a box, and its content."""

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    """All closed boxes with content, in order. Of nested boxes the outer one."""
    found: list[Box] = []
    for match in BOX.finditer(text):
        if found and match.start() < found[-1].end:
            continue
        if match[1]:
            found.append(Box(match.start(), match.end(), match[1]))
        elif (end := _closing(text, match.end())) is not None and text[match.end() : end].strip():
            found.append(Box(match.start(), end + 1, text[match.end() : end].strip()))
    return found


def _closing(text: str, begin: int) -> int | None:
    """The place where the brace closes that was opened before this place."""
    depth = 1
    for place in range(begin, len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
        if depth == 0:
            return place
    return None


def boxed_answer(text: str, found: list[Box]) -> str:
    r"""The content of the last box, together with the boxes that belong to it.

    >>> text = r"We get $\boxed{1}$ or $\boxed{2}$."
    >>> boxed_answer(text, boxes(text))
    '1 or 2'
    """
    found = found[-MOST:]
    last = found[-1]
    if _in_formula(text, last):  # which uses the answer that an earlier box told
        alone = [box for box in found[:-1] if box.content == last.content and not _in_formula(text, box)]
        if alone:
            return _with_surroundings(text, alone[-1])
    said, seen = _with_surroundings(text, last), {last.content}
    for box in reversed(found[:-1]):
        between = text[box.end : last.start]
        if box.content not in seen:
            is_alternative = alternative(between) or (
                EITHER.search(text[: box.start]) is not None and re.search(r"\bor\b", between) is not None
            )
            if not is_alternative and not _belong(between):
                break
            is_list = is_alternative or re.search(r"\bor\b", between)
            link = " or " if is_list else ", "
            said = f"{_with_surroundings(text, box)}{link}{said}"
            seen.add(box.content)
        last = box
    return said


def alternative(between: str) -> bool:
    """Whether the text between two answers offers the second as an alternative. Both are then one hedged
    answer, even across paragraphs.
    """
    return OFFERED.match(between) is not None or ALTERNATIVE.search(between) is not None


def _belong(between: str) -> bool:
    """Whether two boxes with this text between them are one answer. Boxes within one calculation are not."""
    if len(between) <= FARTHEST and CALCULATED.fullmatch(between):
        return False
    bare = re.sub(r"\\[\[\]()]|[$\s]|\\(?:quad|qquad|text|,)", " ", between).strip(" {}.")
    if re.fullmatch(r"(?:or|and|,|;|&|, and|, or)?", bare):
        return True
    return len(between) <= FARTHEST and "\n\n" not in between and not TAKEN_BACK.search(between)


def _in_formula(text: str, box: Box) -> str | None:
    r"""The formula that a box is a part of, from the last relation or the beginning of the mathematics to the
    next one or its end. It is marked as doubtful if a value of the formula follows: the answer may be the box
    or the formula. None if the box is all of it.

    >>> text = r"so $v = \boxed{3.0} \times 10^8$ m/s"
    >>> _in_formula(text, boxes(text)[0])
    '3.0 \\times 10^8'
    """
    before, behind = text[max(0, box.start - NEAR) : box.start], text[box.end : box.end + NEAR]
    opened = _opened(before)
    if opened and before[opened - 1] == "$" and not CLOSES.search(behind.split("\n\n", 1)[0]):
        opened = None  # the sign was one of money
    if opened is None:
        factor, term = MULTIPLIED.search(before[-60:]), DIRECTLY.match(behind)
        if factor is None and term is None:
            return None
        return _joined(factor[0] if factor else "", box.content, term[0] if term else "")
    if bracket := _in_brackets(before[opened:], behind):
        return f"{bracket[0]}{box.content}{bracket[1]}"
    front = RELATED.split(before[opened:])[-1]
    tail = (MATH_ENDS.split(behind, maxsplit=1) or [""])[0]
    if not FACTOR.search(front):
        front = ""
    if not TERM.match(tail) or tail.count("(") != tail.count(")") or WORDS.search(tail):
        tail = ""
    if not _balanced(f"{front}{{}}{tail}") or (not front and not tail) or STYLED.search(front + tail):
        return None
    formula = _joined(front, box.content, tail.rstrip(" ."))
    has_value = re.match(r"\s*=\s*[-\d\\]", behind[len(tail) :]) is not None
    return f"perhaps {formula}" if has_value else formula


def _in_brackets(before: str, behind: str) -> tuple[str, str] | None:
    r"""The other values of the pair or list in brackets that a box is one value of.

    >>> _in_brackets("P = (-1, ", ")"), _in_brackets("f(", ")"), _in_brackets("P = ", "")
    (('(-1, ', ')'), None, None)
    """
    front, tail = BRACKET_BEFORE.search(before), BRACKET_BEHIND.match(behind)
    if front is None or tail is None or "," not in front[0] + tail[0]:
        return None
    return front[0], tail[0]


def _balanced(text: str) -> bool:
    """Whether each brace of a text closes one that is open."""
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if sign == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def _joined(front: str, content: str, tail: str) -> str:
    """A box's content within its formula, in braces unless it is a number with no digit or letter before."""
    is_number = re.fullmatch(r"-?\d[\d.,]*", content) and not re.search(r"[\w{}]\s*\Z", front)
    return f"{front}{content}{tail}".strip() if is_number else f"{front}{{{content}}}{tail}".strip()


def _opened(before: str) -> int | None:
    """The place behind the sign that opened the mathematics around the end of a text. None outside of it."""
    place, opened = 0, None
    for found in MATH_SIGN.finditer(before):
        sign = found[0]
        if sign in (r"\(", r"\["):
            opened = found.end()
        elif sign in (r"\)", r"\]"):
            opened = None
        else:
            opened = found.end() if opened is None else None
        place = found.end()
    return None if opened is None or "\n\n" in before[place:] else opened


def _with_surroundings(text: str, box: Box) -> str:
    """A box with a sign before it, and with a percent sign, a scale, a unit or another value after it. A box
    within a formula is that formula.
    """
    if formula := _in_formula(text, box):
        return formula
    content, before = box.content, text[max(0, box.start - 40) : box.start]
    sign = BEFORE.search(before)
    if sign and not BULLET.search(before):
        content = f"{sign[1]}{content}"
    behind = AFTER.match(text[box.end : box.end + NEAR // 10])
    if behind and _says_more(behind[1]):
        content = f"{content} {behind[1].lstrip('(,').strip()}"
    return content


def _says_more(behind: str) -> bool:
    """Whether the text after a box belongs to its value."""
    word = re.sub(r"\\[a-z]+\s*\{|\}|\\,|\^.*|[\s.]", "", behind)
    if word.isalpha() and not behind.startswith("or "):
        return word in KNOWN or word in (
            "percent",
            "hundred",
            "thousand",
            "million",
            "billion",
            "trillion",
            "dozen",
        )
    return True
