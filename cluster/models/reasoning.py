"""Reasoning in think tags: how an answer holds it, and how templates write it.

An answer may hold its reasoning: `<think>reasoning</think>content`, whatever the whitespace around the tags.
"""

import re

REASONED = re.compile(r"\s*<think>(?P<reasoning>.*?)</think>(?P<content>.*)", re.DOTALL)
OPENED = re.compile(r"<think>\s*\Z")
INVENTED = re.compile(r"\s*<think>\s*</think>\s*")
SAID_TAG = re.compile(r"\[/?THINK\]|</?(?:think|thinking|thought|reasoning|tool_call|tool_calls|answer)>")
CHANNEL_TOKENS = frozenset({"<|channel|>", "<|message|>", "<|start|>", "<|end|>"})  # of gpt-oss
CHANNEL = re.compile(
    r"(?:<\|start\|>\w*)?<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?:<\|(?:end|return|call)\|>|(?=<\|start\|>"
    r"|<\|channel\|>)|\Z)",
    re.DOTALL,
)
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


def without_channels(text: str) -> str:
    """An answer in channels as one that holds its reasoning: what it says in the final one, and before it in
    think tags what it says in others. A text without channels stays as it is.

    >>> without_channels("<|channel|>analysis<|message|>3+4<|end|><|channel|>final<|message|>A:7")
    '<think>\\n3+4\\n</think>\\n\\nA:7'
    """
    channels = CHANNEL.findall(text)
    if not channels:
        return text
    thought = "\n".join(said.strip() for name, said in channels if name != "final")
    final = "".join(said for name, said in channels if name == "final")
    if not final:
        return f"{OPENING}{thought}"
    return with_reasoning(thought or None, final)


def with_reasoning(reasoning: str | None, content: str) -> str:
    """An answer that holds its reasoning.

    >>> split_reasoning(with_reasoning("3+4", "A:7"))
    ('3+4', 'A:7')
    """
    return content if reasoning is None else f"<think>\n{reasoning}{CLOSING}{content}"
