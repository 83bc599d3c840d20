"""What is asked, checked and scored again when an experiment changes: only what nobody has made yet. Counted
at the handlers, in this process.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.counting import ASKED, CHECKED, SCORED, since
from tests.runs import run


def world(small_world: dict[str, Any], tiny_model: Path, questions: int = 12) -> dict[str, Any]:
    """The small world with a hosted teacher beside the files, hardly any training, and losses as measure."""
    tree = small_world | {
        "teachers": [*small_world["teachers"], {"kind": "model", "name": "dan", "path": str(tiny_model)}],
        "generate": {"max_new_tokens": 12, "shard_size": 5},
        "train": {"steps": 1},
        "evaluate": {"metric": "loss"},
        "limit": questions,
    }
    return json.loads(json.dumps(tree))  # type: ignore[no-any-return]


def rewrite(path: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    file = Path(path)
    rows = change([json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_added_questions_alone_are_asked_checked_and_scored(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, made: Counter[str]
) -> None:
    tree = world(small_world, tiny_model)
    run(tree, tmp_path)
    assert made[ASKED] == 12
    before = made.copy()
    run(tree | {"limit": 17}, tmp_path)
    new = since(made, before)
    assert new[ASKED] == 5
    assert 5 * 3 <= new[CHECKED] <= 5 * 4
    assert 0 < new[SCORED] <= 5 * 4 + 2 * 12  # the answers, and the losses of two newly trained students


def test_order_names_shards_and_replicas_change_nothing(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, made: Counter[str]
) -> None:
    tree = world(small_world, tiny_model, 24)
    first, one = run(tree, tmp_path)
    before = made.copy()
    moved = json.loads(json.dumps(tree))
    moved["generate"]["shard_size"], moved["score"] = 2, {"shard_size": 3}
    moved["teachers"][3] |= {"replicas": 2, "name": "dora"}
    files = [moved["questions"]["train"], *(t["path"] for t in moved["teachers"][:3])]
    for file in files:
        rewrite(file, lambda rows: [row | {"id": f"new-{row['id']}"} for row in reversed(rows)])
    second, two = run(moved, tmp_path)
    assert since(made, before) == {ASKED: 0, CHECKED: 0, SCORED: 0}
    for path, number, _, stage in one.choices():
        other = next(s for p, n, _, s in two.choices() if (p.arm.name, n) == (path.arm.name, number))
        texts = [
            [
                (row.teacher.replace("dora", "dan"), row.question_id.removeprefix("new-"), row.cost)
                for row in own
            ]
            for own in (s.whole("chosen").itertuples() for s in (stage, other))
        ]
        assert texts[0] == texts[1]
    trained = [{s.id for (kind, _), s in r.stages.items() if kind == "train"} for r in (first, second)]
    assert trained[0] == trained[1]


def test_a_larger_token_limit_asks_again_only_what_was_cut_off(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, made: Counter[str]
) -> None:
    tree = world(small_world, tiny_model)
    tree["generate"]["temperature"] = 1.0
    done, _ = run(tree, tmp_path)
    answers = done.stages["generate", "dan"].read()
    cut = int((answers["finish"] == "length").sum())
    assert 0 < cut <= 12
    before = made.copy()
    tree["generate"]["max_new_tokens"] = 20
    again, _ = run(tree, tmp_path)
    assert since(made, before)[ASKED] == cut
    longer = again.stages["generate", "dan"].read()
    kept = answers["finish"] == "stop"
    assert longer["text"][kept].tolist() == answers["text"][kept].tolist()


@pytest.mark.long
def test_a_new_teacher_is_asked_and_scored_alone_and_a_second_student_asks_and_checks_nothing(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, made: Counter[str]
) -> None:
    tree = world(small_world, tiny_model, 24)
    teachers = tree["teachers"]
    run(tree | {"teachers": teachers[1:]}, tmp_path)
    before = made.copy()
    run(tree, tmp_path)
    new = since(made, before)
    assert new[ASKED] == 0
    assert new[CHECKED] <= 24
    before = made.copy()
    twin = tmp_path / "twin"
    shutil.copytree(tree["students"][0]["path"], twin)
    other = {**tree["students"][0], "name": "twin", "path": str(twin), "dtype": "bfloat16"}
    run(tree | {"students": [*tree["students"], other]}, tmp_path)
    new = since(made, before)
    assert new[ASKED] == new[CHECKED] == 0
    assert new[SCORED] > 24


def test_more_held_out_questions_ask_the_students_only_those(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, made: Counter[str]
) -> None:
    tree = world(small_world, tiny_model) | {"evaluate": {"max_new_tokens": 160}}
    fewer = tree | {"questions": {**tree["questions"], "evaluate_rows": "0:7"}}
    run(fewer, tmp_path)
    before = made.copy()
    _, outcome = run(tree, tmp_path)
    students = len(outcome.start.before) + len(list(outcome.evaluated()))
    assert since(made, before)[ASKED] == 5 * students


def test_several_samples_judge_a_student_by_their_mean(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, made: Counter[str]
) -> None:
    tree = world(small_world, tiny_model)
    tree["evaluate"] = {"samples": 3, "temperature": 1.0, "max_new_tokens": 16, "allow_truncation": True}
    tree["verify"] = {"method": "function", "function": "tests.accept_half:check"}
    tree["arms"] = [{"name": "random", "rule": "random"}]
    _, outcome = run(tree, tmp_path)
    table = outcome.start.before["kid"].read()
    assert len(table) == 12
    assert set((table["value"] * 3).round(6)) <= {0.0, 1.0, 2.0, 3.0}
    assert len(set(table["value"])) > 1
