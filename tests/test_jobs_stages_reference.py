"""A reference that cannot be read: its question is refused, and the ledger keeps the reason of an answer."""

import pandas as pd
import pytest

from jobs.files.questions import Question
from jobs.files.turns import turns_of
from jobs.stages.check import Checkable, Checks, OddReference
from jobs.stages.select import build_ledger
from selection.verification import VerifySettings


def test_a_question_with_a_reference_that_its_method_cannot_read_is_refused() -> None:
    prompt = turns_of({"question": "How many?"}).prompt
    assert prompt is not None
    check = Checkable(Checks(VerifySettings(method="numeric")))
    for reference in ("3", "$4"):
        check(Question("0", prompt, (reference,)))
    with pytest.raises(OddReference) as refused:
        check(Question("1", prompt, ("a few",)))
    assert "a few" in refused.value.why


def test_the_ledger_says_why_no_answer_could_be_compared_with_a_reference() -> None:
    why = "the reference 'a few' is not one number"
    answers = pd.DataFrame(
        {
            "answer_id": ["a", "b"],
            "question_id": ["1", "1"],
            "teacher": "t",
            "state": ["unreadable_reference", "wrong"],
            "error": "",
            "extracted": [why, "7"],
        }
    )
    scored = pd.DataFrame(columns=["answer_id", "state", "reason", "n_answer"])
    chosen = pd.DataFrame(columns=["question_id", "answer_id"])
    ledger = build_ledger(answers, (), scored, chosen, ["1"])
    own = ledger[ledger["kind"] == "answer"].set_index("id")
    assert own["state"].to_dict() == {"a": "unreadable_reference", "b": "wrong"}
    assert own["reason"].to_dict() == {"a": why, "b": ""}
