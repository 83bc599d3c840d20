"""Files and values as people have them. Each once gave a wrong result without a word, or a traceback."""

import bz2
import json
import lzma
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tutelage
from cluster.errors import BadInput
from jobs.experiment.questions import Fields
from jobs.files.answers import answer_and_references, read_answers
from jobs.files.folders import listing, teachers_of
from jobs.files.given import read_given
from jobs.files.layouts import answer_name, read_teacher_files
from jobs.files.questions import read_questions
from jobs.files.refusals import NotUnderstood
from jobs.files.rows import check_source, guess_rows, read_rows
from jobs.files.scores import scores_name
from jobs.files.selections import tell_dataset_info
from jobs.standalone.readings import joined_to, listed
from tests.conftest import write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:.*have no verdict")
ROWS = [{"id": k, "question": f"What is {k} + 1?", "response": f"A: {k + 1}"} for k in range(4)]
ASKED = {"role": "user", "content": "q"}
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def rows_in(path: Path, on_broken: Any = None) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path, on_broken)]


def verdicts(rows: Any, **options: Any) -> list[str]:
    found: list[str] = tutelage.verify(rows, **options)["verdict"].tolist()
    return found


@pytest.mark.parametrize(
    "row",
    [
        {"question": "What is 1 + 2?", "output": "One and two make 3. A: 3", "answer": "5"},
        {"instruction": "What is 1 + 2?", "input": "", "output": "One and two make 3. A: 3", "answer": "5"},
        {"question": "1 + 2?", "generation": "One and two make 3. A: 3", "solution": "5", "answer": "5"},
    ],
)
def test_the_gold_answer_is_not_taken_for_the_teachers(tmp_path: Path, row: dict[str, Any]) -> None:
    file = write_jsonl(tmp_path / "ann.jsonl", [row])
    (answer,) = read_answers(str(file), Fields()).answers
    assert answer.text == "One and two make 3. A: 3"
    assert answer_and_references(row, None, None) == ("One and two make 3. A: 3", ("5",))


@pytest.mark.parametrize(
    ("row", "named", "expected"),
    [
        ({"question": "1 + 2?", "output": "A: 99", "answer": "3"}, {"reference_field": "answer"}, "wrong"),
        ({"question": "1 + 2?", "answer": "A: 99"}, {"reference_field": "answer"}, "unparsed"),
        ({"instruction": "1 + 2?", "output": "A: 99"}, {"answer_field": "output"}, "unparsed"),
        ({"question": "1 + 2?", "answer": "A: 99"}, {"answer_field": "answer"}, "unparsed"),
        ({"question": "1 + 2?", "answer": "A: 3", "gold": "3"}, {"answer_field": "answer"}, "correct"),
        ({"messages": [ASKED, {"role": "assistant", "content": "A: 3"}], "answer": "3"}, {}, "correct"),
    ],
)  # fmt: skip
def test_a_reference_is_never_compared_with_itself(
    row: dict[str, Any], named: dict[str, str], expected: str
) -> None:
    others = {"question": "2?", "response": "A: 2", "reference": "2", "output": "A: 2", "answer": "2"}
    if "messages" in row:
        others = row
    found = tutelage.verify([row, others], **named)  # type: ignore[arg-type]
    assert found["verdict"].iloc[0] == expected


def test_references_of_a_file_are_joined_by_text_and_never_to_another_text(tmp_path: Path) -> None:
    answers = [
        {"id": 1, "question": "What is 1 + 2?", "response": "A: 3", "teacher": "ann"},
        {"id": 2, "question": "What is 2 + 2?", "response": "A: 4", "teacher": "bob"},
        {"question": "What is 3 + 2?", "response": "A: 5", "teacher": "bob"},
    ]
    questions = [
        {"id": 1, "question": "What is 2 + 2?", "answer": "4"},
        {"id": 2, "question": "What is 2 + 2? ", "answer": "4"},
        {"id": "q3", "question": "What is 3 + 2?", "answer": "5"},
    ]
    file = write_jsonl(tmp_path / "q.jsonl", questions)
    found = read_given(None, answers)
    joined, told = joined_to(found, read_questions(file, Fields()).questions)
    known = {name: () if own is None else own.references for name, own in joined.items()}
    by = {row.prompt.text: known.get(row.question_id) for row in found.rows}
    assert by == {"What is 1 + 2?": (), "What is 2 + 2?": ("4",), "What is 3 + 2?": ("5",)}
    assert "1 questions have another text under the same id" in told


def test_listed_references_are_read_as_verify_reads_them() -> None:
    given = [3, np.nan, 3.0, np.array(["3"]), ["4", None], {"a": 1}, None, {"5"}]
    assert list(listed(given).values()) == [("3",), (), ("3",), ("3",), ("4",), (), (), ("5",)]
    assert verdicts(["A: 5", "A: 7"], references=[{"5", "6"}, pd.NaT]) == ["correct", "unparsed"]


