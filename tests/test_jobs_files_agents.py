"""Agents' and providers' layouts, as their programs and public data sets write them, are read as the same
conversation; what is lost in none of them is refused by name.
"""

import json
from typing import Any

import pytest

from cluster.models.messages import Message, ToolCall
from jobs.files.refusals import NotUnderstood
from jobs.files.trajectories import question_and_turns
from jobs.files.turns import refuse_skipped, turns_of

Q = "What is 3*4 plus 5?"
ARGUMENTS = {"e": "3*4"}
TEXT = json.dumps(ARGUMENTS)
OPENAI_TOOL = {"name": "calc", "description": "Compute.", "parameters": {"type": "object", "properties": {}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "calc", "arguments": TEXT}}
NOTHING = {"name": None, "tool_call_id": None, "tool_calls": None}
OPENAI: list[dict[str, Any]] = [
    {"role": "user", "content": Q},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "12"},
    {"role": "assistant", "content": "17"},
]
ASKED = (Message("user", Q),)


def called(content: str = "", reasoning: str | None = None, identity: str = "c1") -> Message:
    return Message("assistant", content, reasoning, (ToolCall("calc", TEXT, identity),))


def answered(identity: str = "c1", name: str = "", text: str = "12") -> Message:
    return Message("tool", text, None, (), name, identity)


