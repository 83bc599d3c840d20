"""Which chat template a tokenizer's conversations are written with: its own, one of its several by name, the
word `plain`, or a Jinja file.
"""

from pathlib import Path
from typing import Any

from cluster.errors import BadInput

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}\n{% endif %}{% endfor %}"
)


def choose_template(tokenizer: Any, chat_template: str | None) -> str:
    """The template to use: the tokenizer's own, one of its several by name, the word `plain`, or a Jinja
    file.
    """
    own = getattr(tokenizer, "chat_template", None)
    named = own if isinstance(own, dict) else {}
    if chat_template in named or (chat_template is None and "default" in named):
        return str(named[chat_template or "default"])
    if named and chat_template is None:
        raise BadInput(
            "the tokenizer has several chat templates",
            ", ".join(sorted(named)),
            "the name of one",
            "set chat_template",
        )
    given = template_text(chat_template, tuple(sorted(named)))
    if given is not None:
        return given
    if not own:
        raise BadInput(
            "the tokenizer has no chat template",
            tokenizer.name_or_path,
            "a chat template in the tokenizer's directory",
            "set chat_template: plain, or chat_template: FILE.jinja, for this model",
        )
    return str(own)


def template_text(chat_template: str | None, named: tuple[str, ...] = ()) -> str | None:
    """The text of a template that an experiment names; None when it names none.

    Args:
        named: further names that could have been meant, for the message.

    Raises:
        BadInput: no such file.
    """
    if chat_template is None or chat_template == "plain":
        return None if chat_template is None else PLAIN_TEMPLATE
    path = Path(chat_template)
    if not path.is_file():
        expected = "a .jinja file, or one of " + ", ".join(["plain", *named])
        raise BadInput("no chat template there", chat_template, expected, "check chat_template")
    return path.read_text(encoding="utf-8")
