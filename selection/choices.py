r"""Finds the letters that an answer to a multiple-choice question chooses.

A letter is a choice only if it ends the answer, or if a mark, an option's text or a reason follows. So `(B)`,
`B. Paris` and "C, because ..." choose; "a bird", "I think", "not C" and "B or C" choose nothing. The text has
no typography.
"""

import re

LEAD = re.compile(
    r"^(?:(?:so|thus|hence|therefore|it is|it's|that is|is|the|an?|my|final|correct|right|best|true|"
    r"most likely|answer|options?|choices?|letters?|alternative|statement|i choose|"
    r"i pick|i select|la|el|le|es|est|die|=|:)[\s,:]+)+",
    re.IGNORECASE,
)
BRACKETED = re.compile(r"^[\(\[\{<]\s*([A-Za-z])\s*[\)\]\}>]\s*[.,:;)-]?\s*(.*)$", re.DOTALL)
MARKED = re.compile(r"^([A-Za-z])\s*(?:[.):]|\s-+(?=\s)|-(?=\s)|\s(?=\([^()]+\)$))(?!\w)\s*(.*)$", re.DOTALL)
REASONED = re.compile(
    r"^([A-Z])\s*,?\s*((?:because|since|as|which|for|not|i\.e\.|rather than|instead of|whereas|while|"
    r"\(not [A-Z]\)|\"|;\s*[A-J]\)? (?:is|was|are)|"
    r"is (?:the )?(?:only )?(?:correct|right|best|answer|true))\b.*|\\ .*)$",
    re.DOTALL,
)
LETTERS = re.compile(r"^\(?([A-Za-z])\)?(?:\s*(?:,\s*and|,|and|&|;)\s*\(?([A-Za-z])\)?)+\.?$")
NOT_CHOSEN = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|could|might|unless|although|not sure|unsure|wrong|incorrect|"
    r"false)\b|\?|\bis not\b|\bisn't\b",
    re.IGNORECASE,
)
ANOTHER = re.compile(
    r"(?:\b(?:or|and|nor)\b|/|&|,)\s*\(?[A-Z]\)?(?![\w'])(?!\s+[a-z])|(?:^|\s)\(?[A-Z]\)(?!\w)|"
    r"(?:^|\s)[B-HJ-Z]\.(?=\s|$)|^\(?[A-Z]\)?$"
)


TOLD = re.compile(
    r"(?:^|[\s(*])([A-J])[)*_]*(?:,)? is (?:(?:therefore|thus|indeed|clearly) )?(?:the )?"
    r"(?:(?:final|correct|right|best) )*(?:answer|choice|option|one)\b(?!\s+(?:not|because it is not)\b)"
)
# so option B, at the end
AT_END = re.compile(
    r"(?:\b(?:[Hh]ence|[Ss]o|[Tt]hus|[Tt]herefore),? (?:the )?(?:option|choice)|\b(?:matches"
    r"|corresponds to|picks|choose|is)"
    r" (?:option|choice)|\b(?:correct|right|best) (?:option|choice|answer) (?:here )?(?:is|has to be|must be)"
    r"|\bone that (?:matches|fits|works) is) [*_]*\(?([A-J])\)?[*_]*\s*\.?\s*\Z"
)
# "so B is correct.", at the end, and "I would choose B" count only if nothing else chooses
IS_CORRECT = re.compile(
    r"(?:\A|[.!?]\s+|\n|\b(?:so|thus|therefore|hence),?\s+|"
    r"\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ss]tatement)\s+)[(*_\s]*"
    r"([A-J])[)*_]* is (?:(?:therefore|thus|indeed|clearly) )?correct\b"
)
CHOSEN = re.compile(
    r"(?:\A|[.!?]\s+|\n|\b(?:so|thus|therefore|hence),?\s+)I(?:'d|'ll| would| will)? "
    r"(?:choose|pick|select|go with)(?: (?:option|choice|answer))?[*_\s]*\(?([A-J])\b\)?(?!\s+(?:or|and"
    r"|to be)\b)"
)
FIRST_LINE = re.compile(
    r"\s*[*_(]*([A-J])[)*_.]*\s*\n\s*[*_#]*(?:Explanation|Reason(?:ing)?|Rationale|Justification)\b"
)
# a letter alone on the first line, or an option's text in bold
OPENING = re.compile(r"\s*(?:[*_]*\(?([A-J])\)?[*_.]*[ \t]*\n\s*\n|\*\*\(([A-J])\)\*\*\s+[A-Z])")
CLAIMED = re.compile(
    r"\b(?:claims?|argues?|suppose|assum\w+|if|would think|people|tempting)\b", re.IGNORECASE
)
PREFERRED = re.compile(
    r"\b[A-J]\b\)? (?:is|fits|seems|looks)(?! (?:tempting|wrong|incorrect|false|not)\b)|"
    r"\b(?:so|but|then|instead)[, ]+\(?[A-J]\b|\bguess\b"
)


def told_choice(text: str) -> str | None:
    """The letter of the last "B is the answer" of a text, with the sentence around it.

    >>> told_choice("I think B is the correct answer."), told_choice("B is not the answer")
    ('B', None)
    """
    if first := FIRST_LINE.match(text):
        return first[1]
    found = list(TOLD.finditer(text))
    if not found:
        return _chosen_at_the_end(text) or _opening(text)
    before = text[max(0, found[-1].start() - 30) : found[-1].start()]
    if NOT_CHOSEN.search(before) or CLAIMED.search(re.split(r"[.!?]\s", before)[-1]):
        return None
    last = found[-1]
    is_one_of_two = re.search(r"\b(?:or|and|not|neither|nor|if|whether)\s*\(?$", text[: last.start(1)])
    return None if is_one_of_two or text[last.end() :].lstrip().startswith("?") else last[1]


