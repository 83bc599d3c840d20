"""Folders as people have them: whose each file is, and what nobody reads."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cluster.errors import BadInput
from jobs.experiment.questions import Fields
from jobs.files.layouts import read_teacher_files
from jobs.files.questions import read_questions
from jobs.files.rows import check_source, read_rows


def put(path: Path, *ids: str, **more: Any) -> None:
    """Answers, in the format of the file's name."""
    rows = [{"id": i, "instruction": f"What is {i}?", "teacher_output": f"A: {i}", **more} for i in ids]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(text) if path.suffix.lower() == ".gz" else text)


def teachers_in(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in read_teacher_files(str(folder)).rows:
        found.setdefault(row.teacher, []).append(row.question_id)
    return {name: sorted(ids) for name, ids in sorted(found.items())}


@pytest.mark.parametrize(
    ("files", "teachers"),
    [
        (["large.jsonl.gz", "small.jsonl"], ["large", "small"]),
        (["qwen-2.5.JSONL", "gpt-4.Json", "o1.ndjson", "x.PARQUET"], ["gpt-4", "o1", "qwen-2.5", "x"]),
        (["large/part-0.jsonl", "large/part-1.jsonl", "small/00000.parquet"], ["large", "small"]),
        (["large-00000-of-00002.parquet", "large-00001-of-00002.parquet"], ["large"]),
        (["part-0.jsonl", "part-1.jsonl"], ["pool"]),
        (["org/large/answers.jsonl", "org/small/answers.jsonl"], ["org/large", "org/small"]),
        (["teacher=large/a.jsonl", "teacher=small/b.jsonl"], ["large", "small"]),
        (["both/large.jsonl", "both/small.jsonl"], ["both/large", "both/small"]),
    ],
)
def test_files_are_named_after_their_teachers(tmp_path: Path, files: list[str], teachers: list[str]) -> None:
    for number, name in enumerate(files):
        put(tmp_path / "pool" / name, str(number))
    found = teachers_in(tmp_path / "pool")
    assert list(found) == teachers
    assert sorted(q for ids in found.values() for q in ids) == [str(n) for n in range(len(files))]


def test_rows_that_name_their_teacher_win_over_the_files_name(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "small.jsonl")
    ):
        put(tmp_path / name, str(number), teacher="large")
    put(tmp_path / "own.jsonl", "8", teacher=None)
    put(tmp_path / "other.jsonl", "9", teacher=float("nan"), teacher_name="")
    assert teachers_in(tmp_path) == {"large": ["0", "1", "2"], "other": ["9"], "own": ["8"]}
    notes = read_teacher_files(str(tmp_path)).notes
    assert sum("its rows name large, and win over its name" in line for line in notes) == 3


def test_what_nobody_reads_is_named(tmp_path: Path) -> None:
    put(tmp_path / "large.jsonl", "1")
    for name in (".DS_Store", "._large.jsonl", "_SUCCESS", "README.md", "small.csv", "old_scas_scores.jsonl"):
        (tmp_path / name).write_bytes(b"\0\1 no rows")
    put(tmp_path / ".cache" / "hidden.jsonl", "2")
    put(tmp_path / "_temporary" / "half.jsonl", "3")
    (tmp_path / "empty.jsonl").write_text("")
    read = read_teacher_files(str(tmp_path))
    assert [row.question_id for row in read.rows] == ["1"]
    (unread,) = [note for note in read.notes if note.startswith("not read in")]
    for name in (
        ".DS_Store",
        "._large.jsonl",
        "_SUCCESS",
        "README.md",
        "small.csv",
        ".cache/",
        "_temporary/",
    ):
        assert name in unread
    assert f"{tmp_path / 'empty.jsonl'} holds no rows" in read.notes
    (tmp_path / "large.jsonl").unlink()
    (tmp_path / "empty.jsonl").unlink()
    with pytest.raises(BadInput, match=r"no teacher files there.*small\.csv"):
        read_teacher_files(str(tmp_path))


def test_two_files_of_one_name_are_not_taken_for_two_samples(tmp_path: Path) -> None:
    put(tmp_path / "large.jsonl", "1")
    put(tmp_path / "large.jsonl.gz", "1")
    with pytest.raises(BadInput, match=r"two files of one name; got large\.jsonl, large\.jsonl\.gz"):
        read_teacher_files(str(tmp_path))


def test_a_folder_of_shards_is_one_source_and_one_of_splits_is_none(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "data" / f"train-0000{number}-of-00003.parquet", str(number), reference="3")
    (tmp_path / "data" / "README.md").write_text("about")
    assert [place for place, _ in read_rows(tmp_path / "data")][1] == "train-00001-of-00003.parquet line 1"
    found = read_questions(tmp_path / "data", Fields())
    assert [q.id for q in found.questions] == ["0", "1", "2"]
    assert found.notes == [f"not read in {tmp_path / 'data'}: README.md"]
    put(tmp_path / "data" / "test-00000-of-00001.parquet", "9")
    with pytest.raises(BadInput, match=r"no shards of one file.*test-00000.*name one file"):
        check_source(str(tmp_path / "data"), "questions")
