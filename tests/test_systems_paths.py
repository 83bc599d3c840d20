"""A path that has nothing left to learn from ends by name, and the others go on."""

import re
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BadInput
from jobs.report.run import render_report
from jobs.results.summary import summarise, verdict_lines
from tests.own_rollouts import arms, path_of
from tests.runs import run, tutelage, write_experiment
from tests.test_pipeline_rows import rewrite


@pytest.mark.long
def test_a_path_that_has_nothing_left_ends_and_the_others_go_on(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    """An untrained student is never right: rejection sampling had nothing, and took all others with it."""
    select = [{"name": "strongest", "rule": "strongest"}]
    done, outcome = run(own_world, tmp_path, arms=[*arms("rejection_sampling", "ogls"), *select])
    ended = path_of(outcome, "rejection sampling")
    assert outcome.ended.keys() == {ended}
    assert {p.arm.name for p, number, _ in outcome.evaluated() if number == 2} == {"ogls", "strongest"}
    results = summarise(done, outcome)
    (line,) = results.ended
    assert line.startswith("ended: kid rejection sampling seed 0 round 1: no rollout is left")
    assert "24 is_wrong" in line
    assert line in verdict_lines(results)
    assert line in render_report(results)
    assert [a for _, a, _ in results.comparisons] == ["ogls"]
    tree = own_world | {"evaluate": {"baseline": "rejection sampling"}}
    against = run(tree, tmp_path, arms=[*arms("rejection_sampling", "ogls"), *select])
    assert summarise(*against).comparisons == []


def test_a_run_with_a_path_that_ended_can_be_reported_on_planned_and_gone_on_with(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    rewrite(own_world["teachers"][0]["path"], lambda rows: [r | {"teacher_output": "A:none"} for r in rows])
    mute = {"name": "mute", "rule": "teacher", "teacher": own_world["teachers"][0]["name"]}
    tree = own_world | {"arms": [*arms("rejection_sampling", "lambda_zero"), mute], "rounds": 1}
    file = write_experiment(tree, tmp_path)
    for command in (("run", file), ("run", file), ("report", tmp_path / "runs" / "small")):
        done = tutelage(*command)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "runs" / "small" / "report.html").read_text()
        for arm, why in (("rejection sampling", "24 is_wrong"), ("mute", "chose no answer at all")):
            said = page.partition(f"ended: kid {arm} seed 0 round 1")[2][:400]
            assert why in said
    planned = tutelage("plan", file)
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"train, all rounds\s+\S*\s*1 of 1", planned.stdout), planned.stdout


def test_a_teacher_without_a_right_answer_ends_its_own_arm_alone(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    rewrite(small_world["teachers"][0]["path"], lambda rows: [r | {"teacher_output": "A:none"} for r in rows])
    names = [t["name"] for t in small_world["teachers"]]
    single = [{"name": f"only {n}", "rule": "teacher", "teacher": n} for n in names]
    done, outcome = run(small_world, tmp_path, arms=single, rounds=1)
    assert [(p.arm.name, number) for p, (number, _) in outcome.ended.items()] == [(f"only {names[0]}", 1)]
    results = summarise(done, outcome)
    assert {a.arm for a in results.arms} >= {f"only {n}" for n in names[1:]}
    assert "chose no answer at all" in results.ended[0]
    with pytest.raises(BadInput, match="chose no answer at all"):
        run(small_world, tmp_path, arms=single[:1], rounds=1)