END = Message("assistant", "17")
FULL = (called(), answered(), END)
LAYOUTS: dict[str, tuple[dict[str, Any], tuple[Message, ...]]] = {
    "messages as JSON text": ({"messages": json.dumps(OPENAI)}, FULL),
    "OpenHands, from Parquet": (
        {"trajectory": [NOTHING | turn for turn in OPENAI], "instance_id": "a", "resolved": 1},
        FULL,
    ),
    "tau-bench": ({"task_id": 0, "reward": 1.0, "traj": OPENAI, "info": {}}, FULL),
    "OpenAI's functions": (
        {
            "messages": [
                OPENAI[0],
                {"role": "assistant", "content": None, "function_call": {"name": "calc", "arguments": TEXT}},
                {"role": "function", "name": "calc", "content": "12"},
                OPENAI[3],
            ],
        },
        (called(identity=""), answered("", "calc"), END),
    ),
    "ms-swift, two calls at once": (
        {
            "messages": [
                OPENAI[0],
                {"role": "assistant", "content": "Let me see."},
                {"role": "tool_call", "content": json.dumps({"name": "calc", "arguments": ARGUMENTS})},
                {"role": "tool_call", "content": json.dumps({"name": "calc", "arguments": ARGUMENTS})},
                {"role": "tool_response", "content": "12"},
                {"role": "tool_response", "content": "12"},
                OPENAI[3],
            ]
        },
        (
            Message("assistant", "Let me see.", None, (ToolCall("calc", TEXT), ToolCall("calc", TEXT))),
            answered(""),
            answered(""),
            END,
        ),
    ),
    "SWE-smith": (
        {
            "messages": json.dumps(
                [
                    {"role": "user", "content": [{"type": "text", "text": Q}], "agent": "main"},
                    {
                        "role": "assistant",
                        "content": "I look",
                        "thought": "I look",
                        "action": "calc",
                        "tool_calls": [CALL],
                        "thinking_blocks": [{"type": "thinking", "thinking": "Hm", "signature": "x"}],
                    },
                    {"role": "tool", "content": [{"type": "text", "text": "12"}], "tool_call_ids": ["c1"]},
                    {"role": "assistant", "content": "17", "agent": "main", "message_type": "action"},
                ]
            ),
            "resolved": True,
            "traj_id": "t",
        },
        (called("I look", "Hm"), answered(), END),
    ),
    "Anthropic's blocks": (
        {
            "messages": [
                {"role": "user", "content": Q},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm", "signature": "x"},
                        {"type": "text", "text": "I look"},
                        {"type": "tool_use", "id": "c1", "name": "calc", "input": ARGUMENTS},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "c1",
                            "content": [{"type": "text", "text": "12"}],
                        }
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "17"}]},
            ]
        },
        (called("I look", "Hm"), answered(), END),
    ),
    "OpenAI's Responses": (
        {
            "input": [{"role": "user", "content": [{"type": "input_text", "text": Q}]}],
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "I look"}],
                },
                {"type": "function_call", "call_id": "c1", "name": "calc", "arguments": TEXT},
                {"type": "function_call_output", "call_id": "c1", "output": "12"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "17"}]},
            ],
        },
        (called("I look", "Hm"), answered(), END),
    ),
    "Gemini's contents": (
        {
            "contents": [
                {"role": "user", "parts": [{"text": Q}]},
                {
                    "role": "model",
                    "parts": [
                        {"text": "Hm", "thought": True},
                        {"functionCall": {"name": "calc", "args": ARGUMENTS}},
                    ],
                },
                {
                    "role": "user",
                    "parts": [{"functionResponse": {"name": "calc", "response": {"r": 12}}}],
                },
                {"role": "model", "parts": [{"text": "17"}]},
            ]
        },
        (called("", "Hm", ""), answered("", "calc", '{"r": 12}'), END),
    ),
    "LangChain's messages": (
        {
            "messages": [
                {"type": "human", "content": Q},
                {
                    "type": "ai",
                    "content": "",
                    "id": "run-1",
                    "tool_calls": [{"name": "calc", "args": ARGUMENTS, "id": "c1", "type": "tool_call"}],
                    "invalid_tool_calls": [],
                },
                {"type": "tool", "content": "12", "tool_call_id": "c1"},
                {"type": "ai", "data": {"content": "17", "type": "ai"}},
            ]
        },
        FULL,
    ),
    "ATIF": (
        {
            "schema_version": "ATIF-v1.4",
            "agent": {"name": "a", "version": "1"},
            "steps": [
                {"step_id": 1, "source": "user", "message": Q},
                {
                    "step_id": 2,
                    "source": "agent",
                    "message": "I look",
                    "reasoning_content": "Hm",
                    "tool_calls": [{"tool_call_id": "c1", "function_name": "calc", "arguments": ARGUMENTS}],
                    "observation": {"results": [{"source_call_id": "c1", "content": "12"}]},
                },
                {"step_id": 3, "source": "agent", "message": "17"},
            ],
        },
        (called("I look", "Hm"), answered(), END),
    ),
    "SWE-agent at Nebius": (
        {
            "trajectory": [
                {"role": "user", "text": Q, "mask": False, "system_prompt": None},
                {"role": "ai", "text": "ls", "mask": False},
                {"role": "user", "text": "file.py"},
                {"role": "ai", "text": "17"},
            ],
            "target": True,
            "exit_status": "submitted",
        },
        (Message("assistant", "ls"), Message("user", "file.py"), END),
    ),
    "SWE-agent": (
        {
            "environment": "main",
            "trajectory": [{"action": "ls", "observation": "file.py", "response": "ls", "thought": ""}],
            "history": [
                {"role": "user", "content": Q, "agent": "main", "is_demo": False},
                {"role": "assistant", "content": "ls", "thought": "", "action": "ls", "agent": "main"},
                {"role": "user", "content": "file.py", "agent": "main"},
                {"role": "assistant", "content": "17", "agent": "main"},
            ],
            "info": {"exit_status": "submitted"},
        },
        (Message("assistant", "ls"), Message("user", "file.py"), END),
    ),
    "xLAM": (
        {"query": Q, "answers": json.dumps([{"name": "calc", "arguments": ARGUMENTS}])},
        (called(identity=""),),
    ),
    "pairs": ({"conversation": [{"human": Q, "assistant": "17"}]}, (END,)),
    "a query with its response": ({"query": Q, "response": "17"}, (END,)),
    "turns with a response beside": (
        {"prompt": [{"role": "user", "content": Q}], "response": "17", "reward_model": {"ground_truth": "5"}},
        (END,),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_trajectory_is_the_same_in_every_layout(name: str) -> None:
    row, said = LAYOUTS[name]
    found = turns_of(row)
    refuse_skipped(found)
    assert found.prompt is not None
    asked, turns = question_and_turns(found.prompt, found.answer, found.said)
    assert asked.turns == ASKED
    assert turns == said


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "function", "function": OPENAI_TOOL}],
        [{"type": "function", "strict": True, **OPENAI_TOOL}],
        [{"name": "calc", "description": "Compute.", "input_schema": OPENAI_TOOL["parameters"]}],
        [{"functionDeclarations": [OPENAI_TOOL]}],
        json.dumps([{"type": "function", "function": OPENAI_TOOL}]),
    ],
)
def test_tools_are_the_same_whoever_declares_them(tools: Any) -> None:
    found = turns_of({"messages": OPENAI, "tools": tools})
    assert found.prompt is not None
    assert json.loads(found.prompt.tools) == [{"type": "function", "function": OPENAI_TOOL}]
    old = turns_of({"messages": OPENAI, "functions": [OPENAI_TOOL]})
    assert old.prompt is not None
    assert json.loads(old.prompt.tools) == [OPENAI_TOOL]  # as data sets of today write bare tools too


