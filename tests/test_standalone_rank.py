"""`tutelage rank` and `tutelage.rank`: real files, a real student, and what people bring."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tutelage as front
from cluster.errors import BadInput
from tests.runs import tutelage

TEACHERS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.fixture(scope="module")
def answers(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden answers, one file a teacher, with references."""
    folder = tmp_path_factory.mktemp("answers")
    for file in sorted((golden / "candidates").glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        kept = [row for row in rows if row["id"] in {r["id"] for r in rows[:30]}]
        (folder / file.name).write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def ranked(golden: Path, answers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("ranking")
    done = tutelage(
        "rank", "--student", golden / "student", "--answers", answers, "--out", out, "--method", "numeric"
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_the_order_is_that_of_mean_scores_and_lies_in_every_file(
    ranked: tuple[Path, str], answers: Path, golden: Path
) -> None:
    out, said = ranked
    order = pd.read_csv(out / "order.csv")
    own = order[order["cost"] == "scas"]
    costs = front.score(str(golden / "student"), answers=answers)
    means = costs.groupby("teacher")["cost"].mean().sort_values()
    assert own["teacher"].tolist() == means.index.tolist()
    assert own["mean"].to_numpy() == pytest.approx(means.to_numpy(), rel=1e-4)
    kept = json.loads((out / "ranking.json").read_text())
    assert kept["questions"] == 30
    assert [row["teacher"] for row in kept["order"][: len(own)]] == own["teacher"].tolist()
    page = (out / "ranking.html").read_text()
    assert page.index(own["teacher"].iloc[0]) < page.index(own["teacher"].iloc[-1])
    assert "30 questions" in said


def test_a_second_ranking_needs_no_student(ranked: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = ranked
    done = tutelage(
        "rank", "--statistics", out / "statistics.parquet", "--out", tmp_path, "--cost", "naturalness"
    )
    assert done.returncode == 0, done.stderr
    first, second = (pd.read_csv(folder / "order.csv") for folder in (out, tmp_path))
    assert second["cost"].iloc[0] == "naturalness"
    for cost in set(first["cost"]):
        one, other = (t[t["cost"] == cost].reset_index(drop=True) for t in (first, second))
        pd.testing.assert_frame_equal(one, other)


def test_python_gives_the_same_and_says_what_speaks_against_it(
    ranked: tuple[Path, str], answers: Path, golden: Path, tiny_model: Path
) -> None:
    families = {t.stem: t.stem.split("_")[0] for t in answers.iterdir()}
    found = front.rank(
        str(golden / "student"), answers=answers, method="numeric", families=families, student_family="6b"
    )
    order = pd.read_csv(ranked[0] / "order.csv")
    assert found.primary["teacher"].tolist() == order[order["cost"] == "scas"]["teacher"].tolist()
    assert "other family" in set(found.order["cost"])
    assert any("own family (6b)" in line for line in found.warnings)
    models = {"6b_verification": str(golden / "student"), "6b_finetuning": str(tiny_model)}
    kin = front.rank(str(golden / "student"), answers=answers, teacher_models=models)
    told = [line for line in kin.warnings if "it may be of the student's family" in line]
    assert [line.partition(":")[0] for line in told] == [
        "6b_finetuning has the student's chat template",
        "6b_verification has the student's vocabulary and chat template",
    ]
    again = front.rank(None, answers=front.score(str(golden / "student"), answers=answers))
    assert any("no answer was checked" in line for line in again.warnings)


def test_questions_of_one_cluster_count_once_by_every_door(
    ranked: tuple[Path, str], answers: Path, golden: Path, tmp_path: Path
) -> None:
    """Thirty questions about ten passages: from a column of the answers, of the questions, and of a table."""
    scores = pd.read_parquet(ranked[0] / "statistics.parquet")
    ids = sorted(scores["question_id"].unique())
    passages = {q: f"p{k // 3}" for k, q in enumerate(ids)}
    own = front.rank(None, answers=scores.assign(cluster=scores["question_id"].map(passages)))
    assert own.questions == 10
    assert "30 questions in 10 clusters: each cluster counts as one question" in own.warnings
    costs = front.score(str(golden / "student"), answers=answers)
    by_passage = costs.groupby(["teacher", costs["question_id"].map(passages)])["cost"].mean()
    means = by_passage.groupby("teacher").mean().sort_values()
    assert own.primary["teacher"].tolist() == means.index.tolist()
    assert own.primary["mean"].to_numpy() == pytest.approx(means.to_numpy(), rel=1e-4)

    folder = tmp_path / "answers"
    folder.mkdir()
    questions = {}
    for file in answers.iterdir():
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        told = [row | {"about": {"passage": passages[str(row["id"])]}} for row in rows]
        (folder / file.name).write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
        questions |= {
            row["id"]: {"id": row["id"], "question": row["instruction"], "about": row["about"]}
            for row in told
        }
    beside = tmp_path / "questions.jsonl"
    beside.write_text("".join(json.dumps(row | {"answer": "1"}) + "\n" for row in questions.values()))
    for k, (where, more) in enumerate(((folder, ()), (answers, ("--questions", beside)))):
        named = ("--method", "numeric", "--cluster", "about.passage", *more)
        done = tutelage(
            *("rank", "--student", golden / "student", "--answers", where, "--out", tmp_path / f"{k}"), *named
        )
        assert done.returncode == 0, done.stderr
        assert "30 questions in 10 clusters" in done.stdout
        order = pd.read_csv(tmp_path / f"{k}" / "order.csv")
        found = order[order["cost"] == "scas"]["mean"].to_numpy()
        assert found == pytest.approx(own.primary["mean"].to_numpy(), rel=1e-4)
    wrong = tutelage(
        *("rank", "--student", golden / "student", "--answers", folder, "--out", tmp_path / "x"),
        *("--cluster", "about.pasage"),
    )
    assert wrong.returncode == 2
    assert "--cluster is in no row" in wrong.stderr


def test_further_measures_bring_their_costs_and_are_kept(answers: Path, golden: Path, tmp_path: Path) -> None:
    done = tutelage(
        *("rank", "--student", golden / "student", "--answers", answers, "--out", tmp_path / "one"),
        *("--measures", "steps, sentences,alone", "--cost", "aslec_drop", "--limit", "8"),
    )
    assert done.returncode == 0, done.stderr
    order = pd.read_csv(tmp_path / "one" / "order.csv")
    assert {"aslec_drop", "aslec_casl", "local_naturalness", "ifd"} <= set(order["cost"])
    kept = pd.read_parquet(tmp_path / "one" / "statistics.parquet")
    means = ((kept["answer_loss"] - kept["first_loss"]) / (kept["n_answer"] - kept["n_first"])).groupby(
        kept["teacher"]
    )
    own = order[order["cost"] == "aslec_drop"].set_index("teacher")["mean"]
    assert own.sort_index().to_numpy() == pytest.approx(means.mean().sort_index().to_numpy(), rel=1e-4)
    again = tutelage(
        *("rank", "--statistics", tmp_path / "one" / "statistics.parquet", "--out", tmp_path / "two"),
        *("--cost", "local_naturalness"),
    )
    assert again.returncode == 0, again.stderr


def test_an_answer_without_a_cost_costs_its_question_and_not_the_ranking(
    answers: Path, golden: Path, tmp_path: Path
) -> None:
    files = sorted(answers.iterdir())
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        if file == files[0]:
            lines[0] = json.dumps({**json.loads(lines[0]), "teacher_output": "word " * 5000})
        (tmp_path / file.name).write_text("\n".join(lines), encoding="utf-8")
    found = front.rank(str(golden / "student"), answers=tmp_path)
    assert found.questions == 29
    assert found.questions == 29
    whole = [line for line in found.warnings if line.startswith("only 29 of 30 questions")]
    assert whole[0].endswith(f"without {files[0].stem} it would be 30")
    assert found.teachers.set_index("teacher")["answered"].to_dict() == {
        file.stem: 29 if file == files[0] else 30 for file in files
    }
    assert f"answers of {files[0].stem} without a cost: 1 too_long, of 30" in found.warnings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--student", "S"), "got no answers"),
        (("--answers", "A"), "got no student"),
        (("--student", "S", "--answers", "A", "--family", "annqwen"), "TEACHER=NAME"),
        (("--student", "S", "--answers", "A", "--teacher-model", "nobody=S"), "model of a teacher"),
        (("--statistics", "ONE", "--teacher-model", "ann=S"), "no student to compare with"),
        (("--student", "S", "--answers", "A", "--family", "nobody=x"), "no answers; got nobody"),
        (("--student", "S", "--answers", "A", "--method", "guess"), "--method; got guess"),
        (("--student", "S", "--answers", "A", "--draws", "0"), "--draws; got 0"),
        (("--student", "S", "--answers", "A", "--seed", "-1"), "--seed; got -1"),
        (("--student", "S", "--answers", "A", "--cost", "grace"), "--cost; got grace"),
        (("--student", "S", "--answers", "A", "--cost", "ifd"), "--measures alone"),
        (("--student", "S", "--answers", "A", "--measures", "all"), "--measures; got all"),
        (("--student", "S", "--answers", "ONE"), "two teachers or more"),
        (("--statistics", "ONE"), "statistics"),
    ],
)
def test_bad_options_end_in_one_line(
    options: tuple[str, ...], said: str, answers: Path, golden: Path, tmp_path: Path
) -> None:
    one = next(answers.iterdir())
    given = {"S": golden / "student", "A": answers, "ONE": one}
    whole = [str(given.get(o, o)).replace("=S", f"={golden / 'student'}") for o in options]
    done = tutelage("rank", *whole, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_statistics_keep_their_students_name_and_options_that_do_nothing_are_refused(
    ranked: tuple[Path, str], golden: Path, tmp_path: Path
) -> None:
    known = ("--statistics", ranked[0] / "statistics.parquet", "--out", tmp_path / "out")
    done = tutelage("rank", *known)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "ranking.json").read_text())["student"] == str(golden / "student")
    for more in (("--student", "another"), ("--turns", "all"), ("--limit", "3"), ("--measures", "steps")):
        done = tutelage("rank", *known, *more)
        assert done.returncode == 2
        assert f"{more[0]}; got with --statistics" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "given",
    [
        {"questions": ["1?", "2?"], "answers": {"ann": ["1", "2"], "bob": ["1", "2"]}, "references": ["1"]},
        {"questions": ["1?"], "answers": {"ann": ["1"], "bob": ["1"]}, "references": "1"},
        {"answers": [{"id": "1", "question": "1?", "response": "1"}], "references": ["1"]},
    ],
)
def test_references_that_cannot_be_joined_by_place_are_refused(given: dict[str, Any], golden: Path) -> None:
    with pytest.raises(BadInput, match="references"):
        front.rank(str(golden / "student"), **given)


