"""A row's defect costs that row, at every door: it is counted with its reason, and the first are named."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cluster.errors import BadInput
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.questions import Fields
from jobs.files.answers import answer_and_references, read_answers
from jobs.files.layouts import read_teacher_files
from jobs.files.questions import read_questions
from jobs.files.refusals import Missing, NotUnderstood
from jobs.files.scores import read_scores
from jobs.files.turns import turns_of
from jobs.pipeline import load_questions
from jobs.results.ledger import run_ledger
from tests.conftest import write_jsonl
from tests.runs import run, tutelage

NAN = float("nan")
NOTHING: list[Any] = [None, NAN, "", " \n\t", []]
GOOD = {"id": "good", "instruction": "What is good?", "teacher_output": "A: this"}
ASKED = {"role": "user", "content": "1 + 2?"}


def said(content: Any = "A: 3", **more: Any) -> list[dict[str, Any]]:
    return [ASKED, {"role": "assistant", "content": content, **more}]


def written(tmp_path: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The rows as JSON lines and, where Arrow holds them, as Parquet."""
    paths = [write_jsonl(tmp_path / "a.jsonl", rows)]
    try:
        pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
        paths.append(tmp_path / "a.parquet")
    except (ValueError, TypeError):  # a column of several types
        pass
    return paths


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_nothing_in_any_spelling_is_no_answer_no_question_no_id_and_no_reference(
    tmp_path: Path, nothing: Any
) -> None:
    rows = [GOOD, {**GOOD, "id": "bad", "teacher_output": nothing, "answer": "the reference"}]
    for path in written(tmp_path, rows):
        read = read_teacher_files(str(path))
        assert [(r.question_id, r.answer) for r in read.rows] == [("good", "A: this")]
        assert read.notes == [f"left out {path} line 2 (bad): no answer"]
        assert str(read).endswith("; 1 refused: 1 with no answer")
        assert [a.problem for a in read_answers(path, Fields()).answers] == ["", "no answer"]
    asked = [{"question": "1?", "answer": "1"}, {"question": nothing, "answer": "2"}]
    asked += [{"id": nothing, "question": "3?", "answer": "3"}, {"question": "4?", "answer": nothing}]
    for path in written(tmp_path, asked):
        found = read_questions(path, Fields())
        assert [q.text for q in found.questions] == ["1?", "3?"]
        assert [(r.id, r.reason) for r in found.refused] == [
            ("line 2", "no question"),
            ("line 4", "no reference answer"),
        ]
        assert len({q.id for q in found.questions}) == 2


def test_the_command_ends_where_no_row_has_the_column(tmp_path: Path) -> None:
    bad = {name: GOOD[name] for name in ("id", "instruction")}
    with pytest.raises(BadInput, match=r"line 1 has no answer; got id, instruction"):
        read_teacher_files(str(write_jsonl(tmp_path / "a.jsonl", [bad, bad])))
    with pytest.raises(BadInput, match=r"line 1 has no answer"):
        read_answers(tmp_path / "a.jsonl", Fields())
    with pytest.raises(BadInput, match=r"line 1 has no reference answer"):
        read_questions(tmp_path / "a.jsonl", Fields())
    write_jsonl(tmp_path / "a.jsonl", [bad, GOOD])
    assert len(read_teacher_files(str(tmp_path / "a.jsonl")).rows) == 1


@pytest.mark.parametrize("one", [1, 1.0, "1"])
def test_one_id_is_one_question_whatever_its_type(tmp_path: Path, one: Any) -> None:
    rows = [{"id": i, "question": "1?", "answer": a} for i, a in ((one, 5), ("1", 5.0), (1.0, "5"))]
    found = read_questions(write_jsonl(tmp_path / "q.jsonl", rows), Fields())
    assert [(q.id, q.references) for q in found.questions] == [("1", ("5",))]
    assert [r.state for r in found.refused] == ["duplicate"] * 2
    assert ", 2 more that repeat one of them" in str(found)
    read = read_answers(write_jsonl(tmp_path / "t.jsonl", [{"id": one, "response": 5.0}]), Fields())
    assert [(a.question_id, a.text) for a in read.answers] == [("1", "5")]


def test_rows_that_say_one_question_are_one_and_those_that_disagree_are_named(tmp_path: Path) -> None:
    rows = [{"question": q, "answer": a} for q, a in (("1?", "1"), ("2?", "2"), ("1?", "1"), ("1?", "9"))]
    found = read_questions(write_jsonl(tmp_path / "q.jsonl", rows), Fields())
    assert [q.text for q in found.questions] == ["1?", "2?"]
    assert [(r.state, r.reason.split("has ")[1]) for r in found.refused] == [
        ("duplicate", "too"),
        ("not_understood", "with another reference"),
    ]