def test_no_two_answers_share_an_id(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "large.jsonl", [{"id": "math/1", "question": "a?", "response": "first"}])
    write_jsonl(tmp_path / "large/math.jsonl", [{"id": "1", "question": "b?", "response": "second"}])
    write_jsonl(tmp_path / "large/code.jsonl", [{"id": "2", "question": "c?", "response": "third"}])
    found = read_teacher_files(str(tmp_path))
    assert len({row.answer_id for row in found.rows}) == 3
    assert {found.sources[row.answer_id]["response"] for row in found.rows} == {"first", "second", "third"}
    names = [answer_name(*n) for n in (("a", "b/c", 0), ("a/b", "c", 0), ("a%2Fb", "c", 0), ("a", "b", 0))]
    assert len(set(names)) == 4
    assert names[-1] == "a/b/0"


def test_a_file_of_questions_among_teachers_is_told(tmp_path: Path) -> None:
    """Its column with the right results looks like answers."""
    write_jsonl(tmp_path / "ann.jsonl", ROWS)
    write_jsonl(tmp_path / "Questions.jsonl", [{"question": r["question"], "answer": "4"} for r in ROWS])
    notes = read_teacher_files(str(tmp_path)).notes
    (told,) = [note for note in notes if "keep it elsewhere" in note]
    assert "Questions.jsonl is read as the answers of a teacher Questions" in told
    (tmp_path / "ann.jsonl").unlink()
    assert not any("keep it elsewhere" in note for note in read_teacher_files(str(tmp_path)).notes)


def test_folders_behind_links_are_read_and_loops_end(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    write_jsonl(pool / "ann.jsonl", ROWS)
    write_jsonl(tmp_path / "real/cat/part-0.jsonl", ROWS)
    (pool / "cat").symlink_to(tmp_path / "real/cat")
    (pool / "loop").symlink_to(pool)
    (pool / "deep").mkdir()
    (pool / "deep" / "up").symlink_to(pool)
    found = listing(pool)
    assert {teacher for _, teacher in teachers_of(found)} == {"ann", "cat"}
    assert "loop/" in found.unread


def test_options_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    import datasets

    file = write_jsonl(tmp_path / "x.jsonl", ROWS)
    write_jsonl(tmp_path / "shards/part-0.jsonl", ROWS)
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "two"))
    for where in (f"{file}?split=test", f"{file}?foo=1", f"{tmp_path}/shards?split=test"):
        with pytest.raises(BadInput, match="no splits"):
            rows_in(Path(where))
        with pytest.raises(BadInput, match="no splits"):
            check_source(where, "answers")
    for name in ("one", "two"):
        with pytest.raises(BadInput, match="has no split test"):
            rows_in(Path(f"{tmp_path}/{name}?split=test"))
    assert len(rows_in(Path(f"{tmp_path}/two?split=train"))) == 4


@pytest.mark.parametrize("method", ["exact", "math"])
@pytest.mark.parametrize("word", ["Zürich", "café", "Hà Nội", "São Paulo", "한국", "が"])
def test_letters_are_the_same_in_one_sign_and_in_two(method: str, word: str) -> None:
    import unicodedata

    apart = unicodedata.normalize("NFD", word)
    assert apart != unicodedata.normalize("NFC", word)
    for one, other in ((apart, word), (word, apart)):
        assert verdicts([{"response": f"A: {one}", "reference": other}], method=method) == ["correct"]


@pytest.mark.parametrize("kind", ["parquet", "frame", "numpy"])
@pytest.mark.parametrize("narrow", [np.float32, np.float16])
def test_narrow_floats_have_their_shortest_decimals(tmp_path: Path, kind: str, narrow: Any) -> None:
    values = np.array([0.1, 2.5], dtype=narrow)
    answers = ["A: 0.1", "A: 2.5"]
    if kind == "numpy":
        assert verdicts(answers, references=values, method="numeric") == ["correct", "correct"]
        return
    given: Any = pd.DataFrame({"response": answers, "reference": values})
    if kind == "parquet":
        columns = {"response": answers, "reference": pa.array(values), "more": [[narrow(0.1)], None]}
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        given = tmp_path / "a.parquet"
        assert rows_in(given)[0]["more"] == [0.1]
    assert verdicts(given, method="numeric") == ["correct", "correct"]


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress], ids=["bz2", "xz"])
def test_what_follows_a_packed_stream_is_read_or_refused(tmp_path: Path, pack: Any) -> None:
    file = tmp_path / "a.jsonl.packed"
    for good in (
        pack(LINES),
        pack(LINES) + pack(LINES),
        pack(LINES) + b"\0" * 64 + pack(LINES),
        pack(b"") + pack(LINES),
    ):
        file.write_bytes(good)
        assert len(rows_in(file)) in (4, 8)
        file.write_bytes(good + b"\0" * 512)
        assert len(rows_in(file)) in (4, 8)
    damaged = bytearray(pack(LINES))
    damaged[1] ^= 1
    for bad in (pack(LINES) + LINES, pack(LINES) + bytes(damaged), pack(LINES)[:-9], (pack(LINES) * 2)[:-9]):
        file.write_bytes(bad)
        with pytest.raises(BadInput, match="cannot be read"):
            rows_in(file)


