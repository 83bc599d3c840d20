"""A conversation as the text that a chat template writes: the prompt, and the text after it.

The prompt rendered with the generation prompt must be a literal prefix of the whole conversation, or the
student would be trained on text it never sees when it generates.

Reasoning is passed to the template as the message's `reasoning_content`. A template may invent a think block
before an answer without reasoning; the block is separated from the answer. If the generation prompt itself
ends in an open think tag (R1), the answer begins inside of it.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from cluster.errors import Unrenderable
from cluster.models.chat_template import refuse_endless
from cluster.models.kept import pieces_in
from cluster.models.messages import Message, Prompt, ToolCall, plain
from cluster.models.reasoning import CLOSING, INVENTED, OPENED, with_reasoning

SENTINEL = "an answer"
EMPTY, CLOSED = re.compile(""), re.compile(r"\s*</think>\s*")
# A fixed date for templates that print today's date: the same question must give the same ids tomorrow.
FIXED_DATE = "26 Jul 2024"
DATE_PARTS = {
    "%Y": "2024", "%m": "07", "%d": "26", "%B": "July", "%b": "Jul", "%A": "Friday", "%a": "Fri", "%y": "24",
    "%-d": "26", "%-m": "7", "%e": "26", "%j": "208", "%H": "00", "%M": "00", "%S": "00", "%F": "2024-07-26",
}  # fmt: skip
# The last expression keeps a new line at the beginning of the template behind it.
FIXED_DATE_MACRO = (
    "{%- macro strftime_now(pattern) %}{{ pattern"
    + "".join(f"|replace('{part}', '{told}')" for part, told in DATE_PARTS.items())
    + " }}{%- endmacro %}{{ '' }}"
)


def dated(template: str) -> str:
    """A template that gets the fixed date where it asks for today's."""
    return FIXED_DATE_MACRO + template if "strftime_now" in template else template


