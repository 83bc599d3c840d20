"""What a text says of its answer behind it: that it is wrong, that it is another one, or nothing.

An answer that is taken back is marked with `not`, and is then read as no plain answer. If the text ends in
the same answer again, it stays.
"""

import re

WRONG = re.compile(
    r"[\s$)\]}\\*]*[❌✗✘]|"
    r"[\s$)\]}\\*]*(?:is|was|are)\s+(?:also\s+)?(?:incorrect|wrong|false|not (?:right|correct|the answer))|"
    r"[\s$)\]}\\*]*fails\b",
    re.IGNORECASE,
)
# what takes an answer back: at once, or in a later sentence
FARTHEST = 400
FILLERS = r"(?:(?:oh|hmm+|but|no|and|oops|well|actually)[,.\s]+){0,2}"
TURN = rf"(?:\A|[.!?;,\n)—–-])[\s$*_)\]}}\\]*{FILLERS}"
FIRST_WORD = re.compile(r"^\S+?(?=[.,;]?\s|$)")
VALUE = r"(?=[*$(\\-]*\d|[\\$(]|(?-i:[A-HJ])\b)"
MISTAKEN = r"(?:wrong|incorrect|not right|not correct|a mistake)"
AT_ONCE = re.compile(
    rf"[\s$*_)\]}}\\.!?;,—–-]*{FILLERS}(?:"
    rf"(?:which|that|this|it)(?:'s| is| was)\s+{MISTAKEN}\b"
    r"(?!:|\s+(?:because|since|if|in|for|to|that|of|as|under|when|by|many|often|made|reasoning)\b)"
    rf"|(?:it|that|the answer) should (?:be|have been)\s+{VALUE}"
    r"|hmm+[,.\s]+\(?[A-J]\)? (?:fits|is) "
    r"|sorry\b[^.\n]{0,30}\b(?:meant|wrong|mistake|it(?:'s| is)|should be)\b)",
    re.IGNORECASE,
)
FORGOT = r"forgot(?!\s+to\s+(?:mention|say|add(?!\s+\S*\d)|note|write|tell))"
ACTUALLY = r"actually(?![,\s]+(?:let me|i want|i will|we can|wait|this is (?:right|correct|fine)))"
RETRACTED = re.compile(
    rf"{TURN}(?:wait[,.!\s—-]+(?:(?:[^.\n\"]{{0,30}}?\b)?(?:"
    rf"(?:that|this|it|which|the (?:answer|result|total))(?:'s| is| was)\s*{MISTAKEN}|made an? \w+|"
    rf"a mistake|{FORGOT}|should (?:be|have been)\s+{VALUE})|"
    rf"no\b(?=[,.!—-]|\s+(?:that|it|this|the answer|i)\b)(?!\.\s+of\b)|{ACTUALLY}\b)"
    rf"|i (?:meant\s+(?:to (?:say|write)\s+)?{VALUE}|{FORGOT}\b|made (?:a|an) (?:mistake|error)\b|misread\b|"
    r"miscalculated\b)"
    rf"|\**(?:correction|edit)\**\s*[:,]|on second thou?ghts?\b|scratch that\b|"
    rf"hmm+[,.\s]+(?:wait[,.\s]+)?{ACTUALLY}\b)",
    re.IGNORECASE,
)
# other ways to take back what stands before, in sentences that say nothing else
TAKEN_BACK = re.compile(
    rf"{TURN}(?:(?:upon|on|after) (?:re-?)?(?:review\w*|closer inspection|reflection|re-?reading)[, ]+"
    rf"(?:[^.\n]{{0,40}}(?:is|was|are|were)\s+{MISTAKEN}\b|\(?[B-J]\b)"
    rf"|i apologi[sz]e for (?:the|my) (?:error|mistake|confusion|oversight)"
    rf"|note\s*:\s*(?:this|that|it) (?:is|was) {MISTAKEN}\b"
    rf"|(?:that|this|it) (?:can'?t be|cannot be|can not be|isn'?t|doesn'?t (?:seem|look)) right"
    rf"|however,? (?:we|i) (?:double|over|under)[- ]?counted|(?:we|i) (?:double|over|under)[- ]?counted"
    rf"|(?:or is it|alternatively,?)\s+[*$(\\]*(?:\d[\d.,/]*|[A-J])[)$*]*\s*[.?]?\s*\Z"
    rf"|hmm+[,.]?\s+no\b|but this contradicts\b"
    rf"|but wait\b[^.\n]{{0,90}}\b(?:is|be)\s+{VALUE})"
    rf"|→\s*actually\b",
    re.IGNORECASE,
)
# an apology or a correction: the answer stays only if the text ends in the same value
CORRECTED = re.compile(
    rf"{TURN}(?:\.{{2,}}\s*)?(?:(?:no,? +wait|no,? +(?:it|that)(?:'s| is)|nope|oops|whoops|er+"
    rf"|my (?:mistake|bad|apologies)"
    r"|apologies|strike that|ignore (?:that|this|the above)|disregard\b|let me (?:correct|fix|revise)"
    r"|i (?:take (?:that|it) back|stand corrected|mean\b|made an? [^.\n]{0,20}(?:mistake|error|slip))"
    r"|(?:revised|corrected|updated?|revision|update)\b"
    r"|but that(?:'s| is) (?:before|without|only)\b|scrap that)\b"
    r"|(?:this|that|it) is (?:not correct|incorrect|wrong) (?:because|since)\b(?=.*\d)"
    rf"|sorry[,.:;]?\s+(?:(?:it(?:'s| is)|i meant?|that(?:'s| is)|the answer is)\s+)?{VALUE})"
    r"|\(\s*(?:incorrect|wrong|not correct)\b"
    r"|\b(?:however|but),? (?:this|that|it) (?:does not|doesn't|fails to) (?:satisfy|work|fit|hold|match)\b"
    r"|\b(?P<failing>(?-i:[A-J]))\)? (?:does not|doesn't|fails to) (?:satisfy|work|fit|hold|match)\b"
    r"|\b(?P<better>(?-i:[A-J]))\)? (?:is|fits|seems|looks) better\b"
    r"|等等|等一下|算错|更正|订正|待って|間違|訂正|잠깐|틀렸|정정"
    r"|\b(?:moment,|das ist falsch|korrektur|ich meinte|attendez|je me suis tromp|pardon,|espera\b"
    r"|me equivoqu|perdón,"
    r"|corrección|errei\b|desculpe,|correção|aspetta|mi sono sbagliat|scusa,|correzione|подожди|ошибся|исправ"
    r"|wacht\b|ik bedoel)",
    re.IGNORECASE,
)
# the question asks for something else than what stands before
ASKS = re.compile(
    rf"{TURN}but (?:the (?:question|problem|task)|we|it) "
    r"(?:asks?|wants?|needs?|is asking|(?:are|were) asked)\b",
    re.IGNORECASE,
)
# a second look, and another value at the end of it
RECHECKED = re.compile(
    rf"{TURN}(?:wait\b|hold on\b|hmm+\b|my apologies\b|on reflection\b|let me (?:re|double|check|verify)|"
    r"no,\s+(?=\$?\d))",
    re.IGNORECASE,
)
CONCLUDED = re.compile(
    r"(?:\b(?:so|thus|therefore|hence)\b[^.\n]{0,40}?(?:is|'s|be|=|get)|\b(?:result|total|it|answer) "
    r"(?:is|must be|should be)|\bthere (?:is|are)|\bno,)\s+[*$\\(]*(\d[\d.,/]*\d"
    r"|\d)(?:,? not \d[\d.,/]*)?[^\d\n]{0,20}\Z",
    re.IGNORECASE,
)
LETTER_CONCLUDED = re.compile(
    r"\b(?:[Ss]o|[Tt]hus|[Tt]herefore|[Hh]ence)\b,?[^.\n]{0,30}?\(?\b([B-HJ]"
    r"|A(?![ '][a-z]))\b\)?[^.\n]{0,30}\.?\s*\Z"
)
# the same value told once more, or only named as the one that is taken back
NAMED = re.compile(r"\b(?:not|instead of|than|from|wrote|said|got|to)\s+[*$(\\]*\Z", re.IGNORECASE)
CROSSED = re.compile("[❌✗✘]")
NUMBERS, LETTERS = re.compile(r"\d+(?:[.,/]\d+)*"), re.compile(r"\b(?:[B-HJ]|A(?![ '][a-z]))\b")


