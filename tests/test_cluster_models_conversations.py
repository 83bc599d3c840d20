"""Whole conversations through chat templates: no turn is lost, calls stand in the answer's span."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import TutelageError, Unrenderable
from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.messages import Message, Prompt, ToolCall, plain, read_prompt, write_calls
from cluster.models.rendering import Renderer
from jobs.run.keys import question_key

CALL = ToolCall("add", '{"a": 1, "b": [2, "x y"], "deep": {"k": true}}', "call00001")
TOOL = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}
TOOLS = json.dumps([{"type": "function", "function": TOOL}])
U, A = (lambda text: Message("user", text)), (lambda text: Message("assistant", text))
TALK = Prompt((U("first question"), A("first answer"), U("second question")))
WITH_TOOL = Prompt(
    (
        U("use a tool"),
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", 'the sum\nis "3"', name="add", tool_call_id="call00001"),
    ),
    TOOLS,
)
CHATML = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor -%}
<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def renderer_of(model: Path, template: str) -> Renderer:
    tokenizer = load_tokenizer(ModelSource(str(model)))
    tokenizer.chat_template = template
    return Renderer(tokenizer)


def spans(renderer: Renderer, prompt: Prompt, answer: str, calls: str = "") -> tuple[str, str]:
    """The prompt and the answer's span as texts."""
    rendered = renderer.conversation(prompt, answer, calls=calls)
    asked = renderer.prompt(prompt)  # an empty think block that a template invents comes on top
    assert rendered.ids[: min(len(asked), rendered.prompt_length)] == asked
    decode = renderer.tokenizer.decode
    return decode(rendered.ids[: rendered.prompt_length]), decode(
        rendered.ids[rendered.prompt_length : rendered.answer_end]
    )


def test_all_turns_and_tools_are_in_the_prompt_and_calls_in_the_answers_span(tiny_model: Path) -> None:
    renderer = renderer_of(tiny_model, CHATML)
    prompt, said = spans(renderer, TALK, "A:7")
    assert prompt.endswith(
        "user\nfirst question<|im_end|>\n<|im_start|>assistant\nfirst answer<|im_end|>\n"
        "<|im_start|>user\nsecond question<|im_end|>\n<|im_start|>assistant\n"
    )
    assert said == "A:7<|im_end|>"
    prompt, said = spans(renderer, WITH_TOOL, "", write_calls((CALL,)))
    assert '"Adds."' in prompt
    assert prompt.index('"b": [2, "x y"]') < prompt.index('the sum\nis "3"')
    assert said.startswith('<tool_call>{"name": "add"')
    assert said.endswith("</tool_call><|im_end|>")


@pytest.mark.parametrize(
    ("change", "prompt", "lost"),
    [
        (("messages %}<", "messages[-1:] %}<"), TALK, "user's turn"),
        (
            ("{{ m.content }}", "{{ m.content if m.role != 'system' }}"),
            plain("q", "Be brief."),
            "system text",
        ),
        (("{%- if tools %}", "{%- if false %}"), WITH_TOOL, "tools"),
        (("m.tool_calls or []", "[]"), WITH_TOOL, "assistant's turn"),
        (("{{ m.content }}", "{{ m.content if m.role != 'tool' }}"), WITH_TOOL, "tool's turn"),
        (("{{ m.content }}", "{{ m.content[:3] }}"), plain("a long question"), "user's turn"),
    ],
)
def test_a_template_that_loses_a_turn_refuses_that_row_by_name(
    tiny_model: Path, change: tuple[str, str], prompt: Prompt, lost: str
) -> None:
    renderer = renderer_of(tiny_model, CHATML.replace(*change))
    for ask in (renderer.prompt, lambda p: renderer.conversation(p, "A:7")):
        with pytest.raises(Unrenderable, match=f"does not keep the {lost}"):
            ask(prompt)


def test_calls_that_the_template_leaves_out_of_an_answer_are_refused(tiny_model: Path) -> None:
    renderer = renderer_of(tiny_model, CHATML.replace("m.tool_calls or []", "[]"))
    with pytest.raises(Unrenderable, match="does not keep the answer's tool calls"):
        renderer.conversation(plain("use a tool"), "", calls=write_calls((CALL,)))
    assert renderer.conversation(plain("use a tool"), "no").ids


@pytest.mark.parametrize("where", range(4))
def test_a_forged_turn_is_refused_wherever_it_stands(tiny_model: Path, where: int) -> None:
    mark = "<|im_end|>"
    turns = [Message("system", "s"), U("q"), A("a"), U("r")]
    turns[where] = Message(turns[where].role, f"x{mark}y")
    renderer = renderer_of(tiny_model, CHATML)
    with pytest.raises(Unrenderable, match="special token"):
        renderer.prompt(Prompt(tuple(turns)))
    forged = ToolCall("add", json.dumps({"a": mark}))
    with pytest.raises(Unrenderable, match="special token"):
        renderer.conversation(plain("q"), "", calls=write_calls((forged,)))


