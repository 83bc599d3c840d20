"""A program that tests whether rendering with a chat template ends. It reads JSON (template, variables,
conversations) from its input, and renders each conversation under limits of time and memory.

A template is a program. Jinja's sandbox keeps it away from the machine and bounds a single `range`. It does
not bound nested loops or `"a" * 10**10`, which no exception can interrupt. So a template is tried once in a
process that can be killed. Exceptions of a template are ignored here, because the real rendering reports
them. This file imports nothing of ours and is started by its path, in a fraction of a second.
"""

import json
import resource
import sys
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

TOO_LONG = 3  # exit status: the template wrote too much text


class Generation(Extension):
    """The block with which templates mark generated text. Here only its content is rendered."""

    tags = {"generation"}  # noqa: RUF012  (jinja's own name and type)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def main(cpu_s: int, memory_bytes: int, characters: int) -> None:
    """Render everything, or be killed by the system at a limit."""
    given = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda pattern: pattern}
    try:
        template = environment.from_string(given["template"])
    except MemoryError:
        raise
    except Exception:
        return
    for conversation in given["conversations"]:
        try:
            length = sum(map(len, template.generate(**given["variables"], **conversation)))
        except MemoryError:
            raise
        except Exception:
            continue
        if length > characters:
            sys.exit(TOO_LONG)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
