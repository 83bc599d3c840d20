"""Verification: all published labels of GSM8K, every method and state, a hang that is killed."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadInput
from selection.checking import Verifier
from selection.comparison import read_number
from selection.extraction import extract_final
from selection.marks import MARKS
from selection.verification import Case, VerifySettings, judge, unreadable
from tests.patience import slowness


@pytest.mark.parametrize("method", ["math", "numeric"])
def test_it_agrees_with_every_published_label_of_gsm8k(gsm8k: Path, method: str) -> None:
    rows = [
        json.loads(line)
        for line in (gsm8k / "example_model_solutions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    checked = 0
    with Verifier(VerifySettings(method=method)) as verifier:  # type: ignore[arg-type]
        for row in rows:
            for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
                verdict = verifier.check(row[model]["solution"], row["ground_truth"])
                assert (verdict.state == "correct") == row[model]["is_correct"], (verdict, row["question"])
                checked += 1
    assert checked == 5276


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("2", r"\boxed{12}"),
        ("5", r"after 15 steps we get \boxed{7}"),
        ("10", r"\boxed{3}. Check with 10 items"),
        ("2", "A: 12"),
        ("18", "A: 18.5"),
    ],
)
def test_answers_that_the_published_judge_passes_wrongly_are_wrong(reference: str, answer: str) -> None:
    for method in ("math", "numeric"):
        settings = VerifySettings(method=method)  # type: ignore[arg-type]
        assert judge(answer, reference, settings).state == "wrong", method


@pytest.mark.parametrize(
    ("method", "answer", "reference", "state"),
    [
        ("math", r"so \boxed{\frac{1}{2}}", "0.5", "correct"),
        ("math", r"\boxed{x^2+2x+1}", "(x+1)^2", "correct"),
        ("math", "no idea", "3", "unparsed"),
        ("exact", "A:  b7 ", "b7", "correct"),
        ("exact", "A:b8", "b7", "wrong"),
        ("numeric", "#### 1,234", "1234", "correct"),
        ("numeric", "A: 3 or 4", "3", "unparsed"),
        ("choice", "The answer is (b).", "B", "correct"),
        ("choice", "Answer: C", "B", "wrong"),
        ("choice", "Answer: none of these", "B", "unparsed"),
    ],
)
def test_each_method_gives_its_states(method: str, answer: str, reference: str, state: str) -> None:
    assert judge(answer, reference, VerifySettings(method=method)).state == state  # type: ignore[arg-type]


def test_bold_marks_are_read_the_last_mark_counts_and_words_are_not_products_of_letters() -> None:
    for text in (
        "**Answer:** B",
        "Answer: **B**",
        "The answer is **B**.",
        "A: Red\nB: Blue\nThe answer is B",
    ):
        assert judge(text, "B", VerifySettings(method="choice")).state == "correct", text
    assert judge("A: seat", "east", VerifySettings(method="math")).state == "wrong"
    assert judge("A: East.", "east", VerifySettings(method="math")).state == "correct"
    assert judge("A: 3*4", "12", VerifySettings(method="math")).state == "correct"


def test_the_last_balanced_box_counts_and_unbalanced_ones_do_not() -> None:
    assert extract_final(r"\boxed{1} then \boxed{a{b}c} and \boxed{") == "a{b}c"
    assert extract_final("x", r"x=(\d)") is None
    assert extract_final("x=1 x=2", r"x=(\d)") == "2"
    assert read_number("-3.5e2 kg") is not None


def test_a_hanging_check_is_killed_at_the_limit_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slowcheck.py").write_text(
        "import os\n"
        "def check(answer, reference):\n"
        "    if answer == 'hang':\n"
        "        while True: pass\n"
        "    if answer == 'die':\n"
        "        os._exit(3)\n"
        "    if answer == 'raise':\n"
        "        raise RuntimeError('boom')\n"
        "    return answer == reference\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    settings = VerifySettings(method="function", function="slowcheck:check", timeout_s=0.5 * slowness())
    with Verifier(settings) as verifier:
        assert verifier.check("a", "a").state == "correct"
        assert verifier.check("hang", "a").state == "timed_out"
        assert verifier.check("b", "a").state == "wrong"
        assert verifier.check("die", "a").state == "checker_error"
        assert verifier.check("raise", "a").extracted == "RuntimeError: boom"
        assert verifier.check("a", "a").state == "correct"


def test_bad_settings_are_refused_before_any_check() -> None:
    with pytest.raises(BadInput, match=r"verify\.function"):
        Verifier(VerifySettings(method="function", function="no.such:thing"))
    with pytest.raises(BadInput, match="exactly one group"):
        Verifier(VerifySettings(pattern="A: .*"))


@pytest.mark.parametrize(
    ("method", "readable", "not_readable"),
    [
        ("numeric", "3", "a few"),
        ("numeric", "3", "3 or 4"),
        ("choice", "B", "none of these"),
        ("choice", "B", ""),
    ],
)
def test_a_reference_that_the_method_cannot_read_costs_its_answer_alone(
    method: str, readable: str, not_readable: str
) -> None:
    settings = VerifySettings(method=method)  # type: ignore[arg-type]
    answer = f"A: {readable}"
    verdict = judge(answer, not_readable, settings)
    assert verdict.state == "unreadable_reference"
    assert repr(not_readable) in verdict.extracted
    assert unreadable((not_readable,), settings) != ""
    assert unreadable((not_readable, readable), settings) == ""
    assert judge(answer, (not_readable, readable), settings).state == "correct"


@pytest.mark.parametrize("method", ["math", "numeric"])
@pytest.mark.parametrize(
    "rest",
    [
        "or 4",
        ", or 4",
        "(or 4)",
        "or maybe 4",
        ", possibly 4",
        "or four",
        "or x = 4",
        "or $4$.",
        "or even -3",
    ],
)
def test_a_second_value_behind_a_box_is_not_forgotten(method: str, rest: str) -> None:
    """Seen: all but the first and the last but one were right, by what is in the box."""
    settings = VerifySettings(method=method)  # type: ignore[arg-type]
    for box in (r"\boxed{3}", r"$\boxed{3}$", r"\(\boxed{3}\)"):
        for reference in ("3", "4"):
            assert judge(f"So it is {box} {rest}", reference, settings).state in ("wrong", "unparsed")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\boxed{1000000} or 1 million", "1000000"),  # seen: wrong, as if 1 were meant
        (r"\boxed{\frac{7}{2}}, or 3.5", "3.5"),
        (r"\boxed{3} (or three)", "3"),
        (r"\boxed{0.75}, or 75%", "3/4"),
        (r"\boxed{3} or one of its multiples", "3"),
        (r"\boxed{3}, or equivalently 6/2", "3"),
    ],
)
def test_the_same_value_in_other_words_behind_a_box_is_right(answer: str, reference: str) -> None:
    assert judge(answer, reference, VerifySettings()).state == "correct"


@pytest.mark.parametrize("method", ["math", "numeric"])
def test_a_reference_that_is_too_long_is_called_so(method: str) -> None:
    settings = VerifySettings(method=method)  # type: ignore[arg-type]
    verdict = judge("#### 3", "9" * 5000, settings)
    assert verdict.state == "unreadable_reference"
    assert verdict.extracted.endswith("too long to be read (5,000 characters, 2,000 at most)")


@pytest.mark.parametrize("method", ["exact", "math", "numeric"])
def test_what_is_thought_on_the_way_is_no_answer(method: str) -> None:
    settings = VerifySettings(method=method)  # type: ignore[arg-type]
    assert judge("<think>A:9, no\nA:8</think>A:7", "7", settings).state == "correct"
    assert judge("<think>A:7</think>A:8", "7", settings).state == "wrong"
    assert judge("<think>so A:7", "7", settings).state == "unparsed"


pieces = st.sampled_from(
    [
        "####",
        "A:",
        "a :",
        "**Answer",
        "anSwer",
        "ANSWER is",
        "the final",
        ":",
        " 7",
        "x",
        "\n",
        "`",
        "*",
        ". ",
        "\\boxed{2}",
    ]
)


@given(st.lists(pieces, max_size=12).map("".join))
def test_marks_that_cannot_be_in_a_text_are_not_looked_for(text: str) -> None:
    assert all(needed in text.casefold() for needed, mark in MARKS if mark.search(text))


def test_a_batch_gives_each_answer_its_own_limit_and_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that hang or kill the child, anywhere in a batch, cost those around them nothing."""
    limit = slowness()  # seconds
    (tmp_path / "batchcheck.py").write_text(
        "import os, time\n"
        "def check(answer, reference):\n"
        "    if answer.startswith('hang'): time.sleep(100_000)\n"
        "    if answer.startswith('die'): os._exit(3)\n"
        f"    if answer.startswith('slow'): time.sleep({0.3 * limit})\n"
        "    return answer == reference\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    texts = ["a", "hang 1", "b", "slow", "slow 2", "c", "die", "d", "a", "hang 2", "die 2", "e", "slow 3"]
    states = {"hang": "timed_out", "die": "checker_error", "a": "correct"}
    with Verifier(VerifySettings("function", function="batchcheck:check", timeout_s=limit)) as verifier:
        found = verifier.check_all(Case(text, ("a",)) for text in texts)
    assert [v.state for v in found] == [states.get(text.split()[0], "wrong") for text in texts]
