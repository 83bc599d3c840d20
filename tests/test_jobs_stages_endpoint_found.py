"""Replies and rows as servers and people really send them, found by a reader who looked for harm."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.models.messages import Message, Prompt, ToolCall
from jobs.experiment.questions import Fields
from jobs.files.answers import answer_and_references, read_answers
from jobs.files.refusals import NotUnderstood
from jobs.files.turn import calls_of, reasoning_of, text_of
from jobs.files.turns import turns_of
from jobs.stages.completion import read_reply
from jobs.stages.refusal import error_in, words_of_body
from jobs.stages.wire import decoded, unpacked


def body(message: Any = None, finish: Any = "stop", **about: Any) -> str:
    choice = {
        "index": 0,
        "message": message or {"role": "assistant", "content": "A: 7"},
        "finish_reason": finish,
    }
    return json.dumps({"choices": [choice]} | about)


@pytest.mark.parametrize(
    "finish",
    [
        "token_limit", "time_limit", "not_finished", "max_new_tokens", "maximum_tokens", "truncated",
        "context_length_exceeded", "maxPredictedTokensReached", "contextLengthReached", "MAX_TOKENS",
        "model_context_window_exceeded", "incomplete",
    ],
)  # fmt: skip
def test_an_answer_that_was_cut_off_is_known_by_a_part_of_the_reason(finish: str) -> None:
    reply = read_reply(body(finish=finish))
    assert (reply.finish, reply.refusal) == ("length", "")


@pytest.mark.parametrize("finish", ["stop", "eos", "stop_sequence", "end_turn", "tool_calls", None])
def test_an_answer_that_ended_by_itself_is_not_cut_off(finish: str | None) -> None:
    reply = read_reply(body(finish=finish))
    assert reply.finish == "stop"
    assert reply.tells_finish == (finish is not None)


@pytest.mark.parametrize(
    "given",
    [
        {"choices": [{"finish_reason": "content_filter", "content_filter_results": {}}]},
        {"choices": [{"finish_reason": "content_filter", "message": None}]},
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"choices": [{"finish_reason": "blacklist", "message": {"content": ""}}]},
    ],
)
def test_what_is_kept_back_without_a_message_is_not_asked_for_again(given: Mapping[str, Any]) -> None:
    reply = read_reply(json.dumps(given))
    assert reply.refusal
    assert not reply.is_interrupted


def test_the_choice_with_the_smallest_index_is_the_answer() -> None:
    choices = [{"index": k, "message": {"content": f"A: {k}"}, "finish_reason": "stop"} for k in (2, 0, 1)]
    assert read_reply(json.dumps({"choices": choices})).text == "A: 0"


@pytest.mark.parametrize(
    ("message", "thought"),
    [
        ({"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "3 and 4"}]},
                      {"type": "text", "text": "A: 7"}]}, "3 and 4"),
        ({"content": [{"type": "reasoning", "reasoning": "3 and 4"},
                      {"type": "text", "text": "A: 7"}]}, "3 and 4"),
        ({"content": "A: 7", "thinking_blocks": [{"type": "thinking", "thinking": "3 and 4"}]}, "3 and 4"),
        ({"content": "A: 7", "reasoning_content": "<think>\n3 and 4\n</think>"}, "3 and 4"),
        ({"content": "A: 7", "reasoning": "3 and 4\n", "reasoning_content": "3 and 4"}, "3 and 4"),
        ({"content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "A: 7"}]}, ""),
    ],
)  # fmt: skip
def test_reasoning_is_found_wherever_a_server_puts_it(message: dict[str, Any], thought: str) -> None:
    reply = read_reply(body(message))
    assert reply.reasoning.strip() == thought
    assert reply.text.endswith("A: 7")
    assert reply.text.count("<think>") == (1 if thought else 0)


def test_the_same_reasoning_in_tags_and_in_a_field_is_one() -> None:
    said = {"content": "<think>\n3 and 4\n</think>\n\nA: 7", "reasoning_content": "3 and 4"}
    assert read_reply(body(said)).text.count("3 and 4") == 1
    assert reasoning_of({"reasoning": "hm"}, "Use `<think>` tags. A: 7") == "hm"
    with pytest.raises(NotUnderstood, match="twice"):
        reasoning_of({"reasoning": "hm"}, "<think>other</think>A: 7")


def test_calls_and_errors_with_empty_values_are_none() -> None:
    assert calls_of([{"function": {"name": "now", "arguments": "null"}}])[0].arguments == "{}"
    assert read_reply(body({"content": "A: 7", "function_call": {"name": "", "arguments": ""}})).calls == ""
    empty = {"code": 0, "message": "", "param": None, "type": ""}
    assert read_reply(body(error=empty)).text == "A: 7"
    assert error_in({"error": {"code": 3, "message": ""}}) != ""


def test_tokens_that_only_the_total_counts_are_the_answers() -> None:
    assert read_reply(body(usage={"prompt_tokens": 10, "total_tokens": 1034})).used == (10, 1024)


def test_the_field_that_a_server_refuses_is_told() -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
    assert "body.seed" in words_of_body(json.dumps({"detail": detail}))


def test_bodies_in_other_encodings_and_in_several_members_are_read_whole() -> None:
    text = '{"a": "Größe"}'
    assert decoded(text.encode("latin-1"), "application/json; charset=iso-8859-1") == text
    assert decoded(text.encode(), "application/json; charset=iso-8859-1") == text
    assert decoded(text.encode("latin-1"), "application/json; charset=nothing").startswith('{"a": "Gr')
    packed = gzip.compress(b'{"a": ') + gzip.compress(b"1}")
    assert unpacked(packed, "gzip", 1000) == b'{"a": 1}'
    assert len(unpacked(gzip.compress(b"x" * 5000) * 2, "gzip", 100)) == 101


def test_calls_get_the_ids_of_their_results() -> None:
    """A call without an id, results by name in another order, an id that a made one would collide with."""
    calls = (ToolCall("f", "{}"), ToolCall("g", "{}"), ToolCall("h", "{}", "call_1"))
    results = (
        Message("tool", "of g", name="g"),
        Message("tool", "of f", name="f"),
        Message("tool", "of h", tool_call_id="call_1"),
    )
    turns = Prompt((Message("user", "q"), Message("assistant", "", None, calls), *results)).for_server()
    ids = {call["function"]["name"]: call["id"] for call in turns[1]["tool_calls"]}
    assert {turn["content"][-1]: turn["tool_call_id"] for turn in turns[2:]} == ids
    assert len(set(ids.values())) == 3
    one = (ToolCall("f", "{}"),)
    told = Prompt(
        (Message("user", "q"), Message("assistant", "", None, one), Message("tool", "x", tool_call_id="abc"))
    )
    turns = told.for_server()
    assert turns[1]["tool_calls"][0]["id"] == turns[2]["tool_call_id"] == "abc"


def test_a_row_that_lacks_its_files_answer_has_none(tmp_path: Path) -> None:
    """Its `answer` is the reference."""
    rows = [
        {"question": "1 + 1?", "answer": "6", "error": "Request timed out."},
        {"question": "4 + 2?", "answer": "6"},
        {"question": "4 + 3?", "answer": "7", "response": "A: 7"},
    ]
    (tmp_path / "ann.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_answers(tmp_path / "ann.jsonl", Fields())
    assert [(a.text, bool(a.problem)) for a in found.answers] == [("", True), ("", True), ("A: 7", False)]
    named = read_answers(tmp_path / "ann.jsonl", Fields(answer="answer"))
    assert [a.text for a in named.answers] == ["6", "6", "7"]


@pytest.mark.parametrize(
    "column", ["responses", "samples", "generated_text", "attempt", "prediction", "error"]
)
def test_a_column_that_may_be_the_reference_beside_an_unread_answer_is_refused(column: str) -> None:
    row = {"question": "q", "answer": "5", column: ["A: 4"] if column.endswith("s") else "A: 4"}
    with pytest.raises(NotUnderstood, match=f"a column {column} beside answer"):
        turns_of(row, Fields())


def test_a_reference_alone_is_no_answer_also_beside_turns() -> None:
    row = {"input": [{"role": "user", "content": "1 + 2"}], "output": "\\boxed{77}"}
    with pytest.raises(NotUnderstood, match="its reference for an answer"):
        answer_and_references(row, None, None)
    talk = [{"role": "user", "content": "1 + 2"}, {"role": "assistant", "content": "3"}]
    assert answer_and_references({"messages": talk, "answer": "3"}, None, None) == ("3", ("3",))


def test_turns_beside_a_list_of_turns_to_answer_and_bare_parts_are_read() -> None:
    row = {"prompt": [{"role": "user", "content": "q"}], "response": [{"role": "assistant", "content": "a"}]}
    turns = turns_of(row, Fields())
    assert turns.answer is not None
    assert turns.answer.content == "a"
    assert text_of([{"text": "Be brief."}]) == "Be brief."