def is_called_wrong(text: str, place: int) -> bool:
    """Whether a text says, directly behind a place, that what stands before it is wrong."""
    return WRONG.match(text, place) is not None


def kept(answer: str, behind: str) -> str:
    """An answer, marked as taken back if the text behind it says so and does not end in the same answer.

    >>> kept("15", ". Wait, that's wrong, so 17."), kept("15", ". That is not hard.")
    ('not 15', '15')
    >>> kept("15", ". Wait, I forgot one. No, all are counted, so 15.")
    '15'
    """
    whole = answer + behind
    rest = FIRST_WORD.sub("", answer)
    is_near = AT_ONCE.match(behind) or AT_ONCE.match(rest)
    near = whole[: len(answer) + FARTHEST]
    if CROSSED.search(answer):
        return f"not {answer}"
    if is_near or RETRACTED.search(near) or TAKEN_BACK.search(near):
        return answer if _told_again(answer, rest + behind) else f"not {answer}"
    first = FIRST_WORD.match(answer)
    start = max(0, (first.end() if first else len(answer)) - 1)
    told = CORRECTED.search(near, start)
    if told and _is_of(told, answer) and _ends_in_another(answer, whole[told.start() :]):
        return f"not {answer}"
    if asks := ASKS.search(near):
        values, own = NUMBERS.findall(whole[asks.start() :]), NUMBERS.search(answer)
        return f"not {answer}" if own and values and values[-1] != own[0] else answer
    again, has_number = RECHECKED.search(near), NUMBERS.search(answer)
    concluded = CONCLUDED if has_number else LETTER_CONCLUDED
    if again and (other := concluded.search(whole, again.start())):
        value = has_number or LETTERS.search(answer)
        return f"not {answer}" if value and value[0] != other[1] else answer
    return answer


def _is_of(told: re.Match[str], answer: str) -> bool:
    """Whether a correction concerns the answer: that a letter fails, if it is the answer's, or is better, if
    it is another one.
    """
    letter = LETTERS.search(answer)
    own = letter[0] if letter else ""
    if told["failing"]:
        return told["failing"] == own
    return not told["better"] or told["better"] != own


def _ends_in_another(answer: str, behind: str) -> bool:
    """Whether a text ends in another value than the answer, or names the answer as the one taken back."""
    values = NUMBERS if NUMBERS.search(answer) else LETTERS
    value, later = values.search(answer), list(values.finditer(behind))
    if value is None or not later:
        return False
    return later[-1][0] != value[0] or NAMED.search(behind[: later[-1].start()]) is not None


def _told_again(answer: str, behind: str) -> bool:
    """Whether the last value of a text is the answer before it."""
    values = NUMBERS if NUMBERS.search(answer) else LETTERS
    value, later = values.search(answer), list(values.finditer(behind))
    if value is None or not later or later[-1][0] != value[0]:
        return False
    return not NAMED.search(behind[: later[-1].start()]) and not is_called_wrong(behind, later[-1].end())