@pytest.mark.parametrize("no", [0, 0.0, False, "false", "False", "0"], ids=repr)
def test_what_is_marked_as_not_to_be_learnt_is_refused_in_any_spelling(no: Any) -> None:
    for mark in ("weight", "train", "loss_mask"):
        with pytest.raises(NotUnderstood, match="learnt"):
            turns_of({**GOOD, mark: no})
        assert turns_of({**GOOD, mark: no}, is_learnt=False).answer
    with pytest.raises(NotUnderstood, match="bad"):
        turns_of({"prompt": "1?", "completion": "2", "label": no})
    if str(no).lower() == "false":  # beside other columns a label 0 may be the reference
        with pytest.raises(NotUnderstood, match="bad"):
            turns_of({**GOOD, "label": no})
    else:
        assert turns_of({**GOOD, "label": no}).answer
    for mark in ("weight", "train", "loss_mask", "loss"):
        with pytest.raises(NotUnderstood, match=f"learnt, {mark}"):
            turns_of({"messages": said(**{mark: no})})
        assert turns_of({"messages": [{**ASKED, mark: no}, said()[1]]}).answer  # a user's turn never is
    with pytest.raises(NotUnderstood, match="learnt"):
        turns_of({**GOOD, "loss_mask": [no, no]})


@pytest.mark.parametrize("yes", [1, 1.0, True, "true", 0.5, None, NAN, "", [0, 1]], ids=repr)
def test_other_marks_change_nothing(yes: Any) -> None:
    for mark in ("weight", "train", "loss_mask", "label"):
        assert turns_of({**GOOD, mark: yes}).answer == turns_of(GOOD).answer


CALL = {"name": "add", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    "calls",
    [
        [CALL],
        CALL,
        json.dumps([CALL]),
        json.dumps(json.dumps([CALL])),
        [json.dumps(CALL)],
        [{"function": CALL, "type": "function"}],
        [{"function": {"name": "add", "arguments": '{"a": 1}'}}],
        [{"function": {"name": "add", "arguments": json.dumps('{"a": 1}')}}],
        [{"function": json.dumps(CALL)}],
        [{"function": None, **CALL}],
        [{"name": "add", "parameters": {"a": 1}}],
    ],
)
def test_calls_are_one_whatever_they_were_written_as(calls: Any) -> None:
    for content in (None, "", NAN):
        found = turns_of({"messages": said(content, tool_calls=calls)}).answer
        assert found is not None
        ((name, arguments),) = [(c.name, json.loads(c.arguments)) for c in found.tool_calls]
        assert (name, arguments) == ("add", {"a": 1})


@pytest.mark.parametrize("calls", [None, NAN, "", "null", "[]", [], {}, [None], "[null]"])
def test_calls_of_nothing_are_none(calls: Any) -> None:
    assert turns_of({"messages": said(tool_calls=calls)}).answer == turns_of({"messages": said()}).answer


@pytest.mark.parametrize(
    "calls", ["add", [5], 5, [CALL, None], [{"name": None}], [{**CALL, "arguments": [1]}], "[[5]]"]
)
def test_calls_that_are_none_refuse_their_row(calls: Any) -> None:
    with pytest.raises(NotUnderstood, match="a tool call that is not known"):
        turns_of({"messages": said(tool_calls=calls)})


@pytest.mark.parametrize("empty", [*NOTHING, [{"type": "text", "text": ""}]], ids=repr)
def test_a_system_turn_that_says_nothing_is_none(empty: Any) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "system", "content": empty}, *said()]},
        {"messages": said(), "system": empty if isinstance(empty, str | None | float) else None},
        {
            "conversations": [
                {"from": "system", "value": empty},
                {"from": "human", "value": "1 + 2?"},
                {"from": "gpt", "value": "A: 3"},
            ]
        },
    ]
    plain = turns_of({"messages": said()})
    for row in rows:
        found = turns_of(row)
        assert (found.prompt, found.answer) == (plain.prompt, plain.answer)


def test_reasoning_in_openrouters_details_is_reasoning() -> None:
    parts = [
        {"type": "reasoning.summary", "summary": "1 and "},
        {"type": "reasoning.encrypted", "data": "xx"},
        {"type": "reasoning.text", "text": "2"},
    ]
    found = turns_of({"messages": said(reasoning_details=parts)}).answer
    assert found is not None
    assert found.reasoning == "1 and 2"
    both = turns_of({"messages": said(reasoning="1 and 2", reasoning_details=parts)}).answer
    assert both == found
    for nothing in (*NOTHING, parts[1:2]):
        none = turns_of({"messages": said(reasoning_details=nothing)}).answer
        assert none == turns_of({"messages": said()}).answer
    with pytest.raises(NotUnderstood, match="no list of objects"):
        turns_of({"messages": said(reasoning_details="because")})