def test_frames_that_zstd_programs_begin_with_are_skipped(tmp_path: Path) -> None:
    packed = pa.compress(LINES, codec="zstd", asbytes=True)
    (tmp_path / "a.jsonl.zst").write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + packed)
    assert len(rows_in(tmp_path / "a.jsonl.zst")) == 4
    (tmp_path / "a.jsonl.lzma").write_bytes(lzma.compress(LINES, format=lzma.FORMAT_ALONE))
    assert len(rows_in(tmp_path / "a.jsonl.lzma")) == 4


@pytest.mark.parametrize(
    ("text", "kept", "lines"),
    [
        ('{\n "id": 1\n}\n{\n "id": 2,\n "question":\n}\n{\n "id": 3\n}\n{\n "id": 4\n}\n', [1, 3, 4], [4]),
        ('{"id": 1}{"id": 7, "question":\n{"id": 2}\n{"id": 3}\n', [1, 2, 3], [1]),
        ('[{"id": 1}, {"id": 2}]\n{"id": \n{"id": 3}\n', [1, 2, 3], [2]),
        ('[{"id": 1}]\n{"id": \n{"id": 3}\n{broken\n[{"id": 4}]', [1, 3, 4], [2, 4]),
    ],
)
def test_rows_behind_a_broken_one_are_kept(
    tmp_path: Path, text: str, kept: list[int], lines: list[int]
) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    told: list[str] = []
    assert [row["id"] for row in rows_in(tmp_path / "a.jsonl", told.append)] == kept
    assert len(told) == len(lines)
    for line, number in zip(told, lines, strict=True):
        assert f"line {number}:" in line
    with pytest.raises(BadInput, match="is broken"):
        rows_in(tmp_path / "a.jsonl")


def test_questions_without_ids_are_those_with_the_same_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "ann.jsonl", [{"question": "What is 1 + 2?", "response": "A: 3"}])
    write_jsonl(tmp_path / "bob.jsonl", [{"question": "What is 1 + 2?\n", "response": "A: 4"}])
    write_jsonl(tmp_path / "cat.jsonl", [{"id": "q1", "question": "What is 1 + 2?", "response": "A: 5"}])
    rows = read_teacher_files(str(tmp_path)).rows
    assert {row.question_id for row in rows} == {"q1"}
    row = {"id": "ann-1", "question_id": "q1", "question": "a?", "response": "b"}
    assert read_given(None, [row]).rows[0].question_id == "q1"


def test_the_limit_is_of_questions_and_the_same_for_all_teachers(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "ann.jsonl", ROWS[:2])
    write_jsonl(tmp_path / "bob.jsonl", ROWS[1::-1])
    rows = read_teacher_files(str(tmp_path), limit=1).rows
    assert [(row.teacher, row.question_id) for row in rows] == [("ann", "0"), ("bob", "0")]


def test_frames_keep_their_values_and_their_index() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    other = {"id": "d", "type": "function", "function": {"name": "f", "arguments": {"a": 2.5}}}
    ask = {"role": "user", "content": "q"}
    turns = [[ask, {"role": "assistant", "content": "", "tool_calls": [one]}] for one in (call, other)]
    frame = pd.DataFrame({"id": ["1", "2"], "messages": turns})
    listed_calls = [r.calls for r in read_given(None, frame.to_dict("records")).rows]
    assert [r.calls for r in read_given(None, frame).rows] == listed_calls
    assert '"a": 1}' in listed_calls[0].replace("\\", "")

    made = pd.DataFrame(
        {"id": [1, 2, 3, 4], "response": ["A: 1", "A: 9", "A: 3", "A: 4"], "reference": [1, 2, 3, 4]}
    )
    part = made[made["id"] != 1].copy()
    part["verdict"] = tutelage.verify(part)["verdict"]
    assert part["verdict"].tolist() == ["wrong", "correct", "correct"]
    series = tutelage.verify(part["response"], part["reference"])["verdict"]
    assert series.index.equals(part.index)
    odd = pd.Series(["A: 5", "A: 5\ud800"], dtype=object)
    large = pd.DataFrame({"response": odd, "reference": [2**70, 5]})
    assert verdicts(large, method="numeric") == ["wrong", "correct"]
    double = pd.DataFrame([["A: 1", "A: 2", "1"]], columns=["response", "response", "reference"])
    with pytest.raises(BadInput, match="two columns of one name"):
        tutelage.verify(double)


