"""A conversation as the text that a chat template writes: the prompt, and what follows it.

The prompt rendered with the generation prompt must be a literal prefix of the whole conversation, or the
student would be trained on text it never sees when it generates.

Reasoning is handed to the template as the message's `reasoning_content`. A think block that a template
invents before an answer without reasoning is told apart from the answer. Where the generation prompt itself
ends in an open think tag (R1), the answer begins inside of it.
"""

from collections.abc import Mapping
from typing import Any

from cluster.errors import Unrenderable
from cluster.models.reasoning import CLOSING, INVENTED, OPENED

SENTINEL = "an answer"
# What templates that print today's date get instead: the same question must give the same ids tomorrow.
FIXED_DATE = "26 Jul 2024"
FIXED_DATE_MACRO = "{%- macro strftime_now(pattern) -%}" + FIXED_DATE + "{%- endmacro -%}"


class ChatText:
    """Writes messages through one template of one tokenizer.

    Args:
        template: Jinja text.
        variables: further variables of the template, such as `enable_thinking`.
    """

    def __init__(self, tokenizer: Any, template: str, variables: Mapping[str, Any]) -> None:
        self.tokenizer, self.variables = tokenizer, dict(variables)
        self._dated = FIXED_DATE_MACRO + template if "strftime_now" in template else template

    def text(self, messages: list[dict[str, str]], generation: bool) -> str:
        """What the template writes of these messages, with the generation prompt behind them where asked.

        Raises:
            Unrenderable: the template refuses them.
        """
        given = {"date_string": FIXED_DATE} | self.variables
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self._dated, add_generation_prompt=generation, tokenize=False, **given
            )
        except Exception as error:  # jinja raises whatever the template's author wrote into it
            raise Unrenderable(
                "the chat template refuses this conversation", error, "", "look at the template"
            ) from error
        return str(text)

    def continuation(
        self, messages: list[dict[str, str]], prompt_text: str, reasoning: str | None, content: str
    ) -> tuple[str, str]:
        """What follows the prompt: a think block that nobody wrote,
        and the answer as the template writes it.
        """
        if OPENED.search(prompt_text):
            _, sentinel, ending = self.text([*messages, said(SENTINEL)], False).rpartition(SENTINEL)
            if not sentinel:
                raise Unrenderable(
                    "the template does not keep the answer", "", "its text", "use a template that keeps it"
                )
            return (
                (CLOSING, content + ending)
                if reasoning is None
                else ("", reasoning + CLOSING + content + ending)
            )
        whole = self.text([*messages, said(content, reasoning)], False)
        if reasoning is not None and not _keeps(whole[len(prompt_text) :], reasoning, content):
            # one that knows of text alone
            whole = self.text([*messages, said(f"<think>\n{reasoning}{CLOSING}{content}")], False)
        refuse_another_start(prompt_text, whole)
        rest = whole[len(prompt_text) :]
        if not _keeps(rest, reasoning or "", content):
            missing = "answer" if _keeps(rest, reasoning or "", "") else "answer's reasoning"
            raise Unrenderable(
                f"the template does not keep the {missing}",
                rest[:60],
                "its text",
                "use a template that keeps it",
            )
        block = INVENTED.match(rest) if reasoning is None else None
        return (rest[: block.end()], rest[block.end() :]) if block else ("", rest)


def said(content: str, reasoning: str | None = None) -> dict[str, str]:
    """An assistant's turn."""
    return {
        "role": "assistant",
        "content": content,
        **({} if reasoning is None else {"reasoning_content": reasoning}),
    }


def _keeps(rest: str, reasoning: str, content: str) -> bool:
    """Whether a text holds the reasoning and, behind it, the content."""
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
