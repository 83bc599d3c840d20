"""Answers of kinds that were judged amiss when they were first brought: `verdicts_found.txt` holds them, each
with the verdict that is right beyond dispute.

A line is `want | method | reference | answer`. Want is `=` correct, `~` anything but correct, `!` wrong, `?`
unparsed, `u` anything but wrong. Methods are math, numeric, choice, exact by their first letter. `⏎` stands
for a new line and `¦` for a vertical line. Lines with `##` name the kinds.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from selection.opposites import swapped
from selection.verification import METHODS, VerifySettings, judge

FITS = {
    "=": {"correct"},
    "~": {"wrong", "unparsed", "unreadable_reference"},
    "!": {"wrong"},
    "?": {"unparsed"},
    "u": {"correct", "unparsed"},
}
METHOD = {method[0]: method for method in METHODS if method in ("math", "numeric", "choice", "exact")}


def found() -> Iterator[tuple[str, list[str]]]:
    kind, lines = "", list[str]()
    for line in (Path(__file__).parent / "verdicts_found.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            if lines:
                yield kind, lines
            kind, lines = line[3:], []
        elif line:
            lines.append(line)
    yield kind, lines


@pytest.mark.parametrize(("kind", "lines"), [pytest.param(k, ls, id=k) for k, ls in found()])
def test_every_answer_of_a_kind_gets_its_verdict(kind: str, lines: list[str]) -> None:
    missed = []
    for line in lines:
        want, method, reference, answer = line.split(" | ", 3)
        given = [text.replace("⏎", "\n").replace("¦", "|") for text in (answer, reference)]
        state = judge(given[0], given[1], VerifySettings(method=METHOD[method])).state
        missed += [] if state in FITS[want] else [(line, state)]
    assert missed == []


# what a check must not take for an answer that is taken back, or for another one
STAYS = [
    ("The answer is 18. Sorry for the long explanation.", "18", "math"),
    ("The answer is 72.\n\nSorry, I should mention that half as many means 24.", "72", "math"),
    ("The answer is 18. Let me double-check: 18 / 2 = 9, as the question says.", "18", "math"),
    ("The answer is 18. Oops, I wrote 24 above; it is 18.", "18", "math"),
    ("\\boxed{5}. The other root, -3, is not a length.", "5", "math"),
    ("**Answer: C**\n\nThis is incorrect because A, B and D are all true.", "C", "choice"),
    ("The answer is D, as E does not fit.", "D", "choice"),
    ("The answer is D. A does not fit, B does not match the text, and C does not hold.", "D", "choice"),
    ("The answer is D. D is better than A.", "D", "choice"),
    ("Answer: B\n\nA fails to match the units; C does not work because it ignores mass.", "B", "choice"),
    ("\\boxed{5}. The root x = -3 is negative, so it does not work.", "5", "math"),
    ("The answer is 18. It does not matter that 4 were broken.", "18", "math"),
    ("Answer: after 5 hours", "5 hours", "math"),
    ("Answer: The area of the square is 12 cm^2", "12 cm^2", "math"),
    ("Answer: length 12, width 5", "length 12, width 5", "math"),
    ("Answer: boys: 12, girls: 15", "girls: 15, boys: 12", "math"),
    ("Answer: 5 Mn", "5000000", "math"),
    ("Answer: \\boxed{V = IR}", "V = IR", "math"),
    ("Answer: $(1+r)^T$", "(1+r)^{T}", "math"),
    ("Answer: f'(x) = 2x", "f'(x) = 2x", "math"),
]


@pytest.mark.parametrize(("answer", "reference", "method"), STAYS)
def test_right_answers_stay_right(answer: str, reference: str, method: str) -> None:
    assert judge(answer, reference, VerifySettings(method)).state == "correct"  # type: ignore[arg-type]


def test_names_that_change_places_are_found_and_the_same_names_are_not() -> None:
    assert swapped("Tom has 12 apples, Ann has 15 apples", "Tom has 15 apples, Ann has 12 apples")
    assert not swapped("Ann 15, Tom 12", "Tom 12, Ann 15")
    assert not swapped("12 and 15", "15 and 12")


def test_a_text_without_a_final_channel_says_nothing() -> None:
    thought = "<|channel|>analysis<|message|>The answer is 17<|end|>"
    final = "<|start|>assistant<|channel|>final<|message|>The answer is 18.<|return|>"
    assert judge(thought, "17", VerifySettings("math")).state == "unparsed"
    assert judge(thought + final, "18", VerifySettings("math")).state == "correct"
