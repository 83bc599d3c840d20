"""Texts made whole where they enter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.models.reasoning import split_reasoning
from cluster.models.repair import repaired_answer, repaired_text

said = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff<>`'\""))


@given(said.map(str.strip), said.map(str.strip))
def test_a_block_that_the_prompt_opened_is_the_block_with_both_tags(thought: str, answer: str) -> None:
    whole = split_reasoning(f"<think>\n{thought}\n</think>\n\n{answer}")
    for space in ("", "\n", "\r\n", " "):
        closed_only = f"{space}{thought}{space}</think>{space}{answer}"
        assert split_reasoning(repaired_answer(closed_only)) == whole


@pytest.mark.parametrize(
    "text",
    [
        "A: 3",
        "<think>3+4</think>A: 7",
        " <think>3+4, let me see",
        "The block begins with `<think>` and ends with `</think>`.",
        'Write "</think>" there.',
        "I think. <think>so</think> A: 7",
    ],
)
def test_what_is_whole_stays_as_it_is(text: str) -> None:
    assert repaired_answer(text) == text


@given(st.text(alphabet=st.characters()))
def test_a_repaired_text_fits_any_file_and_is_repaired_once(text: str) -> None:
    once = repaired_text(text)
    once.encode()
    assert "\0" not in once
    assert repaired_text(once) == once
    assert repaired_answer(repaired_answer(text)) == repaired_answer(text)


@given(said)
def test_nothing_else_of_a_text_is_touched(text: str) -> None:
    assert repaired_text(text) == text
    assert repaired_text(f"\ufeff{text}\0\ud83d") == f"{text}\ufffd"
    assert repaired_text(f"{text}\ud83d\ude00") == f"{text}\U0001f600"


def test_reasoning_may_end_in_a_quotation_mark() -> None:
    for thought in ('so it is "7"', "(3 + 4)", "so `7`"):
        assert split_reasoning(repaired_answer(f"{thought}</think>A: 7")) == (thought, "A: 7")
