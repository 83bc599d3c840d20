"""Reads text as an expression for computer algebra, with the unit after it. Nothing is guessed: a text with a
word, which algebra would read as a product of letters, is no expression.
"""

import re

from selection.numerals import POINTED, without_groups
from selection.readings import Expression
from selection.units import Unit, read_unit
from selection.vocabulary import ENGLISH, FUNCTIONS

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
PRIMES = re.compile(r"(?<=[A-Za-z])\s*('{1,4})(?!\s*_)")
# exponents T would be read as transposes; of a product of matrices they are
TRANSPOSE = re.compile(r"\^\s*(?:T(?![A-Za-z])|\{\s*T\s*\}|\\top(?![A-Za-z])|\{\s*\\(?:top|intercal)\s*\})")
OF_MATRIX = re.compile(
    rf"(?:[A-Z](?:_\{{?\w\}}?)?|[A-Z]\s*\)|\)\s*\)|\\math[a-z]+\s*\{{?\w\}}?)\s*{TRANSPOSE.pattern}"
)
LETTER_T = re.compile(r"\\[A-Za-z]+|T(?!\s*_)")
CROSS = re.compile(r"\\(?:vec|mathbf|boldsymbol|overrightarrow)(?![A-Za-z]).*\\times(?![A-Za-z])", re.DOTALL)
BARE_LOG = re.compile(r"(?<![A-Za-z\\])log(\d{1,2})\s*(?=\()")
ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-zA-Z]*\}")
RUN = re.compile(r"[^\W\d_]{2,}")


def has_variables(text: str) -> bool:
    return bool(re.search(r"[A-Za-z]", FUNCTION_WORD.sub("", COMMAND.sub("", text))))


def expression(text: str) -> Expression | None:
    """The expression of a text. None if the text has a word, which computer algebra would read as a product
    of letters.
    """
    text = BARE_LOG.sub(r"\\log_{\1}", text)
    if OF_MATRIX.search(text) or CROSS.search(text):
        return None
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
    if re.search(r"(?<![\w.])\d[\d.]*\s+\d", text):  # two adjacent numbers are no product
        return None
    return Expression(_for_algebra(text), unit)


def _without_unit(text: str) -> tuple[str, Unit | None]:
    """An expression and the unit after it."""
    found = re.match(r"(.*[\d)}A-Za-z])\s+((?:[A-Za-zµ]|\$).*)$", text)
    places = [m.start() for m in re.finditer(r"\s+(?=[A-Za-zµ])", text)] if found else []
    for place in places:
        head, tail = text[:place], text[place:]
        if head.count("{") != head.count("}") or re.search(r"[-+*/=^_(]$|\\cdot$|\\times$", head.rstrip()):
            continue
        if (
            FUNCTION_WORD.match(tail.strip())
            or not re.search(r"[A-Za-z]{2,}|^\s*[mgshL]\b", tail)
            or not (re.search(r"\d", head) or re.search(r"[A-Za-z]{2,}", tail))
            or "\\" in tail
        ):
            continue
        unit = read_unit(tail)
        if unit is not None:
            return head, unit if unit.dimensions else None
    return text, None


def _for_algebra(text: str) -> str:
    """LaTeX that computer algebra reads exactly: decimals as fractions, functions as commands, and products
    with their sign, which might otherwise be read as mixed numbers.
    """
    text = PRIMES.sub(lambda found: f"_{{{'p' * len(found[1])}}}", text)
    if "\\begin" not in text:
        text = LETTER_T.sub(_letter_t, TRANSPOSE.sub("^{T}", text))
    text = FUNCTION_WORD.sub(r"\\\1 ", text).replace("%", r"\cdot\frac{1}{100}")
    text = BRACED_ARGUMENT.sub(r"\1(\2)", text)
    text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text)
    text = re.sub(rf"\^\s*(-?{POINTED})", r"^{\1}", text)
    text = COUNTED_FRACTION.sub(_improper, text)
    text = BEFORE_BRACKET.sub(r"\1\\cdot ", text)
    text = re.sub(r"(?<![\d.])(\d*)\.(\d+)", _exact_decimal, text)
    text = re.sub(r"(?<=[\w)}])\s*x\s*(?=10\s*\^)", r"\\times ", text)
    return text.replace("*", r"\cdot ")


def _letter_t(found: re.Match[str]) -> str:
    """The letter T as a name that is no transpose in an exponent."""
    return "T_{0}" if found[0] == "T" else found[0]


def _improper(found: re.Match[str]) -> str:
    """A mixed number as one fraction; a whole number beside an improper fraction is a factor."""
    whole, over, under = (int(group) for group in found.groups())
    if 0 < over < under:
        return rf"\frac{{{whole * under + over}}}{{{under}}}"
    return rf"{whole}\cdot\frac{{{over}}}{{{under}}}"


def _exact_decimal(found: re.Match[str]) -> str:
    return rf"\frac{{{int((found[1] or '0') + found[2])}}}{{{10 ** len(found[2])}}}"
