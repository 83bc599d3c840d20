"""Routing from the first questions to evaluation: who is asked what, and what a run tells of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.miniature.tasks import draw_episodes, work_out
from tests.conftest import write_jsonl
from tests.runs import run, tutelage, write_experiment

QUESTIONS, FIRST = 120, 48


@pytest.fixture
def specialists(small_world: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Three teachers in files. Ann is right on half of the families, bob on the others, cat on a third of
    all."""
    episodes = draw_episodes(QUESTIONS, seed=5)
    families = sorted({e.family for e in episodes})
    of_ann = set(families[: len(families) // 2])
    rows = [
        {"id": e.question_id, "question": e.question, "reference": e.result, "family": e.family}
        for e in episodes
    ]
    write_jsonl(tmp_path / "many.jsonl", rows)
    for teacher in ("ann", "bob", "cat"):
        answers = []
        for k, e in enumerate(episodes):
            is_right = {"ann": e.family in of_ann, "bob": e.family not in of_ann, "cat": k % 3 == 0}[teacher]
            text = work_out(e, "running")
            text = text if is_right else text[: text.rindex("A:")] + "A:wrong"
            answers.append({"id": e.question_id, "instruction": e.question, "teacher_output": text})
        write_jsonl(tmp_path / "answers" / f"{teacher}.jsonl", answers)
    questions = small_world["questions"] | {"train": str(tmp_path / "many.jsonl")}
    return small_world | {"questions": questions, "arms": [arm("routed")]}


def arm(name: str, **about: Any) -> dict[str, Any]:
    return {"kind": "route", "name": name, "first": FIRST, **about}


def figures(outcome: Any) -> dict[str, dict[str, float]]:
    return {path.arm.name: own.figures for (path, number), own in outcome.rounds.items() if number == 1}


def test_specialists_are_asked_their_own_questions_and_generalists_are_not_asked_apart(
    specialists: dict[str, Any], tmp_path: Path
) -> None:
    arms = [arm("routed"), arm("best", by="best"), arm("random", by="random"), arm("twice", tries=2)]
    _, outcome = run(specialists, tmp_path, arms=arms)
    told = figures(outcome)
    routed, best, random = told["routed"], told["best"], told["random"]
    rest = QUESTIONS - FIRST
    assert routed["chosen by question"] == 1
    assert routed["gain, low"] > 0
    assert routed["calls"] == 3 * FIRST + rest == best["calls"] == random["calls"]
    assert routed["calls saved"] == pytest.approx(2 * rest / (3 * QUESTIONS))
    assert routed["other questions with a right answer"] > 0.9
    assert best["other questions with a right answer"] < 0.75
    assert best["chosen by question"] == 0
    assert max(v for n, v in best.items() if n.startswith("share of")) == 1
    assert 0.1 < random["share of cat"] < 0.6
    # another teacher is asked only where the first was wrong
    assert (
        told["twice"]["other questions with a right answer"] >= routed["other questions with a right answer"]
    )
    wrong = round(rest * (1 - routed["other questions with a right answer"]))
    assert told["twice"]["calls"] == routed["calls"] + wrong
    for name, own in outcome.rounds.items():
        counts = own.ledger.groupby("kind")["count"].sum()
        assert counts["question"] == QUESTIONS, name
        assert counts["answer"] == own.figures["calls"]
        assert own.evaluation is not None


def test_teachers_that_do_not_differ_by_question_are_not_told_apart(
    specialists: dict[str, Any], tmp_path: Path
) -> None:
    """All are right at random: the best one is asked everything, unless it is forced."""
    answers = tmp_path / "answers"
    for number, teacher in enumerate(("ann", "bob", "cat")):
        rows = [json.loads(line) for line in (answers / f"{teacher}.jsonl").read_text().splitlines()]
        for k, row in enumerate(rows):
            body = row["teacher_output"][: row["teacher_output"].rindex("A:")]
            episode = draw_episodes(QUESTIONS, seed=5)[k]
            is_right = (k * 7919 + number * 104729) % 10 < 6
            row["teacher_output"] = body + (f"A:{episode.result}" if is_right else "A:wrong")
        write_jsonl(answers / f"{teacher}.jsonl", rows)
    _, outcome = run(specialists, tmp_path, arms=[arm("routed"), arm("forced", force=True)])
    told = figures(outcome)
    assert told["routed"]["gain, low"] <= 0
    assert told["routed"]["chosen by question"] == 0
    assert max(v for n, v in told["routed"].items() if n.startswith("share of")) == 1
    assert told["forced"]["chosen by question"] == 1


def test_a_hosted_teacher_is_asked_no_more_than_its_questions(
    specialists: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    """The store holds what was asked, and an arm that wants all answers finds these there."""
    hosted = {"kind": "model", "name": "tia", "path": str(tiny_model)}
    tree = specialists | {
        "teachers": [*specialists["teachers"][:2], hosted],
        "generate": {"max_new_tokens": 8},
        "questions": specialists["questions"] | {"train_rows": "0:60"},
        "arms": [arm("routed", first=20)],
    }
    done, outcome = run(tree, tmp_path)
    asked = {name: view for (kind, name), view in done.stages.items() if kind == "generate"}
    assert {len(list(view.every_key())) for name, view in asked.items()} == {20}  # tia is never right
    assert figures(outcome)["routed"]["calls"] == 20 * 3 + 40
    every = tree["arms"] + [{"name": "random", "rule": "random"}]
    again, _ = run(tree | {"arms": every}, tmp_path)
    made = {name: view for (kind, name), view in again.stages.items() if kind == "generate" and name == "tia"}
    assert len(list(made["tia"].every_key())) == 60


def test_a_plan_says_what_will_be_asked_at_most_and_a_report_whom(
    specialists: dict[str, Any], tmp_path: Path
) -> None:
    file = write_experiment(specialists, tmp_path)
    planned = tutelage("plan", file)
    assert planned.returncode == 0, planned.stderr
    assert "for routed arms" in planned.stdout
    done = tutelage("run", file)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "runs" / "small" / "report.html").read_text()
    assert "Whom to ask" in page
    assert "Whom the other questions were asked of" in page


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arms": [arm("routed", first=QUESTIONS)]}, "no other question is left"),
        ({"arms": [arm("routed", cost="ifd")]}, "needs more than one pass over an answer"),
        ({"arms": [arm("routed", by="best", force=True)]}, "reads no force"),
        ({"arms": [arm("routed", first=5)]}, "first"),
        ({"generate": {"until_verified": 2, "max_samples": 3, "temperature": 1.0}}, "asks it again"),
        ({"teachers": []}, "chooses whom to ask"),
    ],
)
def test_what_cannot_work_is_refused_before_anybody_is_asked(
    specialists: dict[str, Any], tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    done = tutelage("run", write_experiment(specialists | change, tmp_path))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").glob("route/*"))
