"""Sources of rows: files, directories that `datasets` saved, and what it loads by name."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cluster.errors import BadInput
from jobs.experiment.questions import Fields
from jobs.files.answers import read_answers
from jobs.files.layouts import read_teacher_files
from jobs.files.questions import read_questions
from jobs.files.rows import check_source, read_rows
from tests.conftest import write_jsonl

CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
ROWS: list[dict[str, Any]] = [
    {"id": "1", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {
        "id": "2",
        "messages": [
            {"role": "user", "content": "use it"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
        ],
    },
]


def read(where: str | Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(where)]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "two"))
    return tmp_path


def test_directories_that_datasets_saved_are_read_like_files(saved: Path) -> None:
    write_jsonl(saved / "plain.jsonl", ROWS)
    plain = read_answers(saved / "plain.jsonl", Fields()).answers
    assert read_answers(saved / "one", Fields()).answers == plain
    assert read_answers(f"{saved / 'two'}?split=train", Fields()).answers == plain
    assert [a.question_id for a in read_answers(f"{saved / 'two'}?split=test", Fields()).answers] == ["1"]
    with pytest.raises(BadInput, match="several splits; got test, train"):
        read(saved / "two")
    with pytest.raises(BadInput, match=r"unknown option.*splt"):
        read(f"{saved / 'two'}?splt=train")
    with pytest.raises(BadInput, match="a directory that datasets did not save"):
        read(saved)


def test_what_datasets_loads_by_name_is_read_through_it(saved: Path) -> None:
    (saved / "hub").mkdir()
    write_jsonl(saved / "hub" / "train.jsonl", ROWS[:1])
    assert read(f"hub:{saved / 'hub'}?split=train")[0]["id"] == "1"
    with pytest.raises(BadInput, match=r"cannot load hub:nobody/nothing"):
        read("hub:nobody/nothing?split=train")
    check_source("hub:nobody/nothing", "questions")


def test_what_is_not_there_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no answers of ann there"):
        check_source(str(tmp_path / "none.jsonl"), "answers of ann")


def test_parquet_does_not_add_the_arguments_of_other_calls(tmp_path: Path) -> None:
    other = json.loads(json.dumps(ROWS[1]))
    other["messages"][1]["tool_calls"][0]["function"] = {"name": "say", "arguments": {"text": "hi"}}
    pd.DataFrame([ROWS[1], other | {"id": "3"}]).to_parquet(tmp_path / "a.parquet")
    found = read_answers(tmp_path / "a.parquet", Fields()).answers
    assert [json.loads(a.calls)[0]["function"]["arguments"] for a in found] == [{"a": 1}, {"text": "hi"}]


def test_a_list_under_one_name_is_the_rows(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"data": ROWS}))
    assert read(tmp_path / "x.json") == ROWS
    (tmp_path / "x.json").write_text(json.dumps({"a": 1, "b": 2}))
    with pytest.raises(BadInput, match="holds no list"):
        read(tmp_path / "x.json")


def test_one_file_of_several_teachers_is_read_teacher_by_teacher(tmp_path: Path) -> None:
    """LARK's layout."""
    rows = [
        {"problem_id": 7, "candidate_id": c, "teacher": t, "messages": ROWS[0]["messages"]}
        for t in ("ann", "bob")
        for c in (0, 1)
    ]
    path = write_jsonl(tmp_path / "lark.jsonl", rows)
    found = read_teacher_files(str(path))
    assert [r.answer_id for r in found.rows] == ["ann/7/0", "ann/7/1", "bob/7/0", "bob/7/1"]
    with pytest.raises(BadInput, match=r"answers of several teachers; got ann, bob.*rows_of"):
        read_answers(path, Fields())
    own = read_answers(path, Fields(), rows_of="bob").answers
    assert [(a.question_id, a.sample) for a in own] == [("7", 0), ("7", 1)]
    with pytest.raises(BadInput, match="no row of cat; got ann, bob"):
        read_answers(path, Fields(), rows_of="cat")


def test_verls_rows_are_questions_with_their_ground_truth(tmp_path: Path) -> None:
    row = {"prompt": ROWS[0]["messages"][:1], "reward_model": {"style": "rule", "ground_truth": "3"}}
    pd.DataFrame([row]).to_parquet(tmp_path / "v.parquet")
    assert read_questions(tmp_path / "v.parquet", Fields()).questions[0].references == ("3",)


def test_a_question_whose_only_answer_calls_a_tool_has_no_reference(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "q.jsonl", ROWS[1:])
    with pytest.raises(BadInput, match="no reference answer"):
        read_questions(path, Fields())
    assert read_questions(path, Fields(), need_reference=False).questions[0].references == ()
