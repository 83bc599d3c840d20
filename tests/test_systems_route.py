"""Routing from the first questions to evaluation: who is asked what, and what a run tells of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.miniature.tasks import draw_episodes, work_out
from jobs.report.export import export_run
from jobs.results.ledger import run_ledger
from jobs.results.outcome import Outcome
from jobs.results.quarantine import quarantine
from jobs.results.summary import summarise
from jobs.systems.route.asking import distinct, first_questions
from jobs.systems.route.sections import PRICE, TOLD, WHOM
from tests.conftest import write_jsonl
from tests.fault_proxy import FaultProxy
from tests.runs import run, tutelage, write_experiment

QUESTIONS, FIRST = 120, 48
USABLE = "other questions with a usable answer"


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


def notes(outcome: Outcome) -> dict[str, str]:
    """The lines of the report's section: what first questions told, whom others were asked of, the price."""
    (section,) = [one for one in outcome.sections if one.id == "route"]
    found = {}
    for head, lines in section.notes.items():
        kind = {TOLD: "", WHOM: "whom ", PRICE: "price "}[head]
        found |= {kind + line.partition(": ")[0]: line.partition(": ")[2] for line in lines}
    return found


def test_specialists_are_asked_their_own_questions_and_generalists_are_not_asked_apart(
    specialists: dict[str, Any], tmp_path: Path
) -> None:
    arms = [arm("routed"), arm("best", by="best"), arm("random", by="random"), arm("twice", tries=2)]
    _, outcome = run(specialists, tmp_path, arms=arms)
    told = figures(outcome)
    routed, best, random = told["routed"], told["best"], told["random"]
    rest = QUESTIONS - FIRST
    assert routed["asked"] == 3 * FIRST + rest == best["asked"] == random["asked"]
    assert routed["saved"] == pytest.approx(2 * rest / (3 * QUESTIONS))
    assert routed[USABLE] > 0.9
    assert best[USABLE] < 0.75
    # another teacher is asked only where the first was wrong
    assert told["twice"][USABLE] >= routed[USABLE]
    assert told["twice"]["asked"] == routed["asked"] + round(rest * (1 - routed[USABLE]))
    lines = notes(outcome)
    assert "yes: choosing by question gains" in lines["kid routed seed 0"]
    assert lines["whom kid best seed 0"].endswith("100%")
    assert lines["whom kid random seed 0"].count("%") == 3
    assert "saved 40% of what asking all would take" in lines["price kid, routed"]
    counts = run_ledger(outcome).groupby(["path", "kind"])["count"].sum()
    for (path, _), own in outcome.rounds.items():
        assert counts[path.label, "question"] == QUESTIONS
        assert counts[path.label, "answer"] == own.figures["asked"]
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
    arms = [arm("routed"), arm("best", by="best"), arm("forced", force=True)]
    done, outcome = run(specialists, tmp_path, arms=arms)
    lines = notes(outcome)
    assert "no, so " in lines["kid routed seed 0"]
    assert " was asked alone. Gain " in lines["kid routed seed 0"]
    assert lines["whom kid routed seed 0"] == lines["whom kid best seed 0"]
    assert "because it is forced" in lines["kid forced seed 0"]
    verdicts = [c.verdict for _, arm, c in summarise(done, outcome).comparisons if arm == "best"]
    assert "chose the same answers" in verdicts[0]


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
    planned = tutelage("plan", write_experiment(tree, tmp_path))
    assert "generate routed questions, at most" in planned.stdout
    assert "40 answers" in planned.stdout
    done, outcome = run(tree, tmp_path)
    asked = {name: view for (kind, name), view in done.stages.items() if kind == "generate"}
    assert {len(list(view.every_key())) for name, view in asked.items()} == {20}  # tia is never right
    assert figures(outcome)["routed"]["asked"] == 20 * 3 + 40
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
    assert "score routed questions" in planned.stdout
    done = tutelage("run", file)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "runs" / "small" / "report.html").read_text()
    assert "Whom to ask" in page
    assert "Whom the other questions were asked of" in page
    assert "no, so " in page or "yes: choosing by question" in page
    again = tutelage("report", tmp_path / "runs" / "small")
    assert again.returncode == 0, again.stderr
    planned = tutelage("plan", file)
    assert "routed questions, at most" not in planned.stdout
    assert "  no  " not in planned.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arms": [arm("routed", first=QUESTIONS)]}, "no other question is left"),
        ({"arms": [arm("routed", cost="ifd")]}, "no cost of one answer after one pass"),
        ({"arms": [arm("routed", cost="lark")]}, "no cost of one answer after one pass"),
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


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_questions_that_ask_the_same_are_drawn_together(specialists: dict[str, Any], tmp_path: Path) -> None:
    """A router that had seen a question's twin would know what its answers bring."""
    _, outcome = run(specialists, tmp_path)
    questions = outcome.start.questions
    twins = {f"again-{q.id}": replace(q, id=f"again-{q.id}") for q in list(questions.values())[:60]}
    every = {**questions, **twins}
    first = first_questions(every, 40, 3)
    assert {f"again-{i}" in first for i in first if f"again-{i}" in every} == {True}
    assert distinct(every, first) == 40


