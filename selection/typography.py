r"""A final answer without its dress: Unicode, LaTeX and Markdown that change how it looks, not what it says.

Everything here is text to text, and knows nothing of numbers, units or choices. What is left is ASCII where
a sign has a plain spelling: `−½` becomes `-1/2`, `\textbf{(B)}\ 12` becomes `(B) 12`, `18\,\mathrm{cm}^2`
becomes `18 cm^2`. Currency signs stay, without the dollars that only mark mathematics.
"""

import html
import re
import unicodedata

SIGNS = {
    **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a", " "),
    **dict.fromkeys("\u202f\u205f\u3000\t", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\ufe0f\u00ad", ""),
    **dict.fromkeys("−‐‑‒﹣˗➖", "-"),
    **dict.fromkeys("×✕✖⨯", r"\times "),
    **dict.fromkeys("·⋅∙•", r"\cdot "),
    **dict.fromkeys("‘’‛", "'"),
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("⁄∕", "/"),
    "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "≈": r"\approx ", "≅": r"\approx ", "√": r"\sqrt ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ",
    "σ": r"\sigma ", "ρ": r"\rho ", "Δ": r"\Delta ", "δ": r"\delta ", "ħ": r"\hbar ", "ε": r"\epsilon ",
    "η": r"\eta ", "κ": r"\kappa ", "ν": r"\nu ", "ξ": r"\xi ", "τ": r"\tau ", "ψ": r"\psi ", "χ": r"\chi ",
    "Φ": r"\Phi ", "Γ": r"\Gamma ", "Λ": r"\Lambda ", "Ψ": r"\Psi ",
    "γ": r"\gamma ", "λ": r"\lambda ", "φ": r"\phi ", "ϕ": r"\phi ", "ω": r"\omega ", "μ": "µ", "µ": "µ",
    "٫": ".", "٬": ",", "…": "...", "°": " degrees ", "º": " degrees ", "∶": ":", "，": ", ", "、": ", ",
    "。": ". ",
    "ℝ": r"\mathbb{R}", "℃": " degrees C", "℉": " degrees F", "″": '"', "′": "'", "¢": " cents",
}  # fmt: skip
UNUSUAL = re.compile(r"[^ -~]")
WIDE_COMMA = re.compile(r"(?<=\d)[，٬](?=\d{3}(?!\d))")
SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
RAISED = re.compile(f"[{SUPERSCRIPTS}]+")
LINE = "\u0305"
LINED = re.compile(rf"(?:\d{LINE})+")
LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
PLAIN_SCRIPT = str.maketrans(f"{SUPERSCRIPTS}₀₁₂₃₄₅₆₇₈₉", "0123456789+-n0123456789")

TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc|md|up)?|"
    r"math(?:bf|rm|it|sf|tt|normal|bfit)|mbox|hbox|emph|underline|"
    r"operatorname\*?|boldsymbol|bm|bf|rm|it|boxed|fbox)\s*\{((?:[^{}]|[\^_]\{[^{}]*\})*)\}"
)
COLOUR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}\s*")
DECLARATIONS = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|left|right|middle|[bB]igg?[lrm]?|"
    r"(?:tiny|small|normalsize|large|Large|"
    r"LARGE|huge|Huge|bf|it|rm|sf|mathrm|limits|nolimits|noindent|centering))(?![A-Za-z])\s?\.?(?![\w.])|"
    r"\\(?:left|right)(?![A-Za-z])"
)
NOTHING = re.compile(r"\\!|\\(?:begin|end)\{(?:aligned|align\*?|gathered|equation\*?|split)\}")
ROWS = re.compile(r"\\begin\{(aligned|align\*?|gathered|split|cases)\}(.*?)\\end\{\1\}", re.DOTALL)
SPACES = re.compile(
    r"(?<!\\)\\[,;:> ]|\\(?:quad|qquad|enspace|thinspace|,|hspace\{[^{}]*\})(?![A-Za-z])|(?<!\\)~|\\newline"
)


def _primes(found: re.Match[str]) -> str:
    return "'" * found[0].count("prime")