def test_an_earlier_verdict_leaves_nothing_behind() -> None:
    row = {"response": "A: 3", "reference": "3", "reason": "stale", "verdict": "wrong", "extracted": "7"}
    found = tutelage.verify([row]).iloc[0]
    assert (found["verdict"], found["extracted"], found["reason"]) == ("correct", "3", "")


def test_an_empty_list_of_answers_has_its_row() -> None:
    found = tutelage.verify([["A: 1", "A: 2"], [], ["A: 3"]], ["1", "2", "3"])
    assert found["question_id"].tolist() == ["0", "0", "1", "2"]
    assert found["verdict"].tolist() == ["correct", "wrong", "unparsed", "correct"]


@pytest.mark.parametrize("content", [
    LINES.decode().encode("utf-16")[:-3],
    LINES.decode().encode("utf-16-le") + b"\n",
    b"\0" * 4096 + LINES,
])  # fmt: skip
def test_texts_of_a_broken_encoding_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    for on_broken in (None, lambda line: None):
        with pytest.raises(BadInput, match=r"a\.jsonl cannot be read"):
            rows_in(tmp_path / "a.jsonl", on_broken)


def test_a_file_is_what_its_bytes_say_and_times_beyond_python_are_texts(tmp_path: Path) -> None:
    (tmp_path / "ann.parquet").write_bytes(LINES)
    assert guess_rows(str(tmp_path / "ann.parquet")) >= 0
    assert len(rows_in(tmp_path / "ann.parquet")) == 4
    far = pa.array([253402300800, None], pa.timestamp("s"))
    odd = pa.array([0, 1], pa.timestamp("s", tz="Mars/Olympus"))
    table = pa.table({"response": ["A: 1", "A: 2"], "at": far, "zone": odd})
    pq.write_table(table, tmp_path / "far.parquet")
    assert [row["response"] for row in rows_in(tmp_path / "far.parquet")] == ["A: 1", "A: 2"]


def test_names_of_teachers_that_no_file_can_have(tmp_path: Path) -> None:
    for teacher in ("教师模型" * 20, "a" * 300, "a/b", "ann"):
        (tmp_path / scores_name(teacher)).write_text("")
    assert scores_name("ann") == "ann_scas_scores.jsonl"
    assert scores_name("a" * 300) != scores_name("a" * 301)
    raw = os.fsencode(str(tmp_path)) + b"/pool"
    os.mkdir(raw)
    for name in (b"bad\xff.jsonl", b"ok.jsonl"):
        with open(raw + b"/" + name, "wb") as file:
            file.write(LINES)
    rows = read_teacher_files(str(tmp_path / "pool")).rows
    assert len({row.teacher for row in rows}) == 2
    for row in rows:
        row.teacher.encode()


@pytest.mark.parametrize("content", ["[]", "{broken", '{"a": 1,}'])
def test_a_users_own_dataset_info_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(BadInput, match=r"dataset_info\.json"):
        tell_dataset_info(tmp_path / "x.jsonl", {})
    (tmp_path / "dataset_info.json").write_bytes(b"\xef\xbb\xbf{}")
    tell_dataset_info(tmp_path / "x.jsonl", {})
    assert "x" in json.loads((tmp_path / "dataset_info.json").read_text())


def test_the_tables_of_a_ranking_are_no_teachers_and_hidden_files_are_named_last(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "ann.jsonl", ROWS)
    (tmp_path / "ranking").mkdir()
    (tmp_path / "ranking" / "ranking.json").write_text("{}")
    pd.DataFrame(ROWS).to_parquet(tmp_path / "ranking" / "statistics.parquet")
    for k in range(9):
        (tmp_path / f"._a{k}.jsonl").write_bytes(b"\0")
    (tmp_path / "zoe.gz").write_bytes(b"")
    found = listing(tmp_path)
    assert [teacher for _, teacher in teachers_of(found)] == ["ann"]
    assert "zoe.gz" in found.unread
    assert "ranking/" in found.unread


def test_one_answer_that_is_not_understood_costs_one_row() -> None:
    with pytest.raises(NotUnderstood):
        answer_and_references({"response": "A: 3", "reference": {"a": 1}}, None, None)


def test_a_tilde_is_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jsonl(tmp_path / "pool" / "ann.jsonl", ROWS)
    assert len(read_teacher_files("~/pool").rows) == 4
    assert len(rows_in(Path("~/pool/ann.jsonl"))) == 4
    check_source("~/pool/ann.jsonl", "questions")
    assert len(read_questions("~/pool/ann.jsonl", Fields(), need_reference=False).questions) == 4