def test_turns_that_are_not_to_be_learnt_are_part_of_the_question_if_they_come_first() -> None:
    """As in AgentInstruct, whose first turn of the assistant only agrees."""
    talk = [("human", Q), ("gpt", "Ok."), ("human", "Do it."), ("gpt", "Act"), ("human", "x"), ("gpt", "17")]
    marks = {1: False, 3: True, 5: True}
    turns = [{"from": who, "value": text, "loss": marks.get(place)} for place, (who, text) in enumerate(talk)]
    found = turns_of({"conversations": turns})
    refuse_skipped(found)
    assert found.prompt is not None
    asked, said = question_and_turns(found.prompt, found.answer, found.said)
    assert [turn.content for turn in asked.turns] == [Q, "Ok.", "Do it."]
    assert [turn.content for turn in said] == ["Act", "x", "17"]
    between = [turn | {"loss": place != 3} for place, turn in enumerate(turns)]
    with pytest.raises(NotUnderstood, match="a turn between others is not to be learnt"):
        refuse_skipped(turns_of({"conversations": between}))
    copied = [
        {"source": "user", "message": Q},
        {"source": "agent", "message": "Before", "is_copied_context": True},
        {"source": "user", "message": "Go on."},
        {"source": "agent", "message": "17"},
    ]
    found = turns_of({"steps": copied})
    assert found.prompt is not None
    assert [t.content for t in question_and_turns(found.prompt, found.answer, found.said)[1]] == ["17"]


def test_what_was_said_before_a_question_is_part_of_it() -> None:
    found = turns_of({"query": "And 2?", "response": "2", "history": [[Q, "17"]]})
    assert found.prompt is not None
    assert [turn.content for turn in found.prompt.turns] == [Q, "17", "And 2?"]
    before = [{"role": "user", "content": Q}, {"role": "assistant", "content": "17"}]
    for name in ("history",):
        found = turns_of({"question": "And 2?", "answer": "2", name: before})
        assert found.prompt is not None
        assert [turn.content for turn in found.prompt.turns] == [Q, "17", "And 2?"]
    for history in ("talk", ["a", "b"], [["q", None]]):
        with pytest.raises(NotUnderstood, match="no list of pairs"):
            turns_of({"question": "And 2?", "answer": "2", "history": history})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"contents": [{"role": "user", "parts": [{"inlineData": {"data": "x"}}]}]}, "inlineData"),
        ({"input": [{"role": "user", "content": Q}, {"type": "web_search_call", "id": "w"}]}, "web_search"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "a part of the content of type image",
        ),
        (
            {"messages": [{"type": "human", "content": Q}, {"type": "ai", "invalid_tool_calls": [{"x": 1}]}]},
            "LangChain calls invalid",
        ),
        ({"steps": [{"source": "user", "message": Q, "observation": 3}]}, "ATIF steps in an unknown form"),
    ],
)
def test_what_is_no_text_is_refused_by_name(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotUnderstood, match=reason):
        turns_of(row)


def told(row: dict[str, Any]) -> tuple[list[str], str]:
    """The question's turns, and the answer."""
    found = turns_of(row)
    asked = [] if found.prompt is None else [turn.content for turn in found.prompt.turns]
    return asked, "" if found.answer is None else found.answer.content


