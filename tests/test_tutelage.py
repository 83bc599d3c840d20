"""The front door for Python: what a notebook asks in memory is what the command line says of files."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import tutelage as front
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from jobs.miniature.tasks import draw_episodes, work_out
from jobs.standalone.select import SelectOptions, draw_from_groups
from selection.costs import COSTS, CostSettings
from tests.conftest import write_jsonl
from tests.in_process import InProcess
from tests.runs import tutelage, write_experiment

EPISODES = draw_episodes(5, seed=2)
QUESTIONS = [e.question for e in EPISODES]
REFERENCES = [e.result for e in EPISODES]
ANSWERS = {d: [work_out(e, d) for e in EPISODES] for d in ("equations", "wordy")}
ROWS: list[dict[str, Any]] = [
    {"id": str(k), "question": q, "response": texts[k], "reference": REFERENCES[k], "teacher": teacher}
    for k, q in enumerate(QUESTIONS)
    for teacher, texts in ANSWERS.items()
]


@pytest.fixture(scope="module")
def costs(tiny_model: Path) -> pd.DataFrame:
    return front.score(tiny_model, QUESTIONS, ANSWERS)


def as_data_set() -> Any:
    return pytest.importorskip("datasets").Dataset.from_list(ROWS)


def as_turns(question: str, answer: str) -> tuple[Any, Any]:
    return [{"role": "user", "content": question}], {"role": "assistant", "content": answer}


FORMS: dict[str, Any] = {
    "columns of a frame": lambda path: (
        pd.Series(QUESTIONS),
        {name: pd.Series(texts) for name, texts in ANSWERS.items()},
    ),
    "arrays": lambda path: (np.array(QUESTIONS), {n: np.array(t, object) for n, t in ANSWERS.items()}),
    "messages": lambda path: (
        [as_turns(q, "")[0] for q in QUESTIONS],
        {n: [as_turns("", text)[1] for text in texts] for n, texts in ANSWERS.items()},
    ),
    "a frame": lambda path: (None, pd.DataFrame(ROWS)),
    "a frame of mixed types": lambda path: (None, pd.DataFrame(ROWS).assign(odd=[1, "a"] * 5)),
    "dictionaries": lambda path: (None, ROWS),
    "a data set": lambda path: (None, as_data_set()),
    "a file": lambda path: (None, write_jsonl(path / "answers.jsonl", ROWS)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_answers_has_the_same_costs(
    form: str, costs: pd.DataFrame, tiny_model: Path, tmp_path: Path
) -> None:
    questions, answers = FORMS[form](tmp_path)
    got = front.score(tiny_model, questions, answers)
    assert got["answer_id"].tolist() == costs["answer_id"].tolist()
    assert got["question"].tolist() == [row["question"] for row in ROWS]
    np.testing.assert_allclose(got["cost"], costs["cost"], rtol=1e-5)


def test_costs_are_those_that_the_command_line_writes(
    costs: pd.DataFrame, tiny_model: Path, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "answers.jsonl", ROWS)
    done = tutelage("score", "--student", tiny_model, "--answers", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = [line for f in (tmp_path / "out").glob("*.jsonl") for line in f.read_text().splitlines()]
    written = {(r["id"], r["teacher_name"]): r["scas_score"] for r in map(json.loads, lines)}
    got = dict(zip(zip(costs["question_id"], costs["teacher"], strict=True), costs["cost"], strict=True))
    assert got == pytest.approx(written, rel=1e-5)


def test_a_loaded_student_scores_alike_and_is_left_as_it_was(
    costs: pd.DataFrame, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ModelSource(str(tiny_model))
    model, tokenizer = load_model(source).train(), load_tokenizer(source)
    first, *others = model.parameters()
    first.grad, template = first.detach().clone(), tokenizer.chat_template
    others[0].requires_grad_(False)
    got = front.score((model, tokenizer), QUESTIONS, ANSWERS)
    np.testing.assert_allclose(got["cost"], costs["cost"], rtol=1e-5)
    monkeypatch.setattr("selection.audit.RESAMPLES", 20)  # of the intervals, which this is not about
    found = front.audit((model, tokenizer), QUESTIONS[:3], ANSWERS["wordy"][:3], sample=2)
    assert set(found["cost"]) >= {"scas", "naturalness", "lark"}
    assert found["questions"].max() == 2
    assert model.training
    assert (first.grad == first).all()
    assert [p.requires_grad for p in others].count(False) == 1
    assert all(p.grad is None for p in others)
    assert tokenizer.chat_template == template


def test_what_has_no_cost_is_said_and_kept_with_its_reason(tiny_model: Path) -> None:
    answers = [[ANSWERS["wordy"][0], None], float("nan"), "  ", "A: 1 " * 40, ANSWERS["wordy"][4]]
    with pytest.warns(UserWarning, match="4 of 6 answers have no cost: 3 empty, 1 too_long"):
        got = front.score(tiny_model, QUESTIONS, answers, max_length=120).set_index("answer_id")
    assert got["state"].to_dict() == {
        "answers/0/0": "scored",
        "answers/0/1": "empty",
        "answers/1/0": "empty",
        "answers/2/0": "empty",
        "answers/3/0": "too_long",
        "answers/4/0": "scored",
    }
    without = got[got["state"] != "scored"]
    assert without[["cost", "n_answer", "answer_loss"]].isna().all(axis=None)
    assert (without["reason"] != "").all()
    assert front.choose(got.reset_index(), "minimum")["question_id"].tolist() == ["0", "4"]


@pytest.mark.parametrize("cost", ["scas", "naturalness", "lark", "shortest", "worst_token"])
def test_other_costs_follow_from_the_same_columns(cost: Any, costs: pd.DataFrame, tiny_model: Path) -> None:
    asked = front.score(tiny_model, None, ROWS[:4], cost=cost)
    np.testing.assert_allclose(asked["cost"], COSTS[cost](costs[:4], CostSettings(cost)), rtol=1e-5)
    cheapest = front.choose(costs[:4], "minimum", cost=cost)["answer_id"]
    assert cheapest.tolist() == front.choose(asked, "minimum")["answer_id"].tolist()


def test_verdicts_join_costs_by_their_ids_and_only_right_answers_are_chosen(costs: pd.DataFrame) -> None:
    given = {**ANSWERS, "wordy": ["A: wrong", *ANSWERS["wordy"][1:]]}
    verdicts = front.verify(given, REFERENCES, "exact")
    assert verdicts["answer_id"].tolist() == costs["answer_id"].tolist()
    assert verdicts["verdict"].tolist() == ["correct", "wrong", *["correct"] * 8]
    both = costs.merge(verdicts[["answer_id", "verdict"]])
    for rule in ("minimum", "random", "groups", "top_k"):
        assert front.choose(both, rule)["answer_id"].iloc[0] == "equations/0/0"
    strongest = front.choose(both, "strongest")
    assert strongest["teacher"].tolist() == ["equations"] * 5
    assert strongest["question"].tolist() == QUESTIONS
    assert front.choose(both, "strongest", accuracy={"wordy": 1.0, "equations": 0.0})["teacher"].tolist() == [
        "equations",
        *["wordy"] * 4,
    ]


CHECKS: dict[str, list[tuple[Any, Any, str]]] = {
    "math": [("A: 1/2", 0.5, "correct"), ("A: 3", None, "unparsed"), (None, "3", "unparsed")],
    "exact": [
        ("A: 3", np.int64(3), "correct"),
        ("A: 3", ["4", "3"], "correct"),
        ("A: 3", ("4", "5"), "wrong"),
        ("A: 3", np.array([4, 3]), "correct"),
        ({"role": "assistant", "content": "A: 3"}, "3", "correct"),
        ({"role": "assistant", "content": [{"type": "image"}]}, "3", "not_understood"),
    ],
    "numeric": [("A: 3", np.float64(3), "correct"), ("A: 3", "a few", "unparsed"), ("A: 3", 4, "wrong")],
    "choice": [("A: B", "B", "correct"), ("A: B", "C", "wrong")],
}


@pytest.mark.parametrize("method", CHECKS)
def test_verdicts_on_lists_have_a_reason_where_they_are_none(method: str) -> None:
    answers, references, verdicts = zip(*CHECKS[method], strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = front.verify(answers, references, method)
    assert tuple(got["verdict"]) == verdicts
    assert [reason == "" for reason in got["reason"]] == [v in ("correct", "wrong") for v in verdicts]


def test_verdicts_on_rows_keep_their_columns() -> None:
    rows = [{"said": "A: 3", "gold": 3, "mine": "x"}, {"said": "A: 3", "gold": None, "mine": "y"}]
    with pytest.warns(UserWarning, match="1 of 2 answers have no verdict: 1 unparsed"):
        got = front.verify(rows, method="exact", answer_field="said", reference_field="gold")
    assert got.columns.tolist() == ["said", "gold", "mine", "verdict", "extracted", "reason"]
    assert got["verdict"].tolist() == ["correct", "unparsed"]


def test_columns_of_the_users_own_that_have_a_verdicts_names_are_made_anew() -> None:
    frame = pd.DataFrame({"answer": ["A: 3"], "reference": ["3"], "reason": ["old"], "verdict": ["wrong"]})
    got = front.verify(frame, method="exact")
    assert got[["verdict", "extracted", "reason"]].iloc[0].tolist() == ["correct", "3", ""]


SHORT: list[tuple[Any, Any, str]] = [
    (QUESTIONS, ANSWERS["wordy"][:3], "answers are not as many as the questions; got 3 and 5"),
    (QUESTIONS[0], ["x"], "the prompts are no list"),
    (QUESTIONS, "wordy", "questions in a list, beside rows"),
    (QUESTIONS, pd.DataFrame(ROWS), "questions in a list, beside rows"),
    (None, ANSWERS, "answers without their questions"),
    (None, [], "answers without their questions"),
    ([], [], "no answers"),
    (QUESTIONS, None, "no answers"),
    (pd.Series(QUESTIONS), pd.Series(ANSWERS["wordy"], index=[4, 3, 2, 1, 0]), "another index"),
    (QUESTIONS, [None] * 5, "has no answer"),
]


@pytest.mark.parametrize(("questions", "answers", "said"), SHORT)
def test_what_cannot_be_joined_is_refused_before_a_student_is_loaded(
    questions: Any, answers: Any, said: str
) -> None:
    with pytest.raises(front.BadInput, match=said):
        front.score("/no/such/student", questions, answers)


@pytest.mark.parametrize(
    ("student", "said"),
    [("/no/such/student", "."), ((1, 2), "got int, int"), ((), "no student"), (None, "no student")],
)
def test_a_student_that_is_none_is_refused(student: Any, said: str) -> None:
    with pytest.raises(front.BadInput, match=said):
        front.score(student, QUESTIONS, ANSWERS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rule": "grups"}, "did you mean groups"),
        ({"rule": "strongest"}, "strongest knows no accuracy"),
        ({"cost": "perplexity"}, "no such cost"),
        ({"cost": "ifd"}, "no such cost"),
        ({"group": 9}, "group is out of range"),
    ],
)
def test_choices_that_nothing_can_be_made_of_are_refused(change: Any, said: str, costs: pd.DataFrame) -> None:
    with pytest.raises(front.BadInput, match=said):
        front.choose(costs, **change)


@pytest.mark.parametrize("kind", [int, str, float])
def test_a_frame_of_the_users_own_keeps_its_order_and_columns(kind: Any) -> None:
    ids = [kind(q) for q in (30, 4, 30, 11, 4)]
    frame = pd.DataFrame({"question_id": ids, "cost": [2.0, 1, 1, np.nan, 3], "mine": list("abcde")})
    got = front.choose(frame.set_index(pd.Index([9, 9, 9, 9, 9])), "minimum")
    assert got["mine"].tolist() == ["c", "b"]
    assert got["question_id"].tolist() == [kind(30), kind(4)]
    assert got["candidates"].tolist() == [2, 2]
    ranked = front.choose(frame, "top_k", k=2)
    assert ranked[["mine", "rank"]].to_numpy().tolist() == [["c", 1], ["a", 2], ["b", 1], ["e", 2]]


def numbers(seed: int) -> Iterator[dict[str, Any]]:
    """Ranked rows of some questions, with equal costs among them."""
    rng = np.random.default_rng(seed)
    for question in range(30):
        count = int(rng.integers(1, 9))
        for rank, cost in enumerate(sorted(rng.integers(0, 4, count).tolist()), 1):
            yield {
                "id": f"q{question:02d}",
                "teacher_name": f"t{rank}",
                "s": cost,
                "score_rank": rank,
                "n": count,
            }


@pytest.mark.parametrize("compat", ["ours", "reference"])
@pytest.mark.parametrize(("groups", "group"), [(5, 1), (2, 2), (3, 3), (1, 1)])
def test_the_draw_from_a_group_is_the_one_it_was(compat: str, groups: int, group: int) -> None:
    """The rule draws as `select` always did: `integers` of the question's own generator."""
    from selection.rules import group_of_rank, question_generator

    questions: dict[str, list[dict[str, Any]]] = {}
    for row in numbers(groups):
        questions.setdefault(row["id"], []).append(row)
    options = SelectOptions(Path(), Path(), "s", groups, group, 7, compat)
    expected = []
    for question, rows in questions.items():
        own = [r for r in rows if group_of_rank(r["score_rank"], r["n"], groups, compat) == group]
        if own:
            expected.append(own[int(question_generator(7, question).integers(len(own)))])
    assert draw_from_groups(questions, options) == expected


def test_a_run_from_python_gives_what_its_files_say(small_world: dict[str, Any], tmp_path: Path) -> None:
    with mock.patch("jobs.run.run.RayHost", side_effect=lambda *rest: InProcess({"CPU": 2.0, "GPU": 0.0})):
        results = front.run(write_experiment(small_world, tmp_path), "train.steps=1", verbose=False)
    assert results.arms[["student", "arm"]].to_numpy().tolist() == [["kid", "scas"], ["kid", "strongest"]]
    assert results.arms["value"].between(results.arms["low"], results.arms["high"]).all()
    assert results.comparisons["against"].tolist() == ["strongest"]
    assert Path(results.report).is_file()
    assert "scas" in str(results)
    read = front.read_results("small", runs=small_world["runs"])
    pd.testing.assert_frame_equal(read.comparisons, results.comparisons)
    assert len(read.questions) == len(results.questions) > 0
    assert len(read.ledger) > 0


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(front.BadInput, match="no finished run there"):
        front.read_results(tmp_path)
    with pytest.raises(front.BadInput, match="nam"):
        front.run({"nam": "x"})
