"""Where the final answer stands in a worked answer: in a box, behind a mark, or in a pattern's group."""

import re

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
MARKUP = r"[*_`\s]*"  # chat models set the word, the answer or both in bold
FINAL_MARKS = (
    re.compile(r"^\s*####\s*(.+?)\s*$", re.MULTILINE),
    re.compile(
        rf"^{MARKUP}(?:A|Answer|Final answer){MARKUP}:{MARKUP}(.+?)\s*$", re.MULTILINE | re.IGNORECASE
    ),
    re.compile(
        rf"(?:final )?answer{MARKUP}is{MARKUP}:?{MARKUP}(.+?)\s*\.?{MARKUP}$", re.MULTILINE | re.IGNORECASE
    ),
)


def extract_final(text: str, pattern: str | None = None) -> str | None:
    r"""Find the final answer in a worked answer: the last match of `pattern`, else `\boxed{}`, `####`, `A:`,
    "answer is".

    There is no fall-back to the last number or to a substring: those pass 12 for 2.

    >>> extract_final(r"so \boxed{\frac{1}{2}}. Check with 10 items")
    '\\frac{1}{2}'
    >>> extract_final("after 15 steps we have 7") is None
    True
    """
    if pattern is not None:
        found = re.findall(pattern, text, re.MULTILINE)
        last = found[-1] if found else None
        return (last[0] if isinstance(last, tuple) else last) if last is not None else None
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    found_last = [
        found[-1] for found in (list(mark.finditer(text)) for mark in possible_marks(text)) if found
    ]
    if not found_last:
        return None
    return str(max(found_last, key=lambda match: match.start(1)).group(1)).strip("*_` ")


def possible_marks(text: str) -> list[re.Pattern[str]]:
    """The marks that can be in a text, by a word that each needs: looking for that costs a tenth."""
    needed = ("####" in text, ":" in text, "answer" in text.casefold())
    return [mark for mark, can_be in zip(FINAL_MARKS, needed, strict=True) if can_be]


def _last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` whose braces balance."""
    for match in reversed(list(BOXED.finditer(text))):
        depth = 1
        for i in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[match.end() : i]
    return None