U = {"role": "user", "content": Q}
E = {"role": "assistant", "content": "17"}
OTHER = {"role": "assistant", "content": "16"}


@pytest.mark.parametrize(
    ("row", "asked", "answer"),
    [
        # what a row says in its columns is not replaced by a list beside them
        ({"id": "1", "response": "mine", "history": [U, OTHER]}, [], "mine"),
        ({"question": Q, "response": "mine", "trajectory": [U, OTHER]}, [Q], "mine"),
        ({"prompt": [U], "completion": [E], "trajectory": [U, OTHER]}, [Q], "17"),
        (
            {"instruction": Q, "output": "17", "input": "", "steps": [{"source": "user", "message": "x"}]},
            [Q],
            "17",
        ),
        ({"question": "How many?", "query": "SELECT 1", "response": "3"}, ["How many?"], "3"),
        ({"question": Q, "answer": "17", "functions": ["f", "g"]}, [Q], "17"),
        ({"question": Q, "answer": "17", "trajectory": [{"from": "A", "to": "B"}]}, [Q], "17"),
        ({"question": Q, "answer": "17", "steps": [{"source": "lemma 1", "text": "x"}]}, [Q], "17"),
        # an answer in a column beside turns that have none
        ({"messages": [U], "response": "17"}, [Q], "17"),
        ({"input": [U], "output": "17"}, [Q], "17"),
        ({"messages": [], "question": Q, "response": "17"}, [Q], "17"),
        # turns that are JSON text, and speakers in other words
        ({"prompt": json.dumps([U]), "response": "17"}, [Q], "17"),
        ({"messages": [{"role": "User", "content": Q}, {"role": "AI", "content": "17"}]}, [Q], "17"),
        (
            {"messages": [{"type": "HumanMessage", "content": Q}, {"type": "AIMessage", "content": "17"}]},
            [Q],
            "17",
        ),
        # a column that says how to answer is no reasoning
        ({"input": Q, "output": "17", "reasoning": "off"}, [Q], "17"),
    ],
)
def test_columns_beside_turns(row: dict[str, Any], asked: list[str], answer: str) -> None:
    assert told(row) == (asked, answer)
    found = turns_of(row).answer
    assert found is None or found.reasoning is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [U, OTHER], "response": "17"}, "two answers"),
        ({"question": "Who spoke first?", "input": [U, E], "answer": "the user"}, "a column input"),
        ({"instructions": "Be brief.", "input": Q, "output": "17"}, "a column instructions"),
        ({"messages": [U, E | {"toolInvocations": [{"x": 1}]}]}, "toolInvocations"),
        ({"messages": [U, E | {"recipient": "functions.calc"}]}, "recipient"),
        ({"prompt": Q, "completion": "bad", "kto_tag": False}, "label calls bad"),
        (
            {"contents": [{"role": "user", "parts": [{"text": Q}]}, {"role": "model", "parts": [3]}]},
            "unknown",
        ),
        ({"contents": [{"parts": [{"functionCall": {"args": {"a": 1}}}]}]}, "unknown form"),
        ({"input": [U, {"type": "reasoning", "summary": ["hm"]}]}, "reasoning without an answer"),
        ({"messages": [U, E | {"tool_calls": [{"name": "f", "how": {"a": 1}}]}]}, "not known"),
        (
            {
                "messages": [
                    U,
                    {
                        "role": "assistant",
                        "reasoning_content": "A",
                        "content": [{"type": "thinking", "thinking": "B"}, {"type": "text", "text": "17"}],
                    },
                ]
            },
            "reasoning",
        ),
        ({"conversation": [{"human": Q, "assistant": "bad", "loss": False}]}, "not to be learnt"),
        (
            {"conversations": [U, {"from": "function_call", "value": '{"name": "f"}', "loss": False}]},
            "not to be learnt",
        ),
    ],
)
def test_what_would_be_lost_is_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotUnderstood, match=reason):
        turns_of(row)


