"""The marks behind which a final answer stands, in English and other languages: `Answer:`, `<answer>`.

Where a mark counts is in `selection.extraction`.
"""

import re

from selection.languages import ANSWERS, WITHOUT_SPACES, WITHOUT_VERB

MARKUP = r"[*_`\s]*"
ADJECTIVE = (  # between the word for answer and its sign, in other languages
    r"(?:\s+(?:finale?|correcta?|correte|correta|corretta|correcte|richtige|endgültige|definitiva|definitive|"
    r"esatta|النهائية|الصحيحة|النهائي|الصحيح|đúng|cuối cùng|yang benar|akhir)(?!\w))?"
)
# what an answer is given in, between the word and its sign: Answer (in cm): 42
QUALIFIED = (
    r"(?:[*_]*\s*\((?:[^)\s]{1,6}|(?:in|to|as|round(?:ed)?|nearest|simplif\w+|exact|expressed|units?|"
    r"correct to)\b[^)\n]{0,36})\)|\s+in\s+(?:its?\s+)?(?:simplest|lowest|reduced|exact|decimal)\s+\w+)?"
)
# the same between commas: the answer, rounded to the nearest cent, is 5
ASIDE = (
    r",\s*(?:therefore|then|thus|hence|finally|of course|as|in(?! case)|to|rounded|simplified|expressed|"
    r"written|(?:after|when|once) (?:simplif|round))[^,.\n\d]{0,40},"
)
BEFORE_VALUE = r"(?=\s+[*$(]*(?:\d|[A-J]\b))"
IS = (
    r"(?:(?:is|are|was|should be|would be|must be|has to be|can only be|will be|equals|turns out to be|"
    r"comes (?:out )?to|"
    r"becomes)(?!\w)(?:\s+(?:clearly|simply|just|thus|therefore|then|found to be|equal to)(?!\w))?|"
    r"'s(?=[ *$\\(]+\d)|=)"
)
# a lower-case text that each mark contains; searching it costs a tenth of searching the mark
MARKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("####", re.compile(r"^[ \t*_]*####(?!#)[ \t]*", re.MULTILINE)),
    (
        "answer",
        re.compile(
            rf"^[ \t>*_#-]*(?:the )?(?:(?:final|correct|my) )?answers?{QUALIFIED}{MARKUP}"
            rf"(?:[:：]|[ \t][-—–][ \t]|=>|→|⇒){MARKUP}|"
            rf"^[ \t]*(?:#{{1,6}}|\*\*|__)[ \t]*(?:the )?(?:(?:final|correct) )?answer[*_ \t]*$\s*|"
            rf"(?<![\"'\w])answers?{QUALIFIED}{MARKUP}[:：]{MARKUP}|"
            rf"answers?(?:\s+(?:to|for|in)\s+[^.:\n?]{{1,60}}?|\s+here|{ASIDE})?"
            rf"\s*{MARKUP}{IS}{MARKUP}:?{MARKUP}",
            re.MULTILINE | re.IGNORECASE,
        ),
    ),
    ("a:", re.compile(r"^[ \t>*_`-]*[Aa]:[*_`]*[ \t]*", re.MULTILINE)),
    ("a*", re.compile(r"^[ \t>*_`-]*[Aa]\*{1,2}:[*_`]*[ \t]*", re.MULTILINE)),
    ("a :", re.compile(r"^[ \t>*_`-]*[Aa][*_`]* :[*_`]*[ \t]*", re.MULTILINE)),
    ("ans:", re.compile(rf"\bAns:{MARKUP}", re.IGNORECASE)),
    ("ans", re.compile(rf"\bAns\s*(?:=|-(?=[A-J]\b)){MARKUP}", re.IGNORECASE)),
    (
        "solution",
        re.compile(
            rf"(?:^[ \t>*_#-]*solution[*_]*[ \t]*:|\bthe solution is:?){MARKUP}"
            r"(?=(?:\$[^$\n]{1,60}\$|[-$\d][\d.,/]*%?)(?:[ \t]+[A-Za-z]+)?[.]?[*_ \t]*$)",
            re.MULTILINE | re.IGNORECASE,
        ),
    ),
    ("ans.", re.compile(rf"\bAns\.{MARKUP}[:=]?{MARKUP}", re.IGNORECASE)),
    (
        "option",
        re.compile(
            rf"\b(?:correct|right|best) option(?:'s letter)?{MARKUP}(?:is|:){MARKUP}:?{MARKUP}", re.IGNORECASE
        ),
    ),
    (
        "letter",
        re.compile(rf"\b(?:correct|right|best) letter{MARKUP}(?:is|:){MARKUP}:?{MARKUP}", re.IGNORECASE),
    ),
    (
        "choice",
        re.compile(rf"\b(?:correct|right|best) choice{MARKUP}(?:is|:){MARKUP}:?{MARKUP}", re.IGNORECASE),
    ),
    ("answer", re.compile(r"<(?:final_?)?answer>\s*", re.IGNORECASE)),
    ("<final", re.compile(r"<final(?:_result)?>\s*", re.IGNORECASE)),
    ("<result", re.compile(r"<result>\s*", re.IGNORECASE)),
    ("final result", re.compile(rf"\bfinal result{MARKUP}(?:{IS}|[:：]){MARKUP}:?{MARKUP}", re.IGNORECASE)),
    ("[[", re.compile(r"\[\[(?=[A-J]\]\])")),  # of judges
    ("answer", re.compile(r"""["'](?:final_?)?answer["']\s*:\s*["']?""", re.IGNORECASE)),
    ("answer", re.compile(r"^\|[*_ ]*(?:final )?answer[*_ ]*\|\s*", re.MULTILINE | re.IGNORECASE)),
    ("答案", re.compile(r"答案】?\s*(?:是|为|為)?\s*[:：]?\s*")),
    ("选", re.compile(r"(?:因此|所以|应|故)选\s*[:：]?\s*")),
    ("故选", re.compile(r"故选\s*[:：]?\s*")),
    ("答え", re.compile(r"答え\s*(?:は|】|[:：])\s*[:：]?\s*")),
    ("解答", re.compile(r"解答】?\s*[:：]\s*")),
    ("正解", re.compile(r"正解\s*(?:は|[:：])\s*")),
    ("选项", re.compile(r"正确选项(?:是|为|：|:)\s*")),
    ("정답", re.compile(r"정답\s*(?:은|[:：])\s*")),
    ("답은", re.compile(r"(?<!정)답은\s*[:：]?\s*")),
    *(
        (
            word.partition("(")[0].casefold(),
            re.compile(
                rf"{'' if word in WITHOUT_SPACES else chr(92) + 'b'}{word}{ADJECTIVE}{MARKUP}"
                rf"(?:[:：—–]|(?:{verb})(?!\w)"
                rf"|{BEFORE_VALUE if word in WITHOUT_VERB else '(?!)'}){MARKUP}[:：]?{MARKUP}",
                re.IGNORECASE,
            ),
        )
        for word, verb in ANSWERS
    ),
)
FOREIGN = frozenset(
    mark for need, mark in MARKS if need in {word.partition("(")[0].casefold() for word, _ in ANSWERS}
)
BY_NEED = tuple((n, tuple(mark for other, mark in MARKS if other == n)) for n in dict(MARKS))
