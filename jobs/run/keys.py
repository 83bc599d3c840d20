"""Keys of rows. A key depends on the row's content alone, never on an id, a name, a position in a list or a
host.

A key has 16 bytes: a digest of the question's messages (8), then 8 bytes for the row. These are a digest of
the row's content. In a table of answers they are the sample's number. So all tables sort alike. A range of
questions is the same range in each table, and no range splits a
question.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from typing import Any

from cluster.models.messages import Prompt

HALF = 8
TEXTS = {str}
ENCODE = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def question_key(prompt: Prompt) -> bytes:
    """The first eight bytes of a key: a digest of the question's messages."""
    if prompt.is_plain:
        return _digest([prompt.system, prompt.text])
    return _digest([prompt.for_template(), prompt.tools])


def answer_key(question: bytes, text: str, calls: str = "", turns: str = "") -> bytes:
    """The key of an answer's statistics, from its question, text, tool calls and the turns before its last
    one.
    """
    if turns:
        return row_key(question, text, calls, turns)
    return row_key(question, text, calls) if calls else row_key(question, text)


def row_key(question: bytes, *content: Any) -> bytes:
    """The key of a row about a question, from all other content that it depends on."""
    return question + _digest(list(content))


def _digest(content: Sequence[Any]) -> bytes:
    if set(map(type, content)) == TEXTS:  # the same text, in a third of the time
        text = f"[{','.join(map(encode_basestring_ascii, content))}]"
    else:
        text = ENCODE(content)
    return sha256(text.encode()).digest()[:HALF]


def digest_keys(keys: Iterable[bytes], length: int = 24) -> str:
    """An id of many keys, in their order."""
    total = sha256()
    for key in keys:
        total.update(key)
    return total.hexdigest()[:length]