@pytest.mark.parametrize(
    "call",
    [
        {"name": "calc", "kwargs": ARGUMENTS},
        {"name": "calc", "arguments": None, "args": ARGUMENTS},
        {"function": {"name": "calc"}, "arguments": ARGUMENTS},
        {"function": "calc", "arguments": ARGUMENTS, "id": "c1"},
        {"type": "function", "function": {"name": "calc", "arguments": json.dumps(ARGUMENTS)}},
    ],
)
def test_arguments_of_a_call_are_found_wherever_they_stand(call: dict[str, Any]) -> None:
    found = turns_of({"messages": [U, {"role": "assistant", "content": "", "tool_calls": [call]}]}).answer
    assert found is not None
    assert [(c.name, json.loads(c.arguments)) for c in found.tool_calls] == [("calc", ARGUMENTS)]


def test_calls_and_reasoning_of_other_programs_are_kept() -> None:
    langchain = {
        "messages": [
            {"type": "human", "content": Q},
            {
                "type": "ai",
                "content": "Let me",
                "additional_kwargs": {"tool_calls": [CALL], "reasoning_content": "Hm"},
            },
            {"type": "tool", "content": "12", "tool_call_id": "c1"},
            {"type": "ai", "content": "17"},
        ]
    }
    camel = {
        "messages": [
            U,
            {"role": "assistant", "content": "Let me", "reasoning_content": "Hm", "toolCalls": [CALL]},
            {"role": "tool", "toolCallId": "c1", "content": "12"},
            E,
        ]
    }
    tau = {
        "messages": [
            U,
            {"role": "assistant", "content": "Let me", "reasoning_content": "Hm", "tool_calls": [CALL]},
            {"role": "tool", "id": "c1", "content": "12"},
            E,
        ]
    }
    apart = {
        "messages": [
            U,
            {"role": "assistant", "content": "", "reasoning_content": "Hm"},
            {"role": "assistant", "content": "Let me"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "12"},
            E,
        ]
    }
    bedrock = {
        "messages": [
            {"role": "user", "content": [{"text": Q}]},
            {
                "role": "assistant",
                "reasoning_content": "Hm",
                "content": [
                    {"text": "Let me"},
                    {"toolUse": {"toolUseId": "c1", "name": "calc", "input": ARGUMENTS}},
                ],
            },
            {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "12"}]}}]},
            {"role": "assistant", "content": [{"text": "17"}]},
        ]
    }
    for row in (langchain, camel, tau, apart, bedrock):
        found = turns_of(row)
        assert found.prompt is not None
        asked, turns = question_and_turns(found.prompt, found.answer, found.said)
        assert asked.turns == ASKED
        assert turns == (called("Let me", "Hm"), answered(), END), row


def test_what_is_learnt_of_responses_is_what_was_answered() -> None:
    row = {"input": [U, OTHER, {"role": "user", "content": "Check."}], "output": "17"}
    found = turns_of(row)
    assert found.prompt is not None
    asked, turns = question_and_turns(found.prompt, found.answer, found.said)
    assert ([t.content for t in asked.turns], [t.content for t in turns]) == ([Q, "16", "Check."], ["17"])
    with_calls = [U, {"role": "assistant", "content": "Let me", "tool_calls": [CALL]}, OPENAI[2]]
    found = turns_of({"input": with_calls, "output": "17"})
    assert found.prompt is not None
    assert found.prompt.turns[1:] == (called("Let me"), answered())
    text = {"input": Q, "output": [{"type": "message", "role": "assistant", "content": "17"}]}
    assert told(text) == ([Q], "17")


def test_an_empty_result_and_a_greeting_are_no_reason_to_lose_a_trajectory() -> None:
    for result in ("", None, []):
        turns = [OPENAI[0], OPENAI[1], {"role": "tool", "tool_call_id": "c1", "content": result}, E]
        found = turns_of({"messages": [{"role": "assistant", "content": "Hello!"}, *turns]})
        assert found.prompt is not None
        asked, said = question_and_turns(found.prompt, found.answer, found.said)
        assert [turn.content for turn in asked.turns] == ["Hello!", Q]
        assert said == (called(), answered(text=""), END)


def test_what_is_json_within_a_text_is_repaired_like_all_else() -> None:
    odd = json.dumps([{"role": "user", "content": "a\ud83d b\u0000"}, E])
    found = turns_of({"messages": odd})
    assert found.prompt is not None
    assert found.prompt.text == "a\ufffd b"