class ChatText:
    """Writes messages through one template of one tokenizer.

    Args:
        template: Jinja text.
        variables: further variables of the template, such as `enable_thinking`.
        with_tools: the template for conversations with tools, if the tokenizer has one of its own.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str,
        variables: Mapping[str, Any],
        with_tools: str | None = None,
    ) -> None:
        self.tokenizer, self.variables = tokenizer, dict(variables)
        self._dated, self._with_tools = dated(template), dated(with_tools or template)

    def refuse_endless(self) -> None:
        """Try the template in a process of its own.

        Raises:
            BadInput: rendering does not come to an end.
        """
        tokens = getattr(self.tokenizer, "special_tokens_map", {})
        for template in {self._dated, self._with_tools}:
            refuse_endless(template, tokens | {"date_string": FIXED_DATE} | self.variables)

    def text(self, prompt: Prompt, *answer: Message, generation: bool = False) -> str:
        """The template's text of these turns and an answer, followed by the generation prompt if
        `generation`.

        Raises:
            Unrenderable: the template refuses them.
        """
        given: dict[str, Any] = {"date_string": FIXED_DATE} | self.variables
        if prompt.tools:
            given["tools"] = prompt.tools_for_template()
        template = self._with_tools if prompt.tools else self._dated
        turns = [*prompt.for_template(), *(turn.for_template() for turn in answer)]
        try:
            text = self.tokenizer.apply_chat_template(
                turns, chat_template=template, add_generation_prompt=generation, tokenize=False, **given
            )
        except Exception as error:  # jinja raises whatever the template's author wrote into it
            raise Unrenderable(
                "the chat template refuses this conversation", error, "", "look at the template"
            ) from error
        return str(text)

    def opening(self, prompt: Prompt) -> str:
        """The text from which an answer is generated. If a template has no generation prompt, the text that
        it writes before any answer is used. Otherwise that text would count as the beginning of the answer.

        Raises:
            Unrenderable: the template refuses the turns.
        """
        text = self.text(prompt, generation=True)
        return text + self._header(prompt, text) if self._knows_no_generation_prompt else text

    @cached_property
    def _knows_no_generation_prompt(self) -> bool:
        probe = plain("2+2?")
        try:
            text = self.text(probe, generation=True)
            return text == self.text(probe) and bool(self._header(probe, text))
        except Unrenderable:  # the template needs other turns: each row reports that itself
            return False

    def _header(self, prompt: Prompt, text: str) -> str:
        """The text between turns and any answer to them, without a think block. Spaces at its end are left
        out, because a tokenizer joins them with the answer.
        """
        before, sentinel, _ = self.text(prompt, Message("assistant", SENTINEL)).rpartition(SENTINEL)
        if not sentinel or not before.startswith(text):
            return ""
        header = before[len(text) :].partition("<think>")[0].rstrip(" ")
        return header if header.strip() else ""

    def continuation(
        self,
        prompt: Prompt,
        prompt_text: str,
        reasoning: str | None,
        content: str,
        calls: tuple[ToolCall, ...] = (),
    ) -> tuple[str, str]:
        """The text after the prompt: a think block that the template invents, and the answer as the template
        writes it.
        """
        if OPENED.search(prompt_text):
            return self._within_open_block(prompt, prompt_text, reasoning, content, calls)
        whole = self.text(prompt, Message("assistant", content, reasoning, calls))
        if reasoning is not None and not _keeps(whole[len(prompt_text) :], reasoning, content):
            # the template only supports text
            inline = with_reasoning(reasoning, content)
            whole = self.text(prompt, Message("assistant", inline, tool_calls=calls))
        refuse_another_start(prompt_text, whole)
        rest = whole[len(prompt_text) :]
        if not _keeps(rest, reasoning or "", content):
            missing = "answer" if _keeps(rest, reasoning or "", "") else "answer's reasoning"
            raise _not_kept(missing, rest)
        if calls and not pieces_in(rest, reasoning, content, calls):
            raise _not_kept("answer's tool calls", rest)
        block = INVENTED.match(rest) if reasoning is None else None
        return (rest[: block.end()], rest[block.end() :]) if block else ("", rest)

    def _within_open_block(
        self,
        prompt: Prompt,
        prompt_text: str,
        reasoning: str | None,
        content: str,
        calls: tuple[ToolCall, ...],
    ) -> tuple[str, str]:
        """The text after a generation prompt that ends in an open think tag."""
        if calls:
            whole = self.text(prompt, Message("assistant", content, reasoning, calls))
            refuse_another_start(prompt_text, whole)
            rest = whole[len(prompt_text) :]
            closed = CLOSED.match(rest) if reasoning is None else EMPTY.match(rest)
            if closed is None or not pieces_in(rest, reasoning, content, calls):
                raise _not_kept("answer's tool calls", rest)
            return rest[: closed.end()], rest[closed.end() :]
        _, sentinel, ending = self.text(prompt, Message("assistant", SENTINEL)).rpartition(SENTINEL)
        if not sentinel:
            raise _not_kept("answer", "")
        if reasoning is None:
            return CLOSING, content + ending
        return "", reasoning + CLOSING + content + ending


def _not_kept(what: str, rest: str) -> Unrenderable:
    return Unrenderable(
        f"the template does not keep the {what}",
        rest[:60],
        "its text",
        "use a template that keeps it",
    )


def _keeps(rest: str, reasoning: str, content: str) -> bool:
    """Whether a text holds the reasoning and, after it, the content."""
    at = rest.find(reasoning)
    return at >= 0 and rest.find(content.strip(), at + len(reasoning)) >= 0


def refuse_another_start(prompt_text: str, whole_text: str) -> None:
    if not whole_text.startswith(prompt_text):
        raise Unrenderable(
            "the prompt with its generation prompt is not a literal prefix of the whole conversation",
            f"prompt ending {prompt_text[-30:]!r}, conversation {whole_text[: len(prompt_text)][-30:]!r}",
            "the same text up to the answer",
            "give a template whose generation prompt is what it writes before an answer, or "
            "chat_template_kwargs that make it so",
        )
