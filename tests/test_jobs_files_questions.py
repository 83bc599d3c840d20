"""Reading users' files: every layout, every defect named by its line, nothing lost in silence."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from cluster.errors import BadInput
from cluster.models.messages import plain
from cluster.storage import Place
from jobs.experiment.questions import Fields
from jobs.files.answers import read_answers
from jobs.files.questions import Question, question_id_of, read_questions
from jobs.run.slices import Sliced
from jobs.run.store import Stage
from jobs.stages.answer_files import AnotherText, CheckQuestion
from jobs.stages.questions import QUESTIONS, HeldQuestions, index_of
from tests.conftest import write_jsonl

GOOD = [{"id": "a", "question": "1+1?", "answer": "2"}, {"id": "b", "question": "2+2?", "answer": "4"}]


def test_a_broken_line_is_named_by_its_number_and_the_rest_kept_only_on_request(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "q.jsonl", GOOD)
    path.write_text(path.read_text().replace('{"id": "b"', '{"id": b'))
    with pytest.raises(BadInput, match=r"q\.jsonl line 2 is broken.*skip_broken_lines"):
        read_questions(path, Fields())
    said: list[str] = []
    assert [q.id for q in read_questions(path, Fields(), on_broken=said.append).questions] == ["a"]
    assert len(said) == 1
    assert "line 2" in said[0]
    path.write_bytes(b'{"id": "a", "question": "x", "answer": "1"}\n{"id": "\xff"}\n[1]\n')
    with pytest.raises(BadInput, match="line 2 is broken"):
        read_questions(path, Fields())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no such file.*none\.jsonl"):
        read_questions(tmp_path / "none.jsonl", Fields())


def test_no_row_of_an_id_with_several_texts_is_a_question(tmp_path: Path) -> None:
    """Which of them an answer with that id belongs to, nobody knows."""
    path = write_jsonl(tmp_path / "q.jsonl", [*GOOD, {"id": "a", "question": "other", "answer": "9"}])
    found = read_questions(path, Fields())
    assert [q.id for q in found.questions] == ["b"]
    assert [(r.id, r.reason) for r in found.refused] == [
        ("line 3: a", "an id that has several texts"),
        ("line 1: a", "an id that has several texts"),
    ]
    write_jsonl(path, [GOOD[0], {"id": "a", "question": "other", "answer": "9"}])
    with pytest.raises(BadInput, match=r"line 2 repeats an id.*first seen at line 1 with another text"):
        read_questions(path, Fields())


def test_the_same_question_with_two_texts_is_refused_with_both(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", [{"id": "a", "instruction": "1+2?", "teacher_output": "3"}])
    (answer,) = read_answers(path, Fields()).answers
    held = HeldQuestions([[Question("a", plain("1+1?"), ("2",))]])
    stage = Stage("questions", "x", Place(str(tmp_path)), {}, {})
    index = index_of(Sliced(stage, (QUESTIONS,), 1, held(0).tables))
    with pytest.raises(AnotherText) as raised:
        CheckQuestion(index, "t")(answer)
    assert re.search(r"question a has two different texts.*1\+2\?.*1\+1\?", str(raised.value.stopping("t")))


def test_rows_without_question_reference_or_answer_name_the_columns_they_have(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"line 1 has no question; got id, text"):
        read_questions(write_jsonl(tmp_path / "1.jsonl", [{"id": "a", "text": "x"}]), Fields())
    with pytest.raises(BadInput, match="line 1 has no reference"):
        read_questions(write_jsonl(tmp_path / "2.jsonl", [{"id": "a", "question": "x"}]), Fields())
    with pytest.raises(BadInput, match="line 1 has no answer"):
        read_answers(write_jsonl(tmp_path / "3.jsonl", [{"id": "a", "question": "x"}]), Fields())
    with pytest.raises(BadInput, match="names no question"):
        read_answers(write_jsonl(tmp_path / "4.jsonl", [{"response": "x"}]), Fields())
    with pytest.raises(BadInput, match="holds no questions"):
        read_questions(write_jsonl(tmp_path / "5.jsonl", []), Fields())


def test_the_layouts_of_the_field_are_read_alike(tmp_path: Path) -> None:
    rows = {
        "plain": {"instruction": "Q", "teacher_output": "A"},
        "openai": {
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "A"},
            ]
        },
        "sharegpt": {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        "trl": {"prompt": "Q", "completion": "A"},
        "trl chat": {
            "prompt": [{"role": "user", "content": "Q"}],
            "completion": [{"role": "assistant", "content": "A"}],
        },
        "alpaca": {"instruction": "Q", "input": "", "output": "A"},
    }
    for name, row in rows.items():
        found = read_answers(write_jsonl(tmp_path / f"{name}.jsonl", [row]), Fields()).answers[0]
        assert found.prompt is not None
        assert (found.prompt.text, found.text) == ("Q", "A"), name
        assert found.question_id == question_id_of(found.prompt), name
        question = read_questions(
            write_jsonl(tmp_path / f"{name}.jsonl", [row | {"reference": "R"}]), Fields()
        ).questions[0]
        assert (question.text, question.reference) == ("Q", "R"), name
    told = read_answers(tmp_path / "openai.jsonl", Fields()).answers[0].prompt
    assert told is not None
    assert told.system == "S"


def test_json_parquet_and_dotted_fields(tmp_path: Path) -> None:
    nested = [{"q": {"text": "Q"}, "m": {"a": {"solution": "A"}}}]
    (tmp_path / "x.json").write_text(json.dumps(nested))
    fields = Fields(question="q.text", answer="m.a.solution")
    assert read_answers(tmp_path / "x.json", fields).answers[0].text == "A"
    pd.DataFrame(GOOD).to_parquet(tmp_path / "q.parquet")
    assert [q.id for q in read_questions(tmp_path / "q.parquet", Fields()).questions] == ["a", "b"]


def test_parquet_keeps_conversations_and_nothing_becomes_nan(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": "Q"}],
            "completion": [{"role": "assistant", "content": "A"}],
            "system": None,
            "id": 0,
        },
        {
            "prompt": [{"role": "user", "content": "Q2"}],
            "completion": [{"role": "assistant", "content": "B"}],
            "system": "S",
            "id": 1,
        },
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    answers = read_answers(tmp_path / "a.parquet", Fields()).answers
    assert [(a.question_id, a.prompt, a.text) for a in answers] == [
        ("0", plain("Q"), "A"),
        ("1", plain("Q2", "S"), "B"),
    ]


def test_a_question_with_the_id_zero_keeps_it(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "q.jsonl", [{"id": 0, "question": "x", "answer": "1"}])
    assert read_questions(path, Fields()).questions[0].id == "0"


def test_several_answers_to_one_question_are_its_samples(tmp_path: Path) -> None:
    rows = [{"id": "a", "instruction": "Q", "teacher_output": t} for t in ("x", "y")]
    read = read_answers(write_jsonl(tmp_path / "t.jsonl", rows), Fields())
    assert [(a.text, a.sample) for a in read.answers] == [
        ("x", 0),
        ("y", 1),
    ]
