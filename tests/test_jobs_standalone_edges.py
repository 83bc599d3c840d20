"""Stages alone at their edges: files that hold nothing, and columns of the user's own that have our names."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BadInput
from jobs.files.refusals import NotUnderstood, told_of
from jobs.files.turns import turns_of
from jobs.files.values import is_nothing, whole
from jobs.standalone.select import SelectOptions, select_from_files
from jobs.standalone.verify import VerifyOptions, verify_file


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("a.jsonl", "\n \n"), ("a.json", "[]"), ("a.json", "")]
)
def test_a_file_without_rows_is_refused_and_writes_nothing(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    out = tmp_path / "out.jsonl"
    options = VerifyOptions(tmp_path / name, out, "math", None, None, None, None, 5.0, False)
    with pytest.raises(BadInput, match="holds no rows"):
        verify_file(options)
    assert not out.exists()


def test_json_lines_get_no_other_formats_name(tmp_path: Path) -> None:
    answers = lines(tmp_path / "a.jsonl", [{"response": "A: 3", "reference": "3"}])
    out = tmp_path / "out.Parquet"
    with pytest.raises(BadInput, match="JSON lines"):
        verify_file(VerifyOptions(answers, out, "math", None, None, None, None, 5.0, False))
    assert not out.exists()


@pytest.mark.parametrize("mark", ["weight", "train", "trainable", "training", "loss_mask", "loss"])
def test_a_turn_that_nobody_is_to_learn_is_refused(mark: str) -> None:
    turns = [{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": "A: 3"}]
    assert turns_of({"messages": turns}).answer is not None
    with pytest.raises(NotUnderstood, match=mark):
        turns_of({"messages": [turns[0], turns[1] | {mark: False}]})


def select(tmp_path: Path) -> list[dict[str, Any]]:
    select_from_files(SelectOptions(tmp_path, tmp_path / "out", "scas_score", 5, 1, 0, "ours"))
    text = (tmp_path / "out" / "min_score_selected.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_scores_of_which_none_is_one_are_refused(tmp_path: Path) -> None:
    lines(tmp_path / "a_scas_scores.jsonl", [{"id": "1", "scas_score": None, "error": "empty: no answer"}])
    with pytest.raises(BadInput, match="no row has a score"):
        select(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_column_error_of_the_users_own_hides_no_score(tmp_path: Path) -> None:
    row = {"id": "1", "instruction": "1 + 2?", "teacher_output": "A: 3"}
    lines(tmp_path / "a_scas_scores.jsonl", [{**row, "scas_score": 1.0, "error": "slow"}])
    lines(tmp_path / "b_scas_scores.jsonl", [{**row, "scas_score": 2.0}])
    assert [chosen["selected_score"] for chosen in select(tmp_path)] == [1.0]


def test_two_questions_under_one_id_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "1", "instruction": "1 + 2?", "teacher_output": "A: 3", "scas_score": 2.0}
    lines(tmp_path / "a_scas_scores.jsonl", [row])
    lines(tmp_path / "b_scas_scores.jsonl", [row | {"instruction": "3 + 4?", "scas_score": 1.0}])
    lines(tmp_path / "c_scas_scores.jsonl", [row | {"instruction": "1  + 2?", "scas_score": 1.5}])
    assert [chosen["selected_score"] for chosen in select(tmp_path)] == [1.5]
    assert "left out 1 rows" in " ".join(capsys.readouterr().out.split())


def test_numbers_without_end_are_nothing_and_numbers_are_text_in_every_column() -> None:
    assert is_nothing(whole(float("inf")))
    assert is_nothing(whole(float("-inf")))
    for row in ({"instruction": 10, "output": "A: 7"}, {"question": 10.0, "answer": "A: 7"}):
        assert asked(row) == "10"
    assert asked({"instruction": "Double it.", "input": 5, "output": "A: 10"}) == "Double it.\n5"


def asked(row: dict[str, Any]) -> str:
    prompt = turns_of(row).prompt
    assert prompt is not None
    return prompt.turns[-1].content


def test_reasons_that_are_not_named_are_counted() -> None:
    from collections import Counter

    reasons = Counter({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1})
    assert told_of(reasons) == "; 15 refused: 5 with a; 4 with b; 3 with c; 3 with 2 other reasons"