def test_a_teachers_name_cannot_write_into_the_page(golden: Path, tmp_path: Path) -> None:
    questions = [f"{k} + 1?" for k in range(6)]
    said: dict[str, Any] = {
        "<script>alert(1)</script>": [f"A: {k}" for k in range(6)],
        "=1+1": [f"The answer is {k}" for k in range(6)],
    }
    found = front.rank(str(golden / "student"), questions, said, references=list(range(6)), method="numeric")
    assert found.teachers.set_index("teacher")["right"].to_dict() == dict.fromkeys(said, 1.0)
    from cluster.storage import Place
    from jobs.report.ranking import write_ranking

    write_ranking(found, Place(str(tmp_path)))
    page = (tmp_path / "ranking.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(^|,)=1\+1", (tmp_path / "order.csv").read_text(), re.M)


def test_lists_of_teachers_without_a_common_question_are_refused(golden: Path) -> None:
    with pytest.raises(BadInput, match="no question that all teachers answered"):
        front.rank(str(golden / "student"), ["1?", "2?"], {"ann": ["A: 1", None], "bob": [None, "A: 2"]})


def test_trajectories_in_a_file_each_are_one_teachers_and_what_cannot_be_scored_says_why(
    golden: Path, tmp_path: Path
) -> None:
    """As SWE-agent (`.traj`) and ATIF (`trajectory.json`) write them."""
    for teacher, text in (("ann", "ls"), ("bob", "I list. ls")):
        for number in range(3):
            talk = [
                ("user", f"Mend {number}."),
                ("assistant", text),
                ("user", "f.py"),
                ("assistant", "submit"),
            ]
            turns = [{"role": role, "content": said, "agent": "main"} for role, said in talk]
            row = {"trajectory": [{"action": "ls"}], "history": turns, "info": {"exit_status": "submitted"}}
            place = tmp_path / "swe" / teacher / f"task{number}.traj"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(row, indent=1))
            call = {"tool_call_id": "c", "function_name": "ls", "arguments": {}}
            results = {"results": [{"source_call_id": "c", "content": ""}]}
            steps = [
                {"source": "user", "message": f"Mend {number}."},
                {"source": "agent", "message": text, "tool_calls": [call], "observation": results},
                {"source": "agent", "message": "Done"},
            ]
            place = tmp_path / "atif" / teacher / f"task{number}" / "trajectory.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps({"schema_version": "ATIF-v1.4", "steps": steps}, indent=1))
    student = ("--student", golden / "student", "--method", "none", "--turns", "all")
    done = tutelage("rank", *student, "--answers", tmp_path / "swe", "--out", tmp_path / "ranking")
    assert done.returncode == 0, done.stderr
    assert "6 answers of 2 teachers" in done.stdout
    refused = tutelage("rank", *student, "--answers", tmp_path / "atif", "--out", tmp_path / "other")
    assert refused.returncode == 2
    assert "ann, bob: 6 unrenderable; the template does not keep the answer's tool calls" in refused.stderr