def _chosen_at_the_end(text: str) -> str | None:
    """The letter of "so B is correct" at a text's end, or of "I would choose B", if no other is named so."""
    if (ended := AT_END.search(text)) and not NOT_CHOSEN.search(
        text[max(0, ended.start() - 30) : ended.start()]
    ):
        return ended[1]
    found = list(IS_CORRECT.finditer(text))
    if len(found) == 1 and re.fullmatch(r"\s*[.!]?\s*", text[found[0].end() :]):
        return found[0][1]
    picked = CHOSEN.search(text)
    if picked is None or PREFERRED.search(text, picked.end()) or CHOSEN.search(text, picked.end()):
        return None
    return picked[1]


def _opening(text: str) -> str | None:
    """The letter that a text begins with, if it names no other one."""
    found = OPENING.match(text)
    if found is None:
        return None
    letter, rest = found[1] or found[2], text[found.end() - 1 :]
    is_hedged = NOT_CHOSEN.search(rest) or re.search(r"\b(?:wait|actually|instead|or)\b", rest, re.IGNORECASE)
    others = set(re.findall(r"(?<![\w'])\(?([B-HJ])\)?(?![\w'])", rest)) - {letter}
    return None if is_hedged or others else letter


NUMBERED = re.compile(
    r"(?:the |option |choice |answer |\(|\[)*([1-9])(?:[)\]]*(?:[.:]?\s*|[.:)]\s+\D.*))",
    re.IGNORECASE | re.DOTALL,
)


def numbered(text: str) -> frozenset[str] | None:
    """The number of an option, where options are numbered. None if the text is none.

    >>> sorted(numbered("(3)") or ()), sorted(numbered("2. Paris") or ()), numbered("3 apples")
    (['3'], ['2'], None)
    """
    found = NUMBERED.fullmatch(text.strip().strip("*_` $"))
    return frozenset({found[1]}) if found else None


def chosen(text: str) -> frozenset[str] | None:
    """The letters that a final answer chooses. None if it chooses none.

    >>> [sorted(chosen(t) or "-") for t in ("(b).", "B. Paris", "C, because it fits", "A and C", "a bird")]
    [['B'], ['B'], ['C'], ['A', 'C'], ['-']]
    """
    text = re.sub(r"^\[*([A-J])\]\]$", r"\1", text.strip().strip("*_` $"))
    text = re.sub(r"\s*(?:です|である|입니다|이다|है|হল|హో)\s*[。.।]?$", "", text)
    if found := _letter(text):
        return found
    shorter = LEAD.sub("", text)
    return _letter(shorter) if shorter != text and shorter else None


def several_letters(text: str) -> frozenset[str] | None:
    """The letters of a choice of several that are written as one word. None if the text is none.

    >>> sorted(several_letters("ABD") or ()), several_letters("BAD"), several_letters("AA")
    (['A', 'B', 'D'], None, None)
    """
    bare = text.strip(" .()")
    is_choice = re.fullmatch(r"[A-J]{2,8}", bare) and list(bare) == sorted(set(bare))
    return frozenset(bare) if is_choice else None


def _letter(text: str) -> frozenset[str] | None:
    if re.fullmatch(r"[A-Za-z]", text):
        return frozenset({text.upper()})
    if LETTERS.match(text):
        return frozenset(letter.upper() for letter in re.findall(r"\b[A-Za-z]\b", text))
    for form in (BRACKETED, MARKED, REASONED):
        found = form.match(text)
        if found is None:
            continue
        letter, rest = found[1], found[2].strip()
        if (
            form is BRACKETED
            and re.match(r"(?:is|are|was)\b", rest)
            and not re.match(r"is (?:the )?(?:only )?(?:correct|right|best|answer|true)", rest)
        ):
            return None
        if form is MARKED and re.match(
            r"^[A-Za-z]\s*\.\s", text
        ):  # a separate sentence, or the option's text
            if re.match(
                r"(?:but|or|and|although|however|maybe|perhaps|actually|wait|no|is|are|are both)\b",
                rest,
                re.I,
            ):
                return None
            is_listed = re.search(r"(?:^|\s)\(?[A-Z]\)(?!\w)|(?:^|\s)[B-HJ-Z]\.(?=\s|$)", rest)
            return None if is_listed else frozenset({letter.upper()})
        is_reason = bool(
            re.match(r"(?:because|since|as|which|not|rather than|instead of|whereas|while)\b|\(not|;", rest)
        )
        if re.fullmatch(
            r"(?:not )?(?:true|false|wrong|right)(?:,? (?:and )?(?:not )?(?:true|false|wrong|right))+\.?",
            rest,
            re.I,
        ):
            return frozenset({letter.upper()})  # the text of an option
        if (NOT_CHOSEN.search(rest) and not is_reason) or re.search(
            r"\b(?:or|and)\s+(?:maybe|perhaps)\b", rest
        ):
            return None
        is_text = form is not REASONED and re.match(
            r"(?:both |neither )?[A-Z] (?:and|or|nor) [A-Z]\b", rest, re.I
        )
        if not is_reason and not is_text and ANOTHER.search(rest):
            return None
        return frozenset({letter.upper()})
    return None
