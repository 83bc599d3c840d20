"""Reading what servers send as a chat completion: every spelling of an end, a count, an error."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.stages.answers import MOST_TOKENS
from jobs.stages.completion import Malformed, read_reply
from jobs.stages.refusal import NoAnswer, Refused, refused_with


def body(message: Any = None, finish: Any = "stop", **more: Any) -> str:
    """A completion; what is named beside message and finish replaces its parts."""
    said = {"role": "assistant", "content": "A: 7"} if message is None else message
    choice = {"index": 0, "message": said, "finish_reason": finish}
    told = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    return json.dumps(told | more)


ENDS = {
    "good": "stop STOP eos eos_token end end_turn END_TURN COMPLETE stop_sequence tool_calls tool-calls "
    "function_call tool_use word done completed FINISH FINISH_REASON_UNSPECIFIED other",
    "cut off": "length LENGTH max_tokens MAX_TOKENS max-tokens model_length limit ERROR_LIMIT "
    "max_output_tokens model_context_window_exceeded",
    "kept back": "content_filter content-filter SAFETY refusal RECITATION sensitive PROHIBITED_CONTENT "
    "guardrail_intervened BLOCKLIST ERROR_TOXIC SPII",
    "interrupted": "error ERROR abort cancelled USER_CANCEL network_error MALFORMED_FUNCTION_CALL "
    "insufficient_system_resource",
}
GOOD_ENDS, CUT, KEPT_BACK, INTERRUPTED = (ends.split() for ends in ENDS.values())


@pytest.mark.parametrize("finish", [*GOOD_ENDS, "", "x y", None, ["stop"], {"type": "stop"}, 3, True, [], {}])
def test_an_end_that_is_not_known_to_be_bad_is_good(finish: Any) -> None:
    reply = read_reply(body(finish=finish))
    assert (reply.text, reply.finish, reply.refusal) == ("A: 7", "stop", "")


@pytest.mark.parametrize("finish", [*CUT, ["length"], {"type": "length"}])
def test_an_answer_that_was_cut_off_is_known_by_every_word_for_it(finish: Any) -> None:
    reply = read_reply(body(finish=finish))
    assert (reply.text, reply.finish, reply.refusal) == ("A: 7", "length", "")


@pytest.mark.parametrize(
    ("finish", "is_interrupted"),
    [*((f, False) for f in KEPT_BACK), *((f, True) for f in INTERRUPTED), ({"type": "abort"}, True)],
)
def test_a_bad_end_is_no_answer_and_some_may_go_away(finish: Any, is_interrupted: bool) -> None:
    reply = read_reply(body(finish=finish))
    assert reply.refusal.startswith("it ended with ")
    assert reply.is_interrupted == is_interrupted


GOOD = [5, 5.0, "5", " 5 ", "5.0"]
BAD = [
    None,
    True,
    -5,
    -0.5,
    1e30,
    10**30,
    "1e30",
    "five",
    "",
    float("nan"),
    float("inf"),
    [5],
    {"n": 5},
    "٥" * 3,
]


@pytest.mark.parametrize("count", GOOD)
def test_tokens_are_counted_however_they_are_written(count: Any) -> None:
    for names in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        assert read_reply(body(usage={names[0]: count, names[1]: count})).used == (5, 5)
    assert read_reply(
        body(usage={"prompt_tokens": count, "completion_tokens": 1, "total_tokens": 20})
    ).used == (5, 15)


@pytest.mark.parametrize("count", BAD)
def test_a_count_that_cannot_be_is_none_and_the_answer_stays(count: Any) -> None:
    """Of 1e30 the file could not be written, NaN ended the run, and -5 gave the budget money back."""
    for usage in (
        {"prompt_tokens": count, "completion_tokens": 7},
        {"prompt_tokens": 5, "completion_tokens": count},
        {"prompt_tokens": count, "completion_tokens": count, "total_tokens": count},
    ):
        reply = read_reply(body(usage=usage))
        assert (reply.text, reply.used) == ("A: 7", None)
    whole = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": count}
    assert read_reply(body(usage=whole)).used == (5, 7)


@pytest.mark.parametrize(
    "usage", [None, [], "5", 5, {}, {"total_tokens": 9}, {"prompt_tokens": MOST_TOKENS + 1}]
)
def test_usage_of_any_other_form_is_none(usage: Any) -> None:
    assert read_reply(body(usage=usage)).used is None


ERRORS = [
    ({"error": {"message": "slow down", "code": 429}}, "slow down (code 429)"),
    ({"error": {"message": "slow down"}, "choices": []}, "slow down"),
    ({"error": "slow down"}, "slow down"),
    ({"error": {"type": "x", "code": "rate_limit"}}, "(code rate_limit)"),
    ({"error": [{"message": "slow down"}]}, "slow down"),
    ({"error": 7}, "7"),
    ({"detail": "slow down"}, "slow down"),
    ({"object": "error", "message": "slow down", "code": 400}, "slow down"),
    ({"choices": None, "base_resp": {"status_code": 1, "status_msg": "slow down"}}, "slow down"),
    (
        {"error": {"message": "Failed", "metadata": {"raw": "slow down", "provider_name": "p"}}},
        "Failed: slow down",
    ),
    (
        {"choices": [{"error": {"message": "slow down", "code": 502}, "finish_reason": "error"}]},
        "slow down (code 502)",
    ),
    (
        {
            "choices": [
                {"message": {"content": "half"}, "error": {"message": "slow down"}, "finish_reason": "error"}
            ]
        },
        "slow down",
    ),
]


@pytest.mark.parametrize(("found", "words"), ERRORS)
def test_an_error_where_the_answer_should_be_keeps_its_words(found: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match="the reply has status 200 and holds an error: ") as told:
        read_reply(json.dumps(found))
    assert words in str(told.value)
    assert (told.value.used, told.value.is_final, told.value.may_cost) == (None, False, False)


@pytest.mark.parametrize("error", [None, "", {}, [], False, 0])
def test_an_error_that_is_none_is_none(error: Any) -> None:
    assert read_reply(body(error=error, detail="x", msg="y")).text == "A: 7"


@pytest.mark.parametrize(
    ("told", "words", "is_final"),
    [
        ("", "an empty body", False),
        (" \n", "an empty body", False),
        ("<html><h1>Log in</h1></html>", "a page, not JSON: Log in", False),
        ('data: {"choices": []}\n\ndata: [DONE]\n\n', "an event stream", True),
        (": OPENROUTER PROCESSING\n\ndata: {}\n\n", "an event stream", True),
        ("event: ping\ndata: {}", "an event stream", True),
        ('{"choices": [{"message": {"conte', "not JSON", False),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply", False),
        ('{"choices": ' + "[" * 100_000, "nested too deeply", False),
        ('{"usage": {"prompt_tokens": ' + "9" * 5000 + "}}", "not JSON", False),
        ('{"choices": []}', "no choice", False),
        ('{"choices": null}', "no choice", False),
        ('{"choices": [null]}', "no choice", False),
        ('{"choices": [{"message": null}]}', "no choice", False),
        ('{"choices": {"0": {}}}', "no choice", False),
    ],
)
def test_what_is_no_completion_is_named(told: str, words: str, is_final: bool) -> None:
    with pytest.raises(Malformed, match=words) as error:
        read_reply(told)
    assert error.value.is_final == is_final


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("A: 7", "A: 7"),
        (["A: ", "7"], "A: 7"),
        ([{"type": "text", "text": "A: "}, {"type": "output_text", "text": "7"}], "A: 7"),
        ({"type": "text", "text": "A: 7"}, "A: 7"),
        ([{"type": "reasoning", "text": "why"}, "A: 7"], "<think>\nwhy\n</think>\n\nA: 7"),
        ([{"type": "thinking", "thinking": "why"}, "A: 7"], "<think>\nwhy\n</think>\n\nA: 7"),
        ([], ""),
        (None, ""),
    ],
)
def test_content_is_text_in_whatever_parts_it_comes(content: Any, text: str) -> None:
    assert read_reply(body({"content": content})).text == text


def test_a_refusal_is_one_wherever_it_stands() -> None:
    assert read_reply(body({"content": [{"type": "refusal", "refusal": "no"}]})).refusal == "no"
    assert read_reply(body({"content": None, "refusal": "no"})).refusal == "no"
    assert read_reply(body({"content": "A: 7", "refusal": None})).refusal == ""


@pytest.mark.parametrize("arguments", [{"a": 1}, '{"a": 1}', "", None, {}, "{}"])
def test_calls_are_read_with_their_arguments_in_any_form(arguments: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    reply = read_reply(body({"content": None, "tool_calls": [call, None]}, "tool_calls"))
    expected = {"a": 1} if arguments and arguments != "{}" else {}
    assert [c["function"]["arguments"] for c in json.loads(reply.calls)] == [expected]


@pytest.mark.parametrize(
    "message",
    [
        {"content": [[["x"]]]},
        {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"content": "A: 7", "reasoning_content": {"a": 1}},
        {"content": None, "tool_calls": [5]},
        {"content": None, "tool_calls": ["x"]},
        {"content": None, "tool_calls": [{"function": None}]},
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": NaN}'}}]},
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": float("inf")}}}]},
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "[" * 100_000}}]},
        {
            "content": None,
            "tool_calls": [{"function": {"name": "f", "arguments": '{"a": ' + "9" * 5000 + "}"}}],
        },
    ],
)
def test_a_part_that_has_no_place_fails_its_answer_which_is_paid_for(message: Any) -> None:
    with pytest.raises(NoAnswer) as error:
        read_reply(body(message))
    assert error.value.is_final
    assert error.value.used == (5, 7)


TEXTS = st.text(st.characters(codec=None), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
NAMES = """choices message content usage error code finish_reason tool_calls function name arguments type text
thinking reasoning reasoning_content refusal metadata prompt_tokens completion_tokens total_tokens raw"""
KEYS = st.sampled_from(NAMES.split())
JSON = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=5),
    max_leaves=12,
)
TREE = st.dictionaries(KEYS, JSON, max_size=5)


@given(message=TREE, finish=JSON, usage=JSON, top=TREE)
@settings(max_examples=100, deadline=None)
def test_whatever_json_comes_is_an_answer_or_none(message: Any, finish: Any, usage: Any, top: Any) -> None:
    choice = {"message": message, "finish_reason": finish}
    whole = {"choices": [choice], "usage": usage}
    for found in (whole, {"choices": [choice], **top}, {"choices": [top]}, top):
        try:
            reply = read_reply(json.dumps(found))
        except NoAnswer as error:
            used = error.used
        else:
            used = reply.used
            assert reply.finish in ("stop", "length")
            json.loads(reply.calls or "[]", parse_constant=pytest.fail)
        assert used is None or all(0 <= count <= MOST_TOKENS for count in used)


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_whatever_bytes_come_are_no_answer(told: bytes) -> None:
    with pytest.raises(NoAnswer):
        read_reply(told.decode("utf-8-sig", "replace"))


@given(JSON, st.sampled_from(range(300, 600)))
@settings(max_examples=60, deadline=None)
def test_whatever_an_error_holds_is_told_in_one_short_line(found: Any, status: int) -> None:
    told = str(refused_with(status, json.dumps(found)))
    assert told.startswith(f"HTTP {status}: ")
    assert len(told) < 400
    assert "\n" not in told