SAME = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:leq|leqslant|leqq)(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant|geqq)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne"),
    (re.compile(r"\s*\^\s*(?:\{\s*((?:\\prime\s*)+)\}|(\\prime)(?![A-Za-z]))"), _primes),
    (re.compile(r"\\(?:varnothing)(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\\(?:simeq|cong|thickapprox)(?![A-Za-z])"), r"\\approx"),
    (re.compile(r"\\(?:l|c|d)?dots(?:b|c)?(?![A-Za-z])"), "..."),
    (re.compile(r"\\lvert|\\rvert|\\vert(?![A-Za-z])|\\mid(?![A-Za-z])"), "|"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z])|\{?\s*o\s*\}(?![A-Za-z]))"), " degrees "),
    (re.compile(r"\\degree(?![A-Za-z])"), " degrees "),
    (re.compile(r"\{\s*,\s*\}"), ","),
    (re.compile(r"\{\s*\.\s*\}"), "."),
    (re.compile(r"\{\s*:\s*\}"), ":"),
    (re.compile(r"(?<=\d),\s+(?=\d{3}(?!\d))(?<=\\!)"), ","),
    (re.compile(r"\\(?:euro|EUR)(?![A-Za-z])(?:\{\})?"), "€"),
    (re.compile(r"\\pounds(?![A-Za-z])(?:\{\})?"), "£"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\&"), "&"),
    (re.compile(r"\\#"), "#"),
    (re.compile(r"\\_"), "_"),
    (re.compile(r"\\cdotp(?![A-Za-z])|\\ast(?![A-Za-z])|\\star(?![A-Za-z])"), r"\\cdot"),
)  # fmt: skip
FRAC_FIRST = re.compile(r"\\frac\s*(\d|[a-zA-Z])(?=\s*[\d{a-zA-Z\\])")
FRAC_SECOND = re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d|[a-zA-Z])")
ROOT = re.compile(
    r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)|\\sqrt\s*\(([^()]*)\)|\\?(?<![A-Za-z])sqrt\s*(\d+"
    r"|[a-zA-Z](?![A-Za-z]))"
)
CUBE_ROOT = re.compile(r"(?<![A-Za-z\\])cbrt\s*\(([^()]*)\)|∛\s*\(?(\w+)\)?")
BARE_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt(?=\s*[\d{])")
ABSOLUTE = re.compile(r"(?<![A-Za-z\\])abs\(([^()]*)\)")
BARE_SIGN = re.compile(r"(?<![A-Za-z\\])(pi|infinity|infty|theta)(?![A-Za-z])")
BOLD = re.compile(r"(?<![\w*])(\*{1,3}|_{2,3}|`+)(?=\S)(.+?)(?<=\S)\1(?![\w*])", re.DOTALL)
ENDS_OF_BOLD = re.compile(r"^(?:\*{2,}|`+|_{2,})\s*|\s*(?:\*{2,}|`+|_{2,})$")
TAGS = re.compile(r"</?(?:b|i|em|strong|code|p|span|u|div|center|mark)\b[^<>]*>|<br\s*/?>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{2,4});")
TAGGED_FRACTION = re.compile(r"<sup>(\d+)</sup>\s*[/⁄]\s*<sub>(\d+)</sub>", re.IGNORECASE)
SUP_TAG = re.compile(r"<sup>([^<>]*)</sup>", re.IGNORECASE)
MATH_MARKS = re.compile(r"\\[()\[\]]")
DOLLARS = re.compile(r"(?<!\\)\$\$?")
QUOTED = re.compile(r"""^(["'])(.*)\1$""", re.DOTALL)
ORDINAL = re.compile(r"(?<=\d)\s*\^\s*\{?\s*(st|nd|rd|th)\s*\}?(?![A-Za-z])")


def plain(text: str) -> str:
    r"""The text without typography.

    >>> plain(r"$\textbf{(B)}\ 12$"), plain("**−½**"), plain(r"18\,\mathrm{cm}^2"), plain(r"\dfrac12")
    ('(B) 12', '-1/2', '18 cm^2', '\\frac{1}{2}')
    """
    if "cbrt" in text or "∛" in text:
        text = CUBE_ROOT.sub(lambda found: rf"\sqrt[3]{{{found[1] or found[2]}}}", text)
    if UNUSUAL.search(text):
        text = without_unusual_signs(text)
    if "&" in text and ENTITY.search(text):
        text = html.unescape(text).replace("\xa0", " ")
    text = without_markdown(text)
    if re.search(r"[\\$~{^]", text):
        text = without_latex_dress(text)
    text = ABSOLUTE.sub(r"|\1|", text)
    text = BARE_ROOT.sub(r"\\sqrt", BARE_SIGN.sub(_named_sign, ROOT.sub(_braced_root, text)))
    return " ".join(text.split())


def composed(text: str) -> str:
    """A text whose letters and marks are one sign each where there is one: u and two dots above are ü. Some
    systems write them apart.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def without_unusual_signs(text: str) -> str:
    """Signs beyond ASCII in their plain spelling; letters of all scripts and currency signs stay."""
    text = WIDE_COMMA.sub(",", text)
    text = RAISED.sub(lambda found: f"^{{{found[0].translate(PLAIN_SCRIPT)}}}", text)
    text = LINED.sub(lambda found: rf"\overline{{{found[0].replace(LINE, '')}}}", text)
    text = LOWERED.sub(lambda found: f"_{{{found[0].translate(PLAIN_SCRIPT)}}}", text)
    return re.sub(r"[^ -~]", _plain_sign, text)


def _plain_sign(found: re.Match[str]) -> str:
    sign = found[0]
    if sign in SIGNS:
        return SIGNS[sign]
    if sign in "–—―":
        return _dash(found)
    kind = unicodedata.category(sign)
    if kind in ("Nd", "No") and (digit := unicodedata.digit(sign, None)) is not None:  # also ⑤
        return str(digit)
    if kind == "No" and "FRACTION" in unicodedata.name(sign, ""):
        over = unicodedata.normalize("NFKC", sign).replace("\u2044", "/")
        before = found.string[: found.start()][-1:]
        return f" {over}" if before.isdigit() else over
    if kind in ("So", "Sk", "Cf", "Co", "Cn", "Cs", "Me"):  # emoji, and what cannot be seen
        return " "
    if "\uff01" <= sign <= "\uffee":  # full width, as in ＡＢＣ
        return unicodedata.normalize("NFKC", sign)
    return sign


def _dash(found: re.Match[str]) -> str:
    """A long dash between two numbers is a range; before a number alone it is a minus."""
    before, after = found.string[: found.start()].rstrip(), found.string[found.end() :].lstrip()
    if before[-1:].isdigit() and after[:1].isdigit():
        return " to "
    return "-" if re.match(r"[\d.$€£¥₹\\]", after) else " - "


def without_markdown(text: str) -> str:
    """The text without bold, code, simple tags and quotes around all of it."""
    if "<" in text:
        text = TAGS.sub(" ", SUP_TAG.sub(r"^{\1}", TAGGED_FRACTION.sub(r"\1/\2", text)))
    if "*" in text or "`" in text or "__" in text:
        text = ENDS_OF_BOLD.sub("", BOLD.sub(r"\2", text.strip()).strip())
        text = re.sub(r"(?<=[\w)}$])\*\*(?=[\s.,;:]|$)", "", text)  # its beginning belonged to the mark
        text = re.sub(r"(?<=[\w)}])\s*\*\*\s*(?=[\w({\\-])", "^", text)  # what is left is a power
    quoted = QUOTED.match(text.strip())
    return quoted[2] if quoted else text


def without_latex_dress(text: str) -> str:
    """Mathematics without its delimiters, fonts, sizes and spaces; one spelling for each command."""
    text = MATH_MARKS.sub(" ", without_dollars(text.replace(r"\$", "\0"))).replace("\0", "$")
    text = re.sub(r"(\\\\)\s*\[\d+(?:\.\d+)?(?:pt|em|ex|mm|cm)\]", r"\1", text)
    text = NOTHING.sub("", ROWS.sub(_in_one_line, COLOUR.sub("", text)))
    for _ in range(8):  # fonts within fonts
        text, count = TEXT.subn(_unwrapped, text)
        if not count:
            break
    text = DECLARATIONS.sub("", text)
    for spelling, one in SAME:
        text = spelling.sub(one, text)
    text = SPACES.sub(" ", text)
    text = ORDINAL.sub(r"\1", text)
    return FRAC_SECOND.sub(r"\1{\2}", FRAC_FIRST.sub(r"\\frac{\1}", text))


def _in_one_line(found: re.Match[str]) -> str:
    """Aligned rows as one formula: a row that begins with a sign goes on, another one is a further value. The
    cases of a function stay as they are.
    """
    if found[1] == "cases" and "&" in found[2]:
        return found[0]
    rows = [row.replace("&", " ").strip() for row in found[2].split(r"\\")]
    said = ""
    for row in filter(None, rows):
        said += f" {row}" if not said or re.match(r"=|\\(?:approx|le|ge|equiv)\b|[-+]", row) else f", {row}"
    return said.strip()


def without_dollars(text: str) -> str:
    """Dollars in pairs mark mathematics and go; a single one, or one before a number each time, is money."""
    marks = list(DOLLARS.finditer(text))
    if not marks or len(marks) % 2:
        return text
    pairs = zip(marks[::2], marks[1::2], strict=True)
    if any(text[close.end() : close.end() + 1].isdigit() for _, close in pairs):
        return text
    return DOLLARS.sub(" ", text)


def _unwrapped(found: re.Match[str]) -> str:
    """What a font command holds, apart from the letters and digits around it."""
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    inside = found[1]
    if re.search(r"[-+=]", inside[1:]) and (after in ("^", "_") or before in ("^", "_")):
        return f"{{{inside}}}"
    left = " " if before.isalnum() or before == "}" else ""
    return f"{left}{inside}{' ' if after.isalnum() or after == chr(92) else ''}"


def _braced_root(found: re.Match[str]) -> str:
    return rf"\sqrt{{{found[1] or found[2] or found[3]}}}"


def _named_sign(found: re.Match[str]) -> str:
    return rf"\{'infty' if found[0] == 'infinity' else found[0]} "