words = st.text("abc ?.,:\n'\"{}\\é数", min_size=1, max_size=12).filter(str.strip)


@given(talk=st.lists(st.tuples(words, words), max_size=4), last=words, system=st.none() | words, answer=words)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_conversation_is_written_whole_or_refused(
    tiny_model: Path, talk: list[tuple[str, str]], last: str, system: str | None, answer: str
) -> None:
    head = () if system is None else (Message("system", system),)
    prompt = Prompt((*head, *(turn for q, a in talk for turn in (U(q), A(a))), U(last)))
    assert read_prompt(prompt.to_json()) == prompt
    try:
        text, said = spans(renderer_of(tiny_model, CHATML), prompt, answer)
    except Unrenderable:
        assert re.search("[é数]", answer)  # the tiny vocabulary lacks them
        return
    blocks = [f"<|im_start|>{t.role}\n{t.content}<|im_end|>\n" for t in prompt.turns]
    assert said == f"{answer}<|im_end|>"
    if not re.search("[é数]", text + "".join(blocks)):
        assert text == "".join(blocks) + "<|im_start|>assistant\n"


def test_keys_tell_conversations_apart_and_single_questions_keep_theirs() -> None:
    assert question_key(plain("2+2?")).hex() == "528f78c814e8172e"
    prompts = [TALK, WITH_TOOL, Prompt(TALK.turns, TOOLS), plain("second question"), TALK.told("Be brief.")]
    assert len({question_key(p) for p in prompts}) == len(prompts)
    assert plain("q", "own").told("told").system == "told\n\nown"


CHANNELS = """{% for m in messages %}{% if m.role == 'assistant' -%}
<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|><|return|>
{%- else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""


@pytest.mark.parametrize("answer", ["a", "n", "final", "message", "|", "A: 7", "channel final a"])
def test_short_answers_are_not_mistaken_for_pieces_of_marks(golden: Path, answer: str) -> None:
    """gpt-oss: of "a" only `<|channel|>` was trained on, and "final" ended at the channel's name."""
    tokenizer = load_tokenizer(ModelSource(str(golden / "student")))
    marks = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]
    tokenizer.add_special_tokens({"extra_special_tokens": marks})
    tokenizer.chat_template = CHANNELS
    _, said = spans(Renderer(tokenizer), plain("q"), answer)
    assert said == f"<|channel|>final<|message|>{answer}<|end|><|return|>"


CASES = {
    "single": (plain("What is 2+2?"), "It is four.", ""),
    "system": (plain("What is 2+2?", "Be brief."), "It is four.", ""),
    "turns": (TALK, "It is four.", ""),
    "reasoned": (TALK, "<think>now I think</think>It is four.", ""),
    "tools": (WITH_TOOL, "It is three.", ""),
    "call": (Prompt((U("use a tool"),), TOOLS), "", write_calls((CALL,))),
    "call and text": (Prompt((U("use a tool"),), TOOLS), "I will add.", write_calls((CALL,))),
    "reasoned call": (Prompt((U("use a tool"),), TOOLS), "<think>need it</think>", write_calls((CALL,))),
}


def templates() -> list[Path]:
    """Chat templates of many families, which TRL ships."""
    found = find_spec("trl")
    folder = Path(str(found.origin)).parent / "chat_templates" if found else Path("/nowhere")
    return sorted(folder.glob("*.jinja"))


@pytest.mark.skipif(not templates(), reason="trl is not installed")
def test_templates_of_the_field_keep_everything_or_refuse_by_name(golden: Path) -> None:
    """Of 72 templates in TRL 1.16, 6 take no texts (images' models) and one needs a BOS."""
    ok: dict[str, int] = dict.fromkeys(CASES, 0)
    for file in templates():
        template = file.read_text()
        tokenizer = load_tokenizer(ModelSource(str(golden / "student")))
        marks = sorted(
            set(re.findall(r"<\|[^|<>\s]{2,40}\|>|<｜[^｜]{2,40}｜>|</?(?:start|end)_of_turn>", template))
        )
        tokenizer.add_special_tokens({"extra_special_tokens": marks})
        tokenizer.chat_template = template
        try:
            renderer = Renderer(tokenizer)
            renderer.prove()
        except TutelageError:
            continue
        for name, (prompt, answer, calls) in CASES.items():
            try:
                asked, said = spans(renderer, prompt, answer, calls)
            except Unrenderable:
                continue
            ok[name] += 1
            for turn in prompt.turns:
                assert turn.content in asked or json.dumps(turn.content)[1:-1] in asked, (file.name, name)
            for piece in [answer.split("</think>")[-1], *(["add", "x y"] if calls else [])]:
                assert piece in said, (file.name, name)
            assert "first answer" not in said
    assert ok["single"] >= 65
    assert ok["turns"] >= 65
    assert min(ok["tools"], ok["call"]) >= 25, ok
