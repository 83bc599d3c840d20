"""Every verdict of the table in `verdict_cases`, however the final answer is marked."""

import re
from collections.abc import Iterator

import pytest

from selection.verification import VerifySettings, judge
from tests.verdict_cases import FINALS, TEXTS

WANTED = {
    "=": {"correct"},
    "!": {"wrong"},
    "?": {"unparsed"},
    "~": {"wrong", "unparsed"},
}


def cases(block: str) -> Iterator[tuple[str, str, str]]:
    for line in block.strip("\n").split("\n"):
        found = re.fullmatch(r"(.) \| (.*?) \|(?: (.*))?", line)
        assert found is not None, line
        yield found[1], found[2], (found[3] or "").replace("⏎", "\n")


def verdict(text: str, reference: str, kind: str) -> str:
    return judge(text, reference, VerifySettings(method=kind.split()[0])).state  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FINALS)
def test_a_final_answer_gets_its_verdict_behind_a_mark_and_in_a_box(kind: str) -> None:
    """All behind a mark, and every fourth in a box too: what is read is the same."""
    missed = []
    for number, (wanted, reference, answer) in enumerate(cases(FINALS[kind])):
        texts = [f"Answer: {answer}"]
        is_boxable = answer.count("{") == answer.count("}") and "$$" not in answer and r"\[" not in answer
        if number % 4 == 0 and is_boxable:
            texts.append(rf"so \boxed{{{answer}}}")
        for text in texts:
            if (state := verdict(text, reference, kind)) not in WANTED[wanted]:
                missed.append((text, reference, state))
    assert missed == []


@pytest.mark.parametrize("kind", TEXTS)
def test_the_final_answer_of_a_text_is_found(kind: str) -> None:
    found = [
        (text, reference, wanted, verdict(text, reference, kind))
        for wanted, reference, text in cases(TEXTS[kind])
    ]
    assert [case for case in found if case[3] not in WANTED[case[2]]] == []


@pytest.mark.parametrize(
    "before", ["so $2 \\times \\boxed{9} + 1$ ", "answers: ", "Answer: 9\n", "\\boxed{9}  "]
)
def test_the_last_answer_of_a_text_with_thousands_of_marks_or_boxes_counts(before: str) -> None:
    """Seen: each mark was read with all the text before it, so a text that repeats itself took minutes."""
    assert verdict(f"{before * 5000}\n\nAnswer: 3", "3", "math") == "correct"
    assert verdict(f"{before * 5000}\n\nFinally \\boxed{{3}}" + " " * 5000, "3", "math") == "correct"