@pytest.mark.parametrize("given", ["6?</think>A: 3", "<think>6?</think>A: 3"])
def test_a_block_that_the_prompt_opened_is_begun_at_every_door(tmp_path: Path, given: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": "1", "instruction": "1 + 2?", "teacher_output": given}])
    whole = "<think>\n6?\n</think>\n\nA: 3"
    assert read_teacher_files(str(path)).rows[0].answer in (whole, "<think>6?</think>A: 3")
    assert read_answers(path, Fields()).answers[0].text == read_teacher_files(str(path)).rows[0].answer
    row = {"response": "x", "reference": given}
    assert answer_and_references(row, None, None)[1] == ("<think>6?</think>A: 3",)
    asked = read_questions(write_jsonl(tmp_path / "q.jsonl", [{"question": "q", "answer": given}]), Fields())
    assert asked.questions[0].references == ("<think>6?</think>A: 3",)


def test_an_answer_that_failed_is_not_replaced_by_the_reference() -> None:
    row = {"question": "q", "response": None, "answer": "12"}
    assert turns_of(row).answer is None
    with pytest.raises(Missing, match="no answer"):
        answer_and_references(row, None, None)


def test_verify_judges_the_rows_that_can_be_and_names_the_others(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"response": "A: 3", "reference": r} for r in (3.0, None, "nobody knows", [NAN, "3"])
    ]
    rows += [{"response": NAN, "reference": "3"}, {"messages": "no list", "reference": "3"}]
    rows += [{"response": "A: 3 \ud83d", "reference": "4", "label": 0}]
    path, out = write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "v.jsonl"
    done = tutelage("verify", "--answers", path, "--out", out, "--method", "numeric")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [r["verdict"] for r in found[:6]] == [
        *("correct", "unparsed", "unparsed", "correct", "unparsed", "not_understood")
    ]
    assert [r.get("reason", "")[:20] for r in found[1:5]] == [
        "no reference answer",
        "a reference that the",
        "",
        "no answer",
    ]
    assert found[6]["verdict"] != "correct"
    assert done.stdout.count("left out") == 3
    write_jsonl(path, [{"response": "A: 3", "reference": "nobody knows"}])
    assert (
        "the reference" in tutelage("verify", "--answers", path, "--out", out, "--method", "numeric").stderr
    )


@pytest.mark.parametrize("bad", [NAN, None, float("inf"), True, "1.5"], ids=repr)
def test_select_prefers_no_cost_that_is_none(tmp_path: Path, bad: Any) -> None:
    scored = {"id": 1.0, "teacher_output": "x", "scas_score": 2.0, "teacher_name": "ann"}
    rows = [scored, {**scored, "scas_score": bad, "teacher_output": "y"}, {"scas_score": 1.0}]
    path = write_jsonl(tmp_path / "in" / "ann_scas_scores.jsonl", rows)
    said: list[str] = []
    assert list(read_scores(path.parent, "scas_score", said.append)) == [{**scored, "id": "1"}]
    assert said[-1] == f"{path.name}; 2 refused: 1 with no number under scas_score; 1 with no id"
    done = tutelage("select", "--scores", path.parent, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    chosen = (tmp_path / "out" / "min_score_selected.jsonl").read_text()
    assert [json.loads(line)["teacher_output"] for line in chosen.splitlines()] == ["x"]
    with pytest.raises(BadInput, match="no number under other"):
        list(read_scores(path.parent, "other", said.append))


def test_a_runs_ledger_has_every_row_with_its_defect(small_world: dict[str, Any], tmp_path: Path) -> None:
    train, ann = Path(small_world["questions"]["train"]), Path(small_world["teachers"][0]["path"])
    asked = [json.loads(line) for line in train.read_text().splitlines()]
    bad = [asked[0], {"id": 7.0, "question": "unreadable?", "answer": None}, {"id": 8, "answer": "1"}]
    write_jsonl(train, [*asked, *bad, {"id": 9, "question": "idle?", "answer": "1", "weight": 0}])
    answers = [json.loads(line) for line in ann.read_text().splitlines()]
    answers[0]["teacher_output"] = NAN
    answers[1] = {"id": answers[1]["id"], "question": "another text", "response": "A: 1"}
    answers[2]["train"] = False
    write_jsonl(ann, answers)
    said: list[str] = []
    load_questions(parse_experiment(small_world), said.append)
    assert [line for line in said if "left out" in line and "line 26 (7): no reference answer" in line]
    done, outcome = run(small_world, tmp_path, arms=[{"name": "random", "rule": "random"}])
    assert run_ledger(outcome)["count"].sum() > 0  # it adds up, or this raises
    ledger = outcome.rounds[outcome.paths[0], 1].chosen.whole("ledger").set_index("id")
    rows = ledger[ledger.index.str.endswith("(row)")]
    assert sorted(rows["state"]) == ["duplicate", *["not_understood"] * 3]
    states = [ledger["state"][f"ann/{answers[k]['id']}/0"] for k in range(3)]
    assert states == ["empty", "not_understood", "not_understood"]
    assert done.stages
