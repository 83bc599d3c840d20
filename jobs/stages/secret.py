"""A key. It is read from the environment and passed to the actor that calls with it, and goes nowhere
else.
"""

import os
from dataclasses import dataclass

from cluster.errors import BadInput
from jobs.experiment.teachers import EndpointTeacher

MARK = "***"
# In characters. A key shorter than WORD is never hidden. One of only letters or only digits is hidden from
# LONG on, any other one from WORD on.
WORD, LONG = 6, 16


@dataclass(frozen=True)
class Secret:
    """A key that is passed from this process's environment to an actor by value. It is never put into a
    runtime environment, which `ps` shows.
    """

    value: str

    def __repr__(self) -> str:
        return f"Secret({MARK})"

    @property
    def is_telling(self) -> bool:
        """Whether a text that holds the key reveals a secret. For servers without keys, people set words
        (`EMPTY`, `none`, `ollama`) or numbers, which also occur in good answers.
        """
        is_plain = self.value.isalpha() or self.value.isdigit()
        return len(self.value) >= (LONG if is_plain else WORD)

    def is_in(self, text: str) -> bool:
        """Whether a text holds this key."""
        return self.is_telling and self.value in text

    def hide(self, text: str) -> str:
        """A text with a mark where the key was."""
        return text.replace(self.value, MARK) if self.is_telling else text


def read_key(teacher: EndpointTeacher) -> Secret:
    """Read the teacher's key from the environment, without surrounding white space.

    Raises:
        BadInput: the variable is not set, is empty, or holds characters that no header can hold.
    """
    name = teacher.api_key_env
    key = os.environ.get(name)
    if key is None:
        raise BadInput(
            f"no key for teacher {teacher.name}", "", f"the environment variable {name}", "export it"
        )
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable():
        got = "characters that no HTTP header can hold" if key else "nothing"
        remedy = "a server that asks for no key takes any word, such as `none`"
        raise BadInput(
            f"the key of teacher {teacher.name} cannot be sent",
            got,
            f"a key in {name}, in plain ASCII",
            remedy,
        )
    return Secret(key)
