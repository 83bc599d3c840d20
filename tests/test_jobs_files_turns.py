"""Rows in the layouts of the field as conversations; what no conversation holds is refused by name."""

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadInput
from cluster.models.messages import Message, ToolCall
from jobs.experiment.questions import Fields
from jobs.files.answers import ReadAnswers, plain_names, read_answers
from jobs.files.columns import ANSWER_NAMES, ID_NAMES, QUESTION_NAMES, TEACHER_NAMES
from jobs.files.turn import FIELDS_OF_REASONING, NOT_TEXT, NotUnderstood
from jobs.files.turns import ALPACA, COLUMNS, MESSAGES, PROMPT_COMPLETION, SHAREGPT, turns_of

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
ADD = ToolCall("add", '{"a": 1, "b": 2}', "c1")
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 2?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"},
    {"role": "assistant", "content": "3", "reasoning_content": "the tool says so"},
]
HEARD = (
    Message("system", "Be brief."),
    Message("user", "1 + 2?"),
    Message("assistant", "", tool_calls=(ADD,)),
    Message("tool", "3", name="add", tool_call_id="c1"),
)
Q, A = Message("user", "q"), Message("assistant", "a")


@pytest.mark.parametrize(
    ("row", "layout", "question", "answer"),
    [
        ({"messages": TALK}, MESSAGES, HEARD, Message("assistant", "3", "the tool says so")),
        ({"messages": TALK[:2]}, MESSAGES, HEARD[:2], None),
        (
            {
                "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
                "system": "s",
            },
            SHAREGPT,
            (Message("system", "s"), Q),
            A,
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "1 + 2?"},
                    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1, "b": 2}}'},
                    {"from": "observation", "value": "3"},
                    {"from": "gpt", "value": "3"},
                ]
            },
            SHAREGPT,
            (
                Message("user", "1 + 2?"),
                Message("assistant", "", tool_calls=(ToolCall("add", '{"a": 1, "b": 2}'),)),
                Message("tool", "3"),
            ),
            Message("assistant", "3"),
        ),
        ({"prompt": "q", "completion": "a"}, PROMPT_COMPLETION, (Q,), A),
        (
            {"prompt": TALK[:2], "completion": [TALK[4]]},
            PROMPT_COMPLETION,
            HEARD[:2],
            Message("assistant", "3", "the tool says so"),
        ),
        ({"instruction": "q", "input": "below", "output": "a"}, ALPACA, (Message("user", "q\nbelow"),), A),
        ({"instruction": "q", "input": "", "output": "a", "history": [["q", "a"]]}, ALPACA, (Q, A, Q), A),
        ({"id": 1, "instruction": "q", "teacher_output": "a", "reference_answer": "r"}, COLUMNS, (Q,), A),
        (
            {"question": "q", "answer": "a", "reasoning": "why"},
            COLUMNS,
            (Q,),
            Message("assistant", "a", "why"),
        ),
        ({"input": "q"}, COLUMNS, (Q,), None),
        (
            {"problem_id": 3, "candidate_id": 1, "teacher": "t", "messages": TALK[1:2] + TALK[4:]},
            MESSAGES,
            HEARD[1:2],
            Message("assistant", "3", "the tool says so"),
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                    }
                ]
            },
            MESSAGES,
            (Message("user", "ab"),),
            None,
        ),
    ],
)
def test_every_layout_is_a_conversation_up_to_its_answer(
    row: dict[str, Any], layout: str, question: tuple[Message, ...], answer: Message | None
) -> None:
    found = turns_of(row)
    assert found.prompt is not None
    assert (found.layout, found.prompt.turns, found.answer) == (layout, question, answer)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type image_url"),
        ({"messages": [{"role": "critic", "content": "x"}]}, "a turn of the unknown speaker critic"),
        ({"messages": [{"role": "user", "content": None}]}, "a turn of user without content"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "no turn of a user"),
        (
            {"messages": [*TALK[:2], {"role": "assistant", "content": "a", "tool_calls": [{"x": 1}]}]},
            "tool call",
        ),
        (
            {"messages": [*TALK[:2], {"role": "assistant", "content": "<think>y</think>a", "thinking": "x"}]},
            "twice",
        ),
        ({"messages": [*TALK[:2], {"role": "assistant", "content": "", "refusal": "no"}]}, "refusal"),
        ({"messages": TALK[:2], "images": ["cat.png"]}, "images"),
        ({"messages": TALK[:2], "system": "Be long."}, "two system texts"),
        ({"messages": [*TALK[:2], TALK[0]]}, "a turn of the system where a user"),
        ({"question": "q", "input": "more"}, "a column input beside question"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preference pair"),
        ({"question": "q", "answer": ["a", "b"]}, "no text but a list"),
        ({"messages": TALK[:2], "tools": "[{"}, "no JSON"),
        ({"question": "q", "context": "c", "answer": "a"}, "a column context beside"),
        ({"question": "q", "choices": {"text": ["a"]}, "answer": "a"}, "a column choices beside"),
        ({"question": "q", "prompt": "p", "answer": "a"}, "a column prompt beside question"),
        ({"prompt": "p", "completion": "bad", "label": False}, "its label calls bad"),
        ({"messages": "[{}]", "question": "q"}, "a turn without a speaker"),
        ({"messages": "Hello", "question": "q"}, "messages that are a text"),
        ({"messages": '[{"role": "user"', "question": "q"}, "messages that are a text, and no JSON"),
        ({"question": "q", "answer": "a", "system": ["s"]}, "a system text that is no text"),
        ({"question": "q", "answer": "a", "reasoning": ["r"]}, "reasoning that is no text"),
        ({"question": "q", "answer": "a", "reasoning": "y</think>x"}, "reasoning twice"),
    ],
)
def test_what_no_conversation_holds_is_refused_by_name(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotUnderstood, match=reason):
        turns_of(row)


