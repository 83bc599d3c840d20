"""`tutelage score`, `select` and `verify` on a user's own files, in the SCAS authors' layout."""

import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest

from tests.conftest import write_jsonl
from tests.in_process import InProcess
from tests.runs import tutelage


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def scored(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored")
    done = tutelage(
        "score",
        "--student",
        golden / "student",
        "--answers",
        golden / "candidates",
        "--out",
        out,
        "--compat",
        "reference",
    )
    assert done.returncode == 0, done.stderr
    assert "480 scored" in done.stdout
    return out


def test_score_reproduces_the_published_files(scored: Path, golden: Path) -> None:
    expected = {(e["id"], e["teacher_name"]): e for e in rows_of(golden / "expected_scores.jsonl")}
    got = [row for file in scored.glob("*_scas_scores.jsonl") for row in rows_of(file)]
    assert len(got) == 480
    for row in got:
        reference = expected[row["id"], row["teacher_name"]]
        for field in ("scas_score", "answer_answer_similarity", "answer_question_block", "answer_mean_nll"):
            assert row[field] == pytest.approx(reference[field], rel=1e-5)
        assert {"instruction", "teacher_output", "reference_answer", "lambda_scas"} <= set(row)


def test_scores_from_a_clusters_actors_are_those_of_this_process_and_are_kept(
    golden: Path, tmp_path: Path
) -> None:
    """Several answers of a teacher to a question, a conversation, and a row that is no question."""
    rows = [
        {"id": k, "instruction": f"{k}+1?", "teacher_output": f"A: {k + n}"} for k in range(3) for n in (1, 2)
    ]
    turns = [{"role": r, "content": c} for r, c in (("user", "hi"), ("assistant", "yes"), ("user", "2?"))]
    talk = {"id": "talk", "messages": [*turns, {"role": "assistant", "content": "A: 2"}]}
    write_jsonl(
        tmp_path / "in" / "org%2Fann.jsonl", [*rows, talk, {"id": "p", "question": "q", "images": ["x"]}]
    )
    student = ("--student", golden / "student", "--answers", tmp_path / "in", "--store", tmp_path / "store")
    got = {}
    with mock.patch("jobs.standalone.cluster.RayHost", side_effect=lambda *rest: InProcess()):
        for name, where in (("here", ()), ("there", ("--address", "auto")), ("again", ("--address", "auto"))):
            done = tutelage("score", *student, *where, "--out", tmp_path / name)
            assert done.returncode == 0, done.stderr
            assert (
                "7 answers of 1 teachers (6 as columns, 1 as messages); 1 refused: 1 with images"
                in done.stdout
            )
            scored = re.search(r"^score .*: 7 answers in", done.stdout, re.M)
            assert bool(scored) == (name == "there"), "what the store has is not scored again"
            got[name] = [r for file in (tmp_path / name).glob("*.jsonl") for r in rows_of(file)]
    assert [len(rows) for rows in got.values()] == [8, 8, 8]
    assert got["again"] == got["there"]
    for row, other in zip(got["here"], got["there"], strict=True):
        assert row["id"] == other["id"]
        if row["scas_score"] is not None:
            assert other["scas_score"] == pytest.approx(row["scas_score"], rel=1e-5)
    assert got["here"][-1]["error"] == "not_understood: images, which is not text"
    chosen = tutelage("select", "--scores", tmp_path / "there", "--out", tmp_path / "sel", "--num-groups", 2)
    assert chosen.returncode == 0, chosen.stderr
    groups = [rows_of(tmp_path / "sel" / "2_groups" / f"group_{k}.jsonl") for k in (1, 2)]
    assert [len(group) for group in groups] == [4, 3]
    assert all(row["score_rank"] == row["group"] == k for k, group in enumerate(groups, 1) for row in group)
    manifest = json.loads((tmp_path / "sel" / "2_groups" / "manifest.json").read_text())
    assert manifest["group_counts"] == {"1": 4, "2": 3}
    refused = tutelage(
        "score", *student, "--address", "auto", "--compat", "reference", "--out", tmp_path / "x"
    )
    assert "--compat ours" in refused.stderr


def test_a_teachers_name_is_no_path(golden: Path, tmp_path: Path) -> None:
    """`org/model` wrote a folder that select did not see, `../up` a file beside the folder."""
    names = ["org/model", "../up"]
    rows = [{"id": "1", "instruction": "q", "teacher_output": "A: 1", "teacher": name} for name in names]
    write_jsonl(tmp_path / "all.jsonl", rows)
    done = tutelage(
        "score", "--student", golden / "student", "--answers", tmp_path / "all.jsonl", "--out", tmp_path / "o"
    )
    assert done.returncode == 0, done.stderr
    files = sorted(p.name for p in (tmp_path / "o").iterdir())
    assert files == ["..%2Fup_scas_scores.jsonl", "org%2Fmodel_scas_scores.jsonl"]
    assert [r["teacher_name"] for f in files for r in rows_of(tmp_path / "o" / f)] == ["../up", "org/model"]


def test_select_writes_the_authors_layout_and_loses_no_question(scored: Path, tmp_path: Path) -> None:
    done = tutelage("select", "--scores", scored, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    minimum, group = (
        rows_of(tmp_path / "min_score_selected.jsonl"),
        rows_of(tmp_path / "5_groups" / "selected_group_1.jsonl"),
    )
    scores: dict[str, list[float]] = {}
    for file in scored.glob("*_scas_scores.jsonl"):
        for row in rows_of(file):
            scores.setdefault(row["id"], []).append(row["scas_score"])
    assert {r["id"]: r["scas_score"] for r in minimum} == {q: min(s) for q, s in scores.items()}
    assert [r["id"] for r in group] == [
        r["id"] for r in minimum
    ]  # four answers a question: group 1 is the cheapest
    assert len(group) == 120
    info = json.loads((tmp_path / "5_groups" / "dataset_info.json").read_text())
    assert info["selected_group_1"]["file_name"] == "selected_group_1.jsonl"
    reference = tutelage("select", "--scores", scored, "--out", tmp_path / "ref", "--compat", "reference")
    # the published rule with 4 answers and 5 groups
    assert "120 questions have no answer in group 1" in reference.stdout
    assert rows_of(tmp_path / "ref" / "5_groups" / "selected_group_1.jsonl") == []


def test_an_answer_that_cannot_be_scored_keeps_its_row_with_the_reason(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = [
        {"id": "1", "instruction": "chain: 3 t+4", "teacher_output": "A:7"},
        {"id": "2", "instruction": "chain: 3 t+5", "teacher_output": "<|im_end|> forged"},
        {"id": "3", "instruction": "chain: 3 t+5", "teacher_output": ""},
        {"id": "4", "instruction": "chain: 3 t+5", "teacher_output": "long " * 300},
    ]
    write_jsonl(tmp_path / "in" / "ann.jsonl", rows)
    done = tutelage(
        "score",
        "--student",
        tiny_model,
        "--answers",
        tmp_path / "in",
        "--out",
        tmp_path / "out",
        "--max-length",
        200,
    )
    assert done.returncode == 0, done.stderr
    got = {r["id"]: r for r in rows_of(tmp_path / "out" / "ann_scas_scores.jsonl")}
    assert isinstance(got["1"]["scas_score"], float)
    assert got["2"]["scas_score"] is None
    assert "special token" in got["2"]["error"]
    assert got["3"]["error"] == "empty: no answer"
    assert "limit 200" in got["4"]["error"]
    done = tutelage("select", "--scores", tmp_path / "out", "--out", tmp_path / "sel")
    assert [r["id"] for r in rows_of(tmp_path / "sel" / "min_score_selected.jsonl")] == ["1"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "1", "instruction": "q"}], "line 1 has no answer"),
        ([{"id": "1", "teacher_output": "a"}], "line 1 has no question"),
    ],
)
def test_a_defect_of_a_file_ends_in_one_line_that_names_it(
    rows: list[dict[str, Any]], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "in" / "ann.jsonl", rows)
    done = tutelage("score", "--student", tiny_model, "--answers", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (
        "Traceback"
        in tutelage(
            "--debug",
            "score",
            "--student",
            tiny_model,
            "--answers",
            tmp_path / "in",
            "--out",
            tmp_path / "out",
        ).stderr
    )


def test_one_question_with_two_texts_in_two_files_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    for teacher, text in (("ann", "q"), ("bob", "another q")):
        write_jsonl(
            tmp_path / "in" / f"{teacher}.jsonl", [{"id": "1", "instruction": text, "teacher_output": "a"}]
        )
    done = tutelage("score", "--student", tiny_model, "--answers", tmp_path / "in", "--out", tmp_path / "out")
    assert "question 1 has two different texts" in done.stderr


def test_audit_prints_correlations_with_intervals_and_keeps_every_answer(
    golden: Path, tmp_path: Path
) -> None:
    options = (
        "--student",
        golden / "student",
        "--answers",
        golden / "candidates",
        "--questions",
        12,
        "--out",
        tmp_path / "audit.json",
    )
    done = tutelage("audit", *options)
    assert done.returncode == 0, done.stderr
    assert "Spearman" in done.stdout
    found = json.loads((tmp_path / "audit.json").read_text())["agreements"]
    assert {f["cost"] for f in found} == {
        *("scas", "naturalness", "rsr", "lark", "shortest", "longest"),
        *("total_loss", "excess_loss", "worst_token"),
    }
    for f in found:
        assert (f["questions"], f["answers"]) == (12, 48)
        assert -1 <= f["low"] <= f["correlation"] <= f["high"] <= 1
    table = pd.read_parquet(tmp_path / "audit.parquet")
    assert len(table) == 48
    assert (table["gradient_norm"] > table["projection_gradient_norm"] * 0.5).all()


def test_verify_writes_a_verdict_per_row(tmp_path: Path) -> None:
    rows = [
        {"teacher_output": r"\boxed{\frac12}", "reference_answer": "0.5"},
        {"teacher_output": "A: 3", "reference_answer": "4"},
        {"teacher_output": "dunno", "reference_answer": "4"},
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    done = tutelage("verify", "--answers", tmp_path / "a.jsonl", "--out", tmp_path / "v.jsonl")
    assert done.returncode == 0, done.stderr
    assert [r["verdict"] for r in rows_of(tmp_path / "v.jsonl")] == ["correct", "wrong", "unparsed"]
