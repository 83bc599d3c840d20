"""Chat templates are programs: rendering that does not come to an end is refused, whatever keeps it."""

from pathlib import Path

import pytest

from cluster.errors import BadInput
from cluster.models import chat_template
from cluster.models.chat_template import refuse_endless
from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.rendering import Renderer

TURNS = "{% for m in messages %}{{ m['role'] + m['content'] }}{{ eos_token }}{% endfor %}"
ENDLESS = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops in a macro": (
        "{% macro f(n) %}{% for a in range(30) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endfor %}"
        "{% endmacro %}"
        "{{ f(20) }}"
    ),
    "a recursive loop": (
        "{% for a in range(40) recursive %}{% if loop.depth < 40 %}{{ loop(range(40)) }}{% endif %}"
        "{% endfor %}"
    ),
    "a long text": "{{ 'a' * 10 ** 10 }}",
    "a long text, filtered": "{% set x = '%09999999999d' | format(1) %}",
    "a long list": "{% set x = [0] * 10 ** 10 %}",
    "a large number": "{% set x = 10 ** (10 ** 10) %}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "much text": "{% for i in range(9999) %}{{ 'a' * 1000 }}{% endfor %}",
    "centred text": "{{ 'a' | center(10 ** 10) }}",
    "where tools are given": (
        "{% if tools %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        "{% endif %}"
    ),
    "where a call is answered": (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ 'a' * 10 ** 10 }}{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_that_does_not_end_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "CPU_S", 1)
    with pytest.raises(BadInput, match="does not come to an end"):
        refuse_endless(ENDLESS[kind] + TURNS, {"eos_token": "</s>"})


@pytest.mark.parametrize(
    "template",
    [
        TURNS,
        chat_template.PLAIN_TEMPLATE,
        "{{ raise_exception('only users') }}",
        "{{ nothing.there.at_all }}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% for m in messages %}{{ m | tojson(indent=2) }}{% break %}{% endfor %}{{ strftime_now('%Y') }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% if",
        "",
    ],
)
def test_a_template_that_ends_is_left_to_the_rendering_whatever_it_does(template: str) -> None:
    refuse_endless(template, {"eos_token": "</s>"})


def test_a_renderer_tries_its_template_before_it_renders(tiny_model: Path, tmp_path: Path) -> None:
    endless = tmp_path / "endless.jinja"
    endless.write_text(ENDLESS["a long text"] + TURNS)
    with pytest.raises(BadInput, match="does not come to an end"):
        Renderer(load_tokenizer(ModelSource(str(tiny_model))), str(endless)).prove()


def test_a_template_in_another_encoding_is_named(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(TURNS, encoding="utf-16")
    with pytest.raises(BadInput, match="no text"):
        Renderer(load_tokenizer(ModelSource(str(tiny_model))), str(tmp_path / "t.jinja"))