said = st.text(min_size=1, max_size=20).filter(str.strip)
pairs = st.lists(st.tuples(said, said), min_size=1, max_size=5)


@given(pairs, st.none() | said)
def test_no_turn_is_lost_in_any_layout(talk: list[tuple[str, str]], system: str | None) -> None:
    head = [] if system is None else [("system", system)]
    turns = [*head, *((role, text) for q, a in talk for role, text in (("user", q), ("assistant", a)))]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": role, "content": text} for role, text in turns]},
        {
            "conversations": [
                {"from": {"user": "human", "assistant": "gpt"}.get(r, r), "value": t} for r, t in turns
            ]
        },
        {
            "prompt": [{"role": role, "content": text} for role, text in turns[:-1]],
            "completion": [{"role": "assistant", "content": turns[-1][1]}],
        },
        {
            "instruction": talk[-1][0],
            "input": "",
            "output": talk[-1][1],
            "history": [list(pair) for pair in talk[:-1]],
            "system": system,
        },
    ]
    for row in rows:
        found = turns_of(json.loads(json.dumps(row)))
        assert found.answer is not None
        assert found.prompt is not None
        assert [(m.role, m.content) for m in (*found.prompt.turns, found.answer)] == turns


FURTHER = ("messages", "system", "tools", "tool_calls", "label", "chosen", "rejected", "history", "seed")
PARTS = (
    "context",
    "passage",
    "choices",
    "options",
    "document",
    "documents",
    "instructions",
    "A",
    "B",
    "body",
)
USUAL = {*ID_NAMES, *ANSWER_NAMES, *TEACHER_NAMES, *QUESTION_NAMES, *PARTS, *FIELDS_OF_REASONING, *NOT_TEXT}
names = st.sampled_from([*sorted(USUAL), *FURTHER])
values = said | st.sampled_from(["<think>so</think> 3", "<think>so", "", None, 3, True, ["a"], {"a": 1}])
rows = st.lists(
    st.fixed_dictionaries(
        {}, optional={"id": said, "response": said | values, "teacher": said, "question_id": values}
    )
    | st.dictionaries(names, values, max_size=4),
    min_size=1,
    max_size=4,
)


def read_as_it_is(given: list[dict[str, Any]]) -> ReadAnswers | str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
        try:
            found = read_answers(path, Fields())
        except BadInput as error:
            return str(error).replace(folder, "")
    found.path = ""
    return found


@given(rows)
def test_rows_of_an_id_and_a_text_are_read_by_a_short_way_to_the_same(given: list[dict[str, Any]]) -> None:
    with mock.patch("jobs.files.answers.plain_answer", return_value=None):
        long_way = read_as_it_is(given)
    assert read_as_it_is(given) == long_way


def test_only_rows_of_an_id_and_a_text_have_a_short_way() -> None:
    assert plain_names(("id", "teacher_output")) == ("id", "teacher_output")
    for beside in ("reasoning", "question", "label", "output", "question_id", "x"):
        assert plain_names(("id", "teacher_output", beside)) is None


def test_a_message_goes_to_the_template_with_what_it_has_and_nothing_else() -> None:
    assert [m.for_template() for m in HEARD] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 2?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}, "id": "c1"}
            ],
        },
        {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"},
    ]
    assert Message("assistant", "a", "why").for_template()["reasoning_content"] == "why"
