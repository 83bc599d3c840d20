r"""Repairs texts from files and servers. All texts are repaired here and nowhere else.

Repaired are: lone surrogates (a server that cuts an emoji in two sends them, and no file can hold them), NUL
characters (padding of C programs), a byte-order mark at a text's beginning, and in answers a think block
whose opening tag was in the prompt. Nothing else is changed.
"""

import re

from cluster.models.reasoning import OPENING

BYTE_ORDER_MARK = "\ufeff"
# a tag in quotation marks is only mentioned and closes nothing
TAGS = re.compile(r"""([`'"])</think>\1|(?P<tag></think>)""")


def whole_characters(text: str) -> str:
    """Replace lone surrogates by U+FFFD. Two surrogates that belong together become one character.

    >>> whole_characters("a" + chr(0xD83D)) == "a" + chr(0xFFFD)
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def repaired_text(text: str) -> str:
    r"""Repair any text: a question, an answer, a reference, a name.

    >>> repaired_text("\ufeffA:\x00 3" + chr(0xD83D)) == "A: 3" + chr(0xFFFD)
    True
    """
    return whole_characters(text.replace("\x00", "").lstrip(BYTE_ORDER_MARK))


def repaired_answer(text: str) -> str:
    r"""Repair an answer's text from a server, and open its think block if needed.

    >>> repaired_answer("Is it 9?\x00 No.\n</think>\n\nA: 12")
    '<think>Is it 9? No.\n</think>\n\nA: 12'
    """
    return begun(repaired_text(text))


def begun(text: str) -> str:
    """Add the missing opening tag of a think block to an answer or a reference. A model whose prompt opened
    the block only sends the closing tag. It is the same answer as one with both tags.

    >>> begun("3+4</think>A: 7"), begun("<think>3+4</think>A: 7"), begun("Write `</think>` behind it.")
    ('<think>3+4</think>A: 7', '<think>3+4</think>A: 7', 'Write `</think>` behind it.')
    """
    if "</think>" not in text:
        return text
    closed = next((found.start("tag") for found in TAGS.finditer(text) if found["tag"]), None)
    is_whole = closed is None or -1 < text.find(OPENING) < closed
    return text if is_whole else f"{OPENING}{text}"