def test_changed_families_are_learned_from_anew(specialists: dict[str, Any], tmp_path: Path) -> None:
    """What the router reads of questions is part of what it was learned from."""
    before, _ = run(specialists, tmp_path)
    file = Path(specialists["questions"]["train"])
    write_jsonl(file, [row | {"family": ""} for row in rows_in(file)])
    after, _ = run(specialists, tmp_path)
    ids = [stage.id for one in (before, after) for (k, _), stage in one.stages.items() if k == "route"]
    assert len(set(ids)) == 2


def test_a_first_part_without_a_right_answer_ends_the_run_before_more_is_asked(
    specialists: dict[str, Any], tmp_path: Path
) -> None:
    for teacher in ("ann", "bob", "cat"):
        path = tmp_path / "answers" / f"{teacher}.jsonl"
        write_jsonl(path, [row | {"teacher_output": "A:wrong"} for row in rows_in(path)])
    done = tutelage("run", write_experiment(specialists, tmp_path))
    assert done.returncode == 2
    assert "no teacher has a verified answer" in done.stderr
    assert f"{3 * FIRST} wrong" in done.stderr


def test_answers_that_cannot_be_scored_are_asked_for_again_and_told_of(
    specialists: dict[str, Any], tmp_path: Path
) -> None:
    """Ann's answers are too long for the student, so bob is asked next."""
    path = tmp_path / "answers" / "ann.jsonl"
    rows = [row | {"teacher_output": "so " * 200 + row["teacher_output"]} for row in rows_in(path)]
    write_jsonl(path, rows)
    tree = specialists | {"score": {"max_length": 150}, "arms": [arm("twice", tries=2)]}
    _, outcome = run(tree, tmp_path)
    assert 0.3 < figures(outcome)["twice"][USABLE] < 0.8, "ann's questions have no usable answer"
    table = quarantine(outcome, "run")
    assert (table["state"] == "too_long").sum() > 20


def test_a_routed_choice_is_exported_whether_others_want_all_answers_or_not(
    specialists: dict[str, Any], tmp_path: Path
) -> None:
    other = {"name": "all asked", "rule": "minimum", "cost": "naturalness"}
    for name, arms in (("alone", [arm("routed")]), ("both", [arm("routed"), other])):
        _, outcome = run(specialists, tmp_path, arms=arms)
        files = export_run(outcome, tmp_path / name, ["messages"])
        (chosen,) = [f for f in files if f.parent.name == "chosen" and "routed" in f.name]
        (own,) = [own for (path, _), own in outcome.rounds.items() if path.arm.name == "routed"]
        assert own.chosen is not None
        assert len(rows_in(chosen)) == own.chosen.counts()["chosen"]


def test_failed_calls_are_repeated_once_a_run_and_the_run_can_be_read_afterwards(
    specialists: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", "sk-anything")
    proxy = FaultProxy("http://127.0.0.1:9", [], after="500")
    far = {"kind": "endpoint", "name": "far", "base_url": proxy.url, "model": "m", "api_key_env": "FAR_KEY"}
    tree = specialists | {"teachers": [*specialists["teachers"], far | {"max_retries": 0}]}
    tree["arms"] = [arm("routed", first=20), arm("twice", first=20, tries=2)]
    file = write_experiment(tree, tmp_path)
    done = tutelage("run", file)
    assert done.returncode == 0, done.stderr
    calls = len(proxy.seen)
    assert calls >= 20
    again = tutelage("run", file, "--retry-failed")
    assert again.returncode == 0, again.stderr
    proxy.close()
    assert len(proxy.seen) <= 2 * calls
    for command in ("report", "plan"):
        read = tutelage(command, tmp_path / "runs" / "small" if command == "report" else file)
        assert read.returncode == 0, read.stderr
        assert "0 stages made" in read.stdout or "generate far" in read.stdout
