r"""Texts as they come from files and servers, made whole: the one place, for every door.

What is repaired: halves of characters (a server that cuts an emoji in two sends such; no file can hold them),
NUL characters (padding of programs in C), a byte-order mark at a text's beginning, and in answers a think
block whose beginning stood in the prompt. Nothing else of a text is touched.
"""

import re

from cluster.models.reasoning import OPENING

BYTE_ORDER_MARK = "\ufeff"
# a tag between quotation marks is spoken of; it closes nothing
TAGS = re.compile(r"""([`'"])</think>\1|(?P<tag></think>)""")


def whole_characters(text: str) -> str:
    """A text whose halves of characters are U+FFFD; two halves that belong together become one character.

    >>> whole_characters("a" + chr(0xD83D)) == "a" + chr(0xFFFD)
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def repaired_text(text: str) -> str:
    r"""Any text: of a question, an answer, a reference, a name.

    >>> repaired_text("\ufeffA:\x00 3" + chr(0xD83D)) == "A: 3" + chr(0xFFFD)
    True
    """
    return whole_characters(text.replace("\x00", "").lstrip(BYTE_ORDER_MARK))


def repaired_answer(text: str) -> str:
    r"""An answer's text as a server sends it: repaired, and its think block begun.

    >>> repaired_answer("Is it 9?\x00 No.\n</think>\n\nA: 12")
    '<think>Is it 9? No.\n</think>\n\nA: 12'
    """
    return begun(repaired_text(text))


def begun(text: str) -> str:
    """An answer, or a reference, whose think block has its beginning. A model whose prompt opened the block
    sends the closing tag alone; saved as it came, it is the same answer as one with both tags.

    >>> begun("3+4</think>A: 7"), begun("<think>3+4</think>A: 7"), begun("Write `</think>` behind it.")
    ('<think>3+4</think>A: 7', '<think>3+4</think>A: 7', 'Write `</think>` behind it.')
    """
    if "</think>" not in text:
        return text
    closed = next((found.start("tag") for found in TAGS.finditer(text) if found["tag"]), None)
    is_whole = closed is None or -1 < text.find(OPENING) < closed
    return text if is_whole else f"{OPENING}{text}"
