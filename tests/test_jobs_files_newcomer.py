"""Files as a new user brought them: answers in unusual columns, options beside a question, finish reasons,
named columns that no row has. Each was read wrongly without a word.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cluster.errors import BadInput
from jobs.experiment.questions import Fields
from jobs.files.answers import read_answers
from jobs.files.columns import value_at
from jobs.files.given import read_given
from jobs.files.layouts import read_teacher_files
from jobs.files.questions import read_questions
from tests.conftest import write_jsonl
from tests.runs import tutelage

QUESTIONS = [f"Ann has {n} pens and buys {n + 1} more. How many pens has she?" for n in range(3, 9)]
SAID = [f"She has {n} + {n + 1} = {2 * n + 1} pens in the end." for n in range(3, 9)]
GOLD = [f"{n} + {n + 1} = {2 * n + 1}\n#### {2 * n + 1}" for n in range(3, 9)]


def rows(**columns: Any) -> list[dict[str, Any]]:
    return [
        {
            "question": question,
            "answer": gold,
            **{name: said if value is SAID else value for name, value in columns.items()},
        }
        for question, gold, said in zip(QUESTIONS, GOLD, SAID, strict=True)
    ]


@pytest.mark.parametrize(
    "name", ["reply", "text", "content", "raw_output", "result", "qwen2.5-72b", "predict"]
)
def test_the_reference_is_not_taken_where_a_column_that_nothing_reads_holds_texts(
    tmp_path: Path, name: str
) -> None:
    write_jsonl(tmp_path / "ann.jsonl", rows(**{name: SAID}))
    with pytest.raises(BadInput, match=f"texts in {re.escape(name)} beside answer"):
        read_teacher_files(str(tmp_path))
    with pytest.raises(BadInput, match="--answer-field"):
        read_answers(tmp_path / "ann.jsonl", Fields())
    taken = read_teacher_files(str(tmp_path), answer=name)
    assert [row.answer for row in taken.rows] == SAID


@pytest.mark.parametrize(
    "beside",
    [
        {"source": "Open Platypus, the larger part"},
        {"category": "grade school word problems"},
        {"text": None},
        {"original_question": "What is it that Ann has in the end?"},
        {"model": "gpt-4"},
    ],
)
def test_other_columns_beside_an_answer_are_no_reason_to_refuse_it(
    tmp_path: Path, beside: dict[str, Any]
) -> None:
    given = rows(**beside)
    if "text" in beside:  # as in Alpaca's own file: the whole prompt with the answer
        given = [row | {"text": f"{row['question']} ### Response: {row['answer']}"} for row in given]
    write_jsonl(tmp_path / "ann.jsonl", given)
    assert [row.answer for row in read_teacher_files(str(tmp_path)).rows] == GOLD


def test_frames_and_lists_of_rows_are_read_as_files_are(tmp_path: Path) -> None:
    """The same defect by another door, and nothing of the check is left in rows that are written."""
    for given in (rows(reply=SAID), pd.DataFrame(rows(reply=SAID))):
        with pytest.raises(BadInput, match="texts in reply beside answer"):
            read_given(None, given)
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]
    write_jsonl(tmp_path / "ann.jsonl", [*rows(reply=SAID), {"messages": turns}])
    found = read_teacher_files(str(tmp_path))
    assert [row.answer for row in found.rows] == ["Ann."]
    kept = [*found.sources.values(), *(row for _, row, _ in found.refused)]
    assert {name for row in kept for name in row} == {"question", "answer", "reply", "messages"}


def test_turns_that_end_with_the_reference_do_not_hide_what_a_model_said(tmp_path: Path) -> None:
    for name in ("generated_text", "output", "prediction"):
        turns = [
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": g}], name: s}
            for q, g, s in zip(QUESTIONS, GOLD, SAID, strict=True)
        ]
        write_jsonl(tmp_path / "ann.jsonl", turns)
        with pytest.raises(BadInput, match=f"two answers, one in the turns and one in the column {name}"):
            read_teacher_files(str(tmp_path))


def test_a_column_of_answers_that_begins_late_is_not_overlooked(tmp_path: Path) -> None:
    early = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(203)]
    late = [{"question": f"And {n} + 2?", "answer": "1", "response": "It is so."} for n in range(3)]
    write_jsonl(tmp_path / "ann.jsonl", [*early, *late])
    with pytest.raises(
        BadInput, match=r"ann\.jsonl has answers in another column than in its first 200 rows"
    ):
        read_teacher_files(str(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {"A": "one", "B": "two", "C": "three", "D": "four"},
        {"option_a": "one", "option_b": "two"},
        {"opa": "one", "opb": "two", "opc": "three", "opd": "four"},
        {"Body": "There are nine pens in a box."},
        {"paragraph": "There are nine pens in a box."},
        {"premise": "A man sleeps.", "hypothesis": "A man is awake."},
    ],
)
def test_options_and_passages_beside_a_question_are_not_left_out_in_silence(
    tmp_path: Path, options: dict[str, str]
) -> None:
    row = {"question": "Which is it?", "answer": "B", **options}
    write_jsonl(tmp_path / "q.jsonl", [row])
    with pytest.raises(BadInput, match="beside the question"):
        read_questions(tmp_path / "q.jsonl", Fields())
    told = "\n".join(f"{name}. {text}" for name, text in options.items())
    write_jsonl(tmp_path / "q.jsonl", [row | {"question": f"Which is it?\n{told}"}])
    assert len(read_questions(tmp_path / "q.jsonl", Fields()).questions) == 1


def test_an_answer_that_its_row_calls_cut_off_is_read_so(tmp_path: Path) -> None:
    given = [
        {"question": q, "response": s, "finish_reason": reason}
        for q, s, reason in zip(
            QUESTIONS, SAID, ["length", "stop", "max_tokens", None, "", ["length"]], strict=True
        )
    ]
    write_jsonl(tmp_path / "ann.jsonl", given)
    found = read_answers(tmp_path / "ann.jsonl", Fields()).answers
    assert [one.is_cut for one in found] == [True, False, True, False, False, True]


@pytest.mark.parametrize("name", ["id", "system", "method"])
def test_a_named_column_that_no_row_has_is_refused(tmp_path: Path, name: str) -> None:
    write_jsonl(tmp_path / "q.jsonl", rows())
    with pytest.raises(BadInput, match=rf"the column that fields\.{name} names"):
        read_questions(tmp_path / "q.jsonl", Fields(**{name: "nope"}))


def test_paths_reach_into_lists_and_names_may_hold_dots() -> None:
    batch = {"response": {"body": {"choices": [{"message": {"content": "7"}}]}}}
    assert value_at(batch, "response.body.choices.0.message.content") == "7"
    assert value_at(batch, "response.body.choices.1.message.content") is None
    assert value_at({"qwen2.5-72b": "7", "qwen2": {"5-72b": "8"}}, "qwen2.5-72b") == "7"
    assert value_at({"resps": [["7", "8"]]}, "resps.0.1") == "8"


def test_a_label_of_zero_is_a_reference_unless_it_is_a_mark(tmp_path: Path) -> None:
    given = [
        {"input": q, "output": s, "label": label}
        for q, s, label in zip(QUESTIONS, SAID, "012340", strict=True)
    ]
    write_jsonl(tmp_path / "ann.jsonl", given)
    assert len(read_teacher_files(str(tmp_path)).rows) == 6
    marked = [{"prompt": "How many?", "completion": "7", "label": 0}, {"prompt": "Who?", "completion": "Ann"}]
    (tmp_path / "ann.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked))
    found = read_teacher_files(str(tmp_path))
    assert [row.answer for row in found.rows] == ["Ann"]


def test_markers_of_another_template_are_told(tmp_path: Path) -> None:
    given = [{"question": q, "response": f"{s}<|eot_id|>"} for q, s in zip(QUESTIONS, SAID, strict=True)]
    write_jsonl(tmp_path / "ann.jsonl", given)
    for found in (read_teacher_files(str(tmp_path)), read_answers(tmp_path / "ann.jsonl", Fields())):
        assert any("6 answers hold markers of a chat template, such as <|eot_id|>" in n for n in found.notes)


def test_a_column_of_models_that_is_no_teachers_name_is_told(tmp_path: Path) -> None:
    """All answers became one teacher's, whose samples they were."""
    given = [
        {"question": q, "response": s, "model": f"m{k % 2}"}
        for k, (q, s) in enumerate(zip(QUESTIONS, SAID, strict=True))
    ]
    write_jsonl(tmp_path / "pool.jsonl", given)
    for found in (read_teacher_files(str(tmp_path)), read_answers(tmp_path / "pool.jsonl", Fields())):
        assert any("the column model has 2 values, such as m0, m1" in note for note in found.notes)
    write_jsonl(tmp_path / "pool.jsonl", [row | {"model": "m"} for row in given])
    assert not read_teacher_files(str(tmp_path)).notes


