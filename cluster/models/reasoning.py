"""Reasoning in think tags: how an answer holds it, and how templates write it.

An answer may hold its reasoning: `<think>reasoning</think>content`, whatever the whitespace around the tags.
"""

import re

REASONED = re.compile(r"\s*<think>(?P<reasoning>.*?)</think>(?P<content>.*)", re.DOTALL)
OPENED = re.compile(r"<think>\s*\Z")
INVENTED = re.compile(r"\s*<think>\s*</think>\s*")
OPENING, CLOSING = "<think>", "\n</think>\n\n"


def split_reasoning(answer: str) -> tuple[str | None, str]:
    """Split an answer into its reasoning, without surrounding white space, and the text after it. The
    reasoning is None if there is none.

    >>> split_reasoning("<think>3+4</think> A:7")
    ('3+4', 'A:7')
    >>> split_reasoning("A:7")
    (None, 'A:7')

    If the block is never closed, the text after it is empty:

    >>> split_reasoning("<think>3+4 is, let me see")
    ('3+4 is, let me see', '')
    """
    found = REASONED.fullmatch(answer)
    if found is not None:
        return found["reasoning"].strip() or None, found["content"].lstrip()
    if answer.lstrip().startswith(OPENING):
        return answer.lstrip().removeprefix(OPENING).strip(), ""
    return None, answer


def with_reasoning(reasoning: str | None, content: str) -> str:
    """An answer that holds its reasoning.

    >>> split_reasoning(with_reasoning("3+4", "A:7"))
    ('3+4', 'A:7')
    """
    return content if reasoning is None else f"<think>\n{reasoning}{CLOSING}{content}"
