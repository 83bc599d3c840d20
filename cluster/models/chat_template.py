"""Choosing the chat template of a tokenizer: its own, one of several by name, the word `plain`, or a Jinja
file. Also checks that rendering with it ends.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from cluster.models.template_trial import TOO_LONG

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}\n{% endif %}{% endfor %}"
)

# Limits for rendering the trial's few short turns. Time is processor time, so that a busy machine refuses no
# template.
CPU_S, MEMORY_BYTES, CHARACTERS = 5, 2**30, 1_000_000
WAIT_S = 120  # seconds by the clock, for a process that gets no processor
TRIAL = Path(__file__).with_name("template_trial.py")
TOOL = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
TURNS: tuple[dict[str, Any], ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "", "reasoning_content": "add", "tool_calls": [CALL]},
    {"role": "tool", "name": "add", "tool_call_id": "1", "content": "4"},
    {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"},
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


def tool_template(tokenizer: Any, chat_template: str | None) -> str | None:
    """The template that a tokenizer keeps for conversations with tools, as transformers chooses it: the one
    that is named `tool_use`, unless the user names another. None if there is none.
    """
    own = getattr(tokenizer, "chat_template", None)
    if chat_template is not None or not isinstance(own, dict) or "tool_use" not in own:
        return None
    return str(own["tool_use"])


def template_text(chat_template: str | None, named: tuple[str, ...] = ()) -> str | None:
    """The text of a template that an experiment names. None if it names none.

    Args:
        named: further possible names, for the message.

    Raises:
        BadInput: no such file.
    """
    if chat_template is None or chat_template == "plain":
        return None if chat_template is None else PLAIN_TEMPLATE
    path = Path(chat_template)
    if not path.is_file():
        expected = "a .jinja file, or one of " + ", ".join(["plain", *named])
        raise BadInput("no chat template there", chat_template, expected, "check chat_template")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            "the chat template is no text", path, "a Jinja file in UTF-8", "save it again as UTF-8"
        ) from error


def refuse_endless(template: str, variables: Mapping[str, Any]) -> None:
    """Try a template on a few turns, in a process of its own that can be killed.

    Raises:
        BadInput: rendering them does not end within `CPU_S` seconds of a processor, takes more than
            `MEMORY_BYTES`, or writes more than `CHARACTERS`.
    """
    problem = _problem_of(template, json.dumps(dict(variables), default=str))
    if problem:
        raise BadInput("the chat template does not come to an end", problem, "", "look at its loops")


@lru_cache(maxsize=64)
def _problem_of(template: str, variables: str) -> str:
    """What is wrong with a template. It is tried once per process."""
    asked: list[dict[str, Any]] = [
        {"messages": [TURNS[1]], "add_generation_prompt": True},
        {"messages": [TURNS[1], TURNS[4]], "add_generation_prompt": False},
        {"messages": TURNS, "tools": [TOOL], "add_generation_prompt": False},
    ]
    given = {"template": template, "variables": json.loads(variables), "conversations": asked}
    limits = [str(limit) for limit in (CPU_S, MEMORY_BYTES, CHARACTERS)]
    command = [sys.executable, "-I", str(TRIAL), *limits]
    try:
        done = subprocess.run(command, input=json.dumps(given).encode(), capture_output=True, timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        return f"still rendering four short turns after {WAIT_S} s"
    if done.returncode < 0:
        return f"still rendering four short turns after {CPU_S} s of a processor"
    if done.returncode == TOO_LONG:
        return f"more than {CHARACTERS:,} characters for four short turns"
    if b"MemoryError" in done.stderr:
        return f"more than {MEMORY_BYTES // 2**20:,} MiB for four short turns"
    return ""