def test_only_right_rows_are_kept(tmp_path: Path) -> None:
    said = [f"The answer is {2 * n + 1}." for n in range(3, 9)]
    given = [{"question": q, "response": s, "reference": "7"} for q, s in zip(QUESTIONS, said, strict=True)]
    write_jsonl(tmp_path / "ann.jsonl", given)
    out = tmp_path / "right" / "ann.jsonl"
    words = ("--answers", str(tmp_path / "ann.jsonl"), "--out", str(out), "--method", "numeric")
    done = tutelage("verify", *words, "--only-correct")
    assert done.returncode == 0, done.stderr
    assert "1 correct" in done.stdout + done.stderr
    kept = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["response"] for row in kept] == said[:1]


def test_scores_of_two_students_are_not_compared(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        rows = [{"question": q, "response": f"{s} ({name})"} for q, s in zip(QUESTIONS, SAID, strict=True)]
        write_jsonl(tmp_path / name / f"{name}.jsonl", rows)
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    for name, student in (("ann", tiny_model), ("bob", other)):
        words = ("--student", str(student), "--answers", str(tmp_path / name), "--out", str(tmp_path / "s"))
        assert tutelage("score", *words).returncode == 0
    mixed = tutelage("select", "--scores", str(tmp_path / "s"), "--out", str(tmp_path / "chosen"))
    assert mixed.returncode != 0
    assert "scores of several students" in mixed.stdout + mixed.stderr
